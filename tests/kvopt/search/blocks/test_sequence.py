"""The knapsack over blocks: never above the optimum in its bound, never below it in its plans; optima by HiGHS and by trying everything."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from kvopt.search.blocks.exchange import exchange
from kvopt.search.blocks.plan import lower_end, tangent
from kvopt.search.blocks.sequence import Prices, costs, hull, losses_of, sequence
from objectives.accuracy.composition import retained_at

PARTS, SUMS = 4, 8


def instance(seed, blocks=6, values=5, kinds=1):
    """Random blocks and values: (layout, values, prices)."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.2, 2.0, blocks)
    layout = SimpleNamespace(
        row=np.arange(blocks),
        head=np.zeros(blocks, int),
        kind=rng.integers(0, kinds, blocks),
        share=share / share.sum(),
        edge=np.minimum(np.arange(blocks), np.arange(blocks)[::-1]),
        cells=(kinds, 1),
    )
    loss = np.concatenate([np.zeros((1, PARTS)), rng.exponential(0.1, (values - 1, PARTS))])
    parts = rng.uniform(0.1, 1.0, (values, kinds, SUMS))
    parts[0] = 1.5
    found = SimpleNamespace(
        settings=np.zeros((values, 5)), parts=parts, middle=loss, edge=loss * 1.5, bits_of=np.arange(values) > 0, base=np.zeros((kinds, 1, SUMS))
    )
    prices = Prices(rng.uniform(0, 1, (kinds, SUMS)), np.ones(1), np.ones(PARTS), np.zeros(PARTS))
    return layout, found, prices


def cost_of(layout, found, prices, picks):
    return float(costs(found, prices)[picks, layout.kind].sum())


def loss_of(layout, found, prices, picks):
    return float((losses_of(found, prices)[picks] * layout.share).sum())


def by_highs(layout, found, prices, budget):
    """The least cost within the budget, by HiGHS' branch and bound."""
    cost, loss = costs(found, prices)[:, layout.kind].T.ravel(), np.outer(layout.share, losses_of(found, prices)).ravel()
    blocks, values = len(layout.row), len(found.settings)
    one_each = np.kron(np.eye(blocks), np.ones(values))
    rows = [LinearConstraint(one_each, 1, 1), LinearConstraint(loss[None], -np.inf, budget)]
    got = milp(cost, constraints=rows, integrality=np.ones(len(cost)), bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0})
    return float(got.fun)


@pytest.mark.parametrize("seed", range(20))
def test_bound_and_plan_enclose_the_optimum_of_everything_tried(seed):
    layout, found, prices = instance(seed, kinds=1 + seed % 2)
    budget = 0.1
    every = np.array(list(itertools.product(range(5), repeat=6)))
    within = [picks for picks in every if loss_of(layout, found, prices, picks) <= budget]
    optimum = min(cost_of(layout, found, prices, picks) for picks in within)
    steps = sequence(layout, found, prices)
    assert steps.least_cost(budget) <= optimum * (1 + 1e-12)
    last = int(np.searchsorted(steps.loss, budget, side="right")) - 1
    start = steps.picks(last)
    assert loss_of(layout, found, prices, start) == pytest.approx(steps.loss[last])
    assert cost_of(layout, found, prices, start) == pytest.approx(steps.cost[last])
    picks = exchange(layout, found, prices, start, budget)
    assert loss_of(layout, found, prices, picks) <= budget * (1 + 1e-12)
    assert optimum * (1 - 1e-12) <= cost_of(layout, found, prices, picks) <= 1.15 * optimum  # six blocks: one of them is a sixth of all


@pytest.mark.parametrize("seed", range(6))
def test_many_blocks_come_close_to_highs(seed):
    layout, found, prices = instance(seed, blocks=60, values=12)
    budget = 0.08
    optimum = by_highs(layout, found, prices, budget)
    steps = sequence(layout, found, prices)
    start = steps.picks(int(np.searchsorted(steps.loss, budget, side="right")) - 1)
    got = cost_of(layout, found, prices, exchange(layout, found, prices, start, budget))
    assert steps.least_cost(budget) <= optimum * (1 + 1e-9)
    assert optimum * (1 - 1e-9) <= got <= 1.002 * optimum


def test_the_hull_lies_below_every_value():
    rng = np.random.default_rng(3)
    loss, cost = np.concatenate([[0.0], rng.exponential(1.0, 60)]), np.concatenate([[2.0], rng.uniform(0, 2, 60)])
    path = hull(loss, cost)
    assert path[0] == 0
    assert np.all(np.diff(loss[path]) > 0)
    assert np.all(np.diff(cost[path]) < 0)
    assert np.all(np.interp(loss, loss[path], cost[path]) <= cost + 1e-12)
    slopes = np.diff(cost[path]) / np.diff(loss[path])
    assert np.all(np.diff(slopes) >= -1e-12)


def test_layers_at_the_ends_keep_their_bits():
    layout, found, prices = instance(1)
    steps = sequence(layout, found, prices, edges=1)
    picks = steps.picks(len(steps.block))
    assert picks[0] == 0
    assert picks[-1] == 0
    assert np.all(picks[1:-1] > 0)


def test_the_lower_end_is_that_of_the_mathematics_and_lies_above_its_tangents():
    from kvopt.search.blocks.plan import as_losses

    rng = np.random.default_rng(5)
    middle = rng.exponential(0.05, (40, PARTS))
    edge = middle * rng.uniform(1, 3, (40, PARTS))
    got = lower_end(middle, edge)
    expected = [-np.log(float(retained_at(as_losses(m), as_losses(e)))) for m, e in zip(middle, edge, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=2e-5)
    weights = tangent(middle[0], edge[0])
    linear = middle @ weights[0] + edge @ weights[1]
    assert linear[0] == pytest.approx(got[0])
    assert np.all(linear <= got + 1e-12)
