"""Losses add, two pairs interact, uniform plans are the same however written, and the lower bound is below the mean."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.accuracy.composition import Accuracy, Interactions, Losses, Shares, losses, retained, retained_at
from objectives.accuracy.proxies import BitsLoss, KeepLoss
from objectives.types import Plan

FIELDS = ("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "key_bits", "value_bits", "prefill_keep")
_keep = st.floats(1 / 64, 1.0)
_bits = st.floats(2.0, 16.0)


def uncompressed(**changes: Any) -> Plan:
    return Plan(**{**{name: 16.0 if name.endswith("bits") else 1.0 for name in FIELDS}, **changes})


plans = st.builds(Plan, **{name: _bits if name.endswith("bits") else _keep for name in FIELDS})


def accuracy() -> Accuracy:
    def keep(k0: float, slope: float) -> KeepLoss:
        weight = k0**slope / (1 + k0**slope)
        return KeepLoss(
            amplitude=np.float64(0.8),
            weight=np.float64(weight),
            slope=np.float64(slope),
            floor=np.float64(0.005),
            log_sd=np.float64(0.9),
            log_sd_growth=np.float64(0.2),
        )

    at_full = 4 * math.exp(-35.2)
    bits = {"key_amplitude": 0.75 * at_full, "value_amplitude": 0.25 * at_full, "rate": 2.2, "floor": 0.004, "log_sd": 1.2, "log_sd_growth": 0.05}
    pairs = {"rank_bits": 0.3, "eviction_low_bits": 0.6, "log_sd": 0.9, "composed_log_sd": 0.4}
    return Accuracy(
        layer=keep(0.37, 2.7),
        head=keep(0.33, 9.0),
        token=keep(0.01, 0.8),
        rank=keep(0.5, 4.7),
        prefill=keep(0.1, 1.0),
        bits=BitsLoss(**{name: np.float64(value) for name, value in bits.items()}),
        interactions=Interactions(**{name: np.float64(value) for name, value in pairs.items()}),
    )


def kept(plan: Plan) -> float:
    return float(retained(losses(plan, accuracy())))


def bound(plan: Plan, z: float = 1.2816) -> float:
    return float(retained_at(losses(plan, accuracy()), losses(plan, accuracy(), z=z)))


def test_no_compression_retains_exactly_one() -> None:
    assert kept(uncompressed()) == 1.0
    assert bound(uncompressed()) == 1.0
    assert (
        float(jax.jit(lambda plan: retained(losses(plan, accuracy())))(uncompressed(token_keep=jnp.ones((7, 3)), key_bits=jnp.full((7, 1), 16.0))))
        == 1.0
    )
    assert float(retained(losses(uncompressed(), accuracy()), 0.97)) == pytest.approx(0.97)


@settings(deadline=None, max_examples=40)
@given(plans, st.sampled_from(FIELDS), st.floats(0.0, 1.0))
def test_giving_up_less_never_lowers_the_accuracy(plan: Plan, field: str, part: float) -> None:
    full = 16.0 if field.endswith("bits") else 1.0
    better = dataclasses.replace(plan, **{field: getattr(plan, field) + part * (full - getattr(plan, field))})
    assert kept(better) >= kept(plan) * (1 - 1e-5)
    assert bound(better) >= bound(plan) * (1 - 1e-5) - 1e-9


@settings(deadline=None, max_examples=40)
@given(plans, st.floats(0.0, 3.0))
def test_lower_bound_is_below_the_mean_and_falls_with_confidence(plan: Plan, z: float) -> None:
    assert bound(plan, z) <= kept(plan) + 1e-6
    assert bound(plan, z + 0.1) <= bound(plan, z) + 1e-6
    assert bound(plan, 0.0) == pytest.approx(kept(plan), rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(plans, st.sampled_from([(1, 1), (5, 1), (5, 3)]))
def test_uniform_plan_per_layer_and_head_is_the_uniform_plan(plan: Plan, shape: tuple[int, int]) -> None:
    spread = Plan(**{name: jnp.full(shape, getattr(plan, name)) for name in FIELDS})
    weights = Shares(layer=jnp.arange(1.0, 6.0)[: shape[0], None], head=jnp.ones(shape), content=jnp.arange(1.0, 6.0)[: shape[0], None])
    one = losses(plan, accuracy())
    for many in (losses(spread, accuracy()), losses(spread, accuracy(), weights)):
        for name in ("layer", "head", "token", "rank", "prefill", "bits", "interactions"):
            assert float(getattr(many, name)) == pytest.approx(float(getattr(one, name)), rel=1e-5, abs=1e-7)


def test_tokens_average_losses_and_layers_and_heads_average_shares() -> None:
    half = jnp.array([[1.0, 0.0]])  # one retrieval head, one streaming head
    assert float(losses(uncompressed(head_keep=half), accuracy()).head) == pytest.approx(float(losses(uncompressed(head_keep=0.5), accuracy()).head))
    mixed = losses(uncompressed(token_keep=jnp.array([[1.0], [0.1]])), accuracy()).token
    assert float(mixed) == pytest.approx(float(losses(uncompressed(token_keep=0.1), accuracy()).token) / 2, rel=1e-5)


def test_weights_decide_whose_loss_counts() -> None:
    plan = uncompressed(token_keep=jnp.array([[1.0], [0.1]]))
    shares = Shares(layer=1.0, head=1.0, content=jnp.array([[3.0], [1.0]]))
    whole = float(losses(uncompressed(token_keep=0.1), accuracy()).token)
    assert float(losses(plan, accuracy(), shares).token) == pytest.approx(whole / 4, rel=1e-5)
    heads_only = Shares(layer=1.0, head=1.0, content=jnp.ones((2, 4)))
    assert float(losses(plan, accuracy(), heads_only).token) == pytest.approx(whole / 2, rel=1e-5)


def test_dimensions_multiply_where_they_do_not_interact() -> None:
    together = kept(uncompressed(token_keep=0.25, key_bits=8.0, value_bits=8.0))
    assert together == pytest.approx(kept(uncompressed(token_keep=0.25)) * kept(uncompressed(key_bits=8.0, value_bits=8.0)), rel=1e-5)


def test_rank_with_low_bits_and_eviction_with_two_bits_lose_more_than_the_product() -> None:
    rank = float(losses(uncompressed(key_rank=0.75, value_rank=0.75), accuracy()).rank)
    assert float(losses(uncompressed(key_rank=0.75, value_rank=0.75, key_bits=4.0, value_bits=4.0), accuracy()).interactions) == pytest.approx(
        0.3 * rank / (1 + rank), rel=1e-5
    )
    assert float(losses(uncompressed(token_keep=0.25, key_bits=4.0, value_bits=4.0), accuracy()).interactions) == 0.0
    assert float(losses(uncompressed(token_keep=0.25, key_bits=2.0, value_bits=2.0), accuracy()).interactions) > 0.4


@settings(deadline=None, max_examples=20)
@given(plans)
def test_gradients_agree_with_finite_differences(plan: Plan) -> None:
    with jax.enable_x64(True):

        def objective(values: Any) -> Any:
            return retained(losses(Plan(**dict(zip(FIELDS, values, strict=True))), accuracy()))

        start = jnp.array([getattr(plan, name) for name in FIELDS], dtype=jnp.float64)
        mean_bits = (plan.key_bits + plan.value_bits) / 2
        exact = jax.grad(objective)(start)
        assert jnp.all(jnp.isfinite(exact))
        if min(abs(mean_bits - 3), abs(mean_bits - 8)) < 1e-3:
            return  # the interactions begin there: the slope jumps
        for index in range(len(FIELDS)):
            step = 1e-6
            change = jnp.zeros(len(FIELDS)).at[index].set(step)
            numeric = (objective(start + change) - objective(start - change)) / (2 * step)
            assert float(exact[index]) == pytest.approx(float(numeric), rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("keep", [1 / 64, 1.0])
@pytest.mark.parametrize("bits", [2.0, 3.0, 8.0, 16.0])
def test_gradients_are_finite_in_the_corners(keep: float, bits: float) -> None:
    corner = Plan(**{name: jnp.float32(bits if name.endswith("bits") else keep) for name in FIELDS})
    slopes = jax.grad(lambda plan: retained_at(losses(plan, accuracy()), losses(plan, accuracy(), z=1.28)))(corner)
    assert all(bool(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


def test_the_whole_loss_widens_where_dimensions_are_combined() -> None:
    alone = dataclasses.replace(accuracy(), interactions=dataclasses.replace(accuracy().interactions, composed_log_sd=np.float64(0.0)))
    plan = uncompressed(token_keep=0.25, key_rank=0.75, value_rank=0.75)
    one, other = (losses(plan, proxies, z=1.28) for proxies in (alone, accuracy()))
    assert float(other.token / one.token) == pytest.approx(math.exp(1.28 * 0.4), rel=1e-5)
    assert float(losses(plan, alone).token) == pytest.approx(float(losses(plan, accuracy()).token))


def test_one_dimension_alone_is_at_its_own_edge_and_several_are_not_all_at_their_worst() -> None:
    alone, both = uncompressed(token_keep=0.25), uncompressed(token_keep=0.25, layer_keep=0.75, key_bits=4.0, value_bits=4.0)
    assert bound(alone) == pytest.approx(float(retained(losses(alone, accuracy(), z=1.2816))), rel=1e-5)
    assert float(retained(losses(both, accuracy(), z=1.2816))) < bound(both) < kept(both)
    assert bound(both, -1.2816) > kept(both)


def test_lanes_of_stacked_choices_are_vmapped() -> None:
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), accuracy(), accuracy())
    out = jax.vmap(lambda one: losses(uncompressed(token_keep=0.25), one))(stacked)
    assert isinstance(out, Losses)
    assert out.token.shape == (2,)
