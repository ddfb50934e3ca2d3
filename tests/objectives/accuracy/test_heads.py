"""Calibration of plans by head: uniform plans, rankings, budgets, and slopes where plans end."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.accuracy.heads import (
    Concentration,
    Ranking,
    budgets,
    equivalent_share,
    head_loss,
    importance,
    ranked_share,
    score_held,
    weighted_mean,
)
from objectives.accuracy.proxies import KeepLoss, keep_loss

CLIFF = KeepLoss(amplitude=0.15, weight=4.6e-5, slope=9.0, floor=0.006, log_sd=1.2)  # about DuoAttention on LongBench
GENTLE = KeepLoss(amplitude=1.0, weight=0.005, slope=0.81, floor=0.003, log_sd=0.8)  # about SnapKV on LongBench
FLAT = Concentration(scale=0.847, bend=11.159, headroom=1.4)
STEEP = Concentration(scale=0.0677, bend=1.2, headroom=1.0)
ALIKE = Concentration(scale=1.0, bend=1.0, headroom=1.0)
SCORES = np.array([[0.9, 0.1, 0.4], [1.0, 0.0, 0.2]])
sharp = st.builds(Concentration, scale=st.floats(0.4, 1.0), bend=st.floats(1.0, 16.0), headroom=st.just(1.0))
steep = st.builds(Concentration, scale=st.floats(0.02, 1.0), bend=st.floats(1.0, 2.5), headroom=st.just(1.0))
curves = sharp | steep
shares = st.integers(0, 1000).map(lambda k: k / 1000)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def plan(*kept: int) -> np.ndarray:
    keep = np.zeros(SCORES.size)
    keep[list(kept)] = 1.0
    return keep.reshape(SCORES.shape)


@settings(deadline=None, max_examples=50)
@given(curves, shares, shares)
def test_concentration_rises_from_0_to_1_above_its_diagonal(heads, k, other):
    low, high = sorted((k, other))
    assert float(score_held(0.0, heads)) == 0
    assert float(score_held(1.0, heads)) == pytest.approx(1, abs=1e-12)
    assert float(score_held(low, heads)) <= float(score_held(high, heads)) + 1e-12
    assert float(score_held(k, heads)) >= k - 1e-12


@settings(deadline=None, max_examples=50)
@given(curves, st.floats(0.0, 0.7))
def test_inverse_leads_back(heads, k):
    assert float(ranked_share(score_held(k, heads), heads)) == pytest.approx(k, abs=1e-7)


@settings(deadline=None, max_examples=50)
@given(shares)
def test_heads_that_are_alike_hold_what_they_are(k):
    assert float(ranked_share(k, ALIKE)) == k


@pytest.mark.parametrize("heads", [FLAT, STEEP])
@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_slopes_of_the_inverse_are_finite_and_right_to_the_ends(heads, at):
    slope = float(jax.grad(ranked_share)(at, heads))
    step = 1e-6 if at == 0 else -1e-6
    told = (float(ranked_share(at + step, heads)) - float(ranked_share(at, heads))) / step
    assert slope == pytest.approx(told, rel=2e-3)


@pytest.mark.parametrize("k", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_equal_scores_give_the_proxy_however_the_plan_is_written(k):
    ranking = Ranking(score=np.full((4, 5), 0.3), heads=ALIKE)
    keep = np.zeros(20)
    keep[: round(20 * k)] = 1.0
    for written in (k, np.full((4, 5), k), keep.reshape(4, 5)):
        assert float(head_loss(written, 1.0, CLIFF, ranking)) == pytest.approx(float(keep_loss(k, CLIFF)), rel=1e-12)
        assert float(head_loss(written, 1.0, CLIFF)) == pytest.approx(float(keep_loss(k, CLIFF)), rel=1e-12)


def test_ranking_as_usual_gives_the_proxy_and_any_even_ratio_loses_more():
    count = 256
    score = np.diff(np.asarray(score_held(np.arange(count + 1) / count, FLAT)))
    ranking = Ranking(score=score[None], heads=FLAT)
    for k in (0.25, 0.5, 0.75):
        best = (np.arange(count) < k * count)[None].astype(float)
        assert float(head_loss(best, 1.0, CLIFF, ranking)) == pytest.approx(float(keep_loss(k, CLIFF)), rel=1e-9)
        assert float(head_loss(np.full((1, count), k), 1.0, CLIFF, ranking)) > float(keep_loss(k, CLIFF))


def test_the_heads_with_the_highest_scores_lose_least():
    ranking = Ranking(score=SCORES, heads=FLAT)
    found = {kept: float(head_loss(plan(*kept), 1.0, CLIFF, ranking)) for kept in itertools.combinations(range(6), 2)}
    assert min(found, key=found.__getitem__) == (0, 3)


def test_keeping_one_more_head_never_costs():
    for heads in (FLAT, STEEP):
        ranking = Ranking(score=SCORES, heads=heads)
        for order in itertools.permutations(range(6)):
            losses = [float(head_loss(plan(*order[:count]), 1.0, CLIFF, ranking)) for count in range(7)]
            assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))
            assert losses[-1] == 0


def test_a_plan_is_read_at_most_at_its_headroom():
    everything = Ranking(score=np.array([[1.0, 0.0, 0.0, 0.0]]), heads=FLAT)
    keep = np.array([[1.0, 0.0, 0.0, 0.0]])
    assert float(equivalent_share(keep, 1.0, everything)) == pytest.approx(1.4 * 0.25)


def test_the_floor_stays_at_the_heads_that_are_really_dropped():
    """All of the score in half of the heads: no loss by the curve, but half of the heads is dropped all the same."""
    held = Ranking(score=np.array([[1.0, 0.0]]), heads=Concentration(scale=0.5, bend=2.0, headroom=2.0))
    assert float(head_loss(np.array([[1.0, 0.0]]), 1.0, CLIFF, held)) == pytest.approx(CLIFF.floor / 2)


def test_the_interval_widens_with_scores_as_without():
    ranking = Ranking(score=np.full((4, 5), 0.3), heads=ALIKE)
    for k in (0.2, 0.5, 0.9):
        for z in (-1.28, 1.28):
            assert float(head_loss(np.full((4, 5), k), 1.0, CLIFF, ranking, z)) == pytest.approx(float(keep_loss(k, CLIFF, z)), rel=1e-12)


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_slopes_are_finite_at_the_corners(corner):
    for heads in (FLAT, STEEP):
        ranking = Ranking(score=SCORES, heads=heads)
        slopes = jax.grad(lambda keep, ranking=ranking: head_loss(keep, 1.0, CLIFF, ranking))(jnp.full(SCORES.shape, corner))
        assert np.all(np.isfinite(slopes))
        assert np.all(np.asarray(slopes) <= 1e-12)


def test_slopes_are_those_of_finite_differences():
    ranking = Ranking(score=SCORES, heads=FLAT)
    keep = np.array([[0.8, 0.3, 0.5], [0.9, 0.2, 0.4]])
    slopes = np.asarray(jax.grad(lambda at: head_loss(at, 1.0, CLIFF, ranking))(jnp.asarray(keep)))
    for place in np.ndindex(*keep.shape):
        step = np.zeros_like(keep)
        step[place] = 1e-6
        told = (head_loss(keep + step, 1.0, CLIFF, ranking) - head_loss(keep - step, 1.0, CLIFF, ranking)) / 2e-6
        assert slopes[place] == pytest.approx(float(told), rel=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.0, 1.0), st.floats(0.05, 1.0))
def test_an_even_budget_gives_the_proxy_whatever_the_heads_weigh(weight, k):
    with jax.enable_x64(True):
        weighed = importance(SCORES, weight)
        assert float(np.mean(weighed)) == pytest.approx(1)
        assert float(weighted_mean(keep_loss(np.full(SCORES.shape, k), GENTLE), weighed)) == pytest.approx(float(keep_loss(k, GENTLE)), rel=1e-12)


def test_heads_that_matter_alike_get_the_same_budget():
    found = np.asarray(budgets(np.ones(8), 0.3, 0.02, GENTLE))
    assert np.allclose(found, 0.3)


@pytest.mark.parametrize("mean", [0.05, 0.25, 0.7])
@pytest.mark.parametrize("curve", [GENTLE, CLIFF])
def test_no_exchange_between_two_heads_improves_the_budgets(mean, curve):
    smooth = KeepLoss(amplitude=curve.amplitude, weight=curve.weight, slope=curve.slope, floor=0.0, log_sd=0.0)
    weighed = np.asarray(importance(np.array([1.0, 0.6, 0.3, 0.1, 0.02]), 0.8))
    found = np.asarray(budgets(weighed, mean, mean / 5, smooth))
    assert found.mean() == pytest.approx(mean, rel=1e-6)
    assert found.min() >= mean / 5 - 1e-9
    assert found.max() <= 1 + 1e-9
    assert np.all(np.diff(found) <= 1e-9)  # who matters more has no less

    def loss(keep):
        return float(np.sum(weighed * np.asarray(keep_loss(keep, smooth))))

    assert loss(found) < loss(np.full(5, mean))
    for giver, taker in itertools.permutations(range(5), 2):
        moved = found.copy()
        step = min(1e-3, moved[giver] - mean / 5, 1 - moved[taker])
        if step > 1e-6:
            moved[giver], moved[taker] = moved[giver] - step, moved[taker] + step
            assert loss(moved) >= loss(found) - 1e-9
