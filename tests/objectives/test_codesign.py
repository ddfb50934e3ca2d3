"""Costs of an accelerator by hand, and the derivative of a rate whose load a constraint holds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kvopt.inputs.accelerator import read_accelerator
from objectives.codesign import QUANTITIES, LinearCost, anchored, at_the_limit, cost, numbers, scaled, shares

CARD = read_accelerator("h100-sxm").pytree()
MODEL = LinearCost(base=1.0, per_unit=jnp.array([1e-11, 5e-13, 1e-15, 2e-12, 1e-11]))
BY_HAND = 1.0 + 0.8589934592 + 1.675 + 0.989 + 0.9 + 0.64


def test_a_cost_by_hand() -> None:
    assert float(cost(MODEL, CARD)) == pytest.approx(BY_HAND, rel=1e-5)
    assert float(shares(MODEL, CARD)[QUANTITIES.index("memory_bandwidth")]) == pytest.approx(1.675 / BY_HAND, rel=1e-5)


def test_scaling_moves_each_number_and_both_peaks() -> None:
    made = scaled(CARD, np.array([2.0, 3.0, 4.0, 5.0, 6.0]))
    assert np.asarray(numbers(made)) == pytest.approx(np.asarray(numbers(CARD)) * [2, 3, 4, 5, 6], rel=1e-6)
    assert float(made.peak_flops) == pytest.approx(4 * float(CARD.peak_flops))
    assert float(made.host_memory_bytes) == float(CARD.host_memory_bytes)


def test_an_anchored_cost_is_that_of_the_card_and_keeps_its_shares() -> None:
    model = anchored(MODEL, CARD, 4.76)
    assert float(cost(model, CARD)) == pytest.approx(4.76, rel=1e-5)
    assert np.asarray(shares(model, CARD)) == pytest.approx(np.asarray(shares(MODEL, CARD)), rel=1e-5)


def test_an_unknown_number_costs_nothing() -> None:
    lonely = read_accelerator("l4").pytree()
    known = scaled(lonely, np.array([1.0, 1.0, 1.0, np.nan, 1.0]))
    assert np.isfinite(float(cost(MODEL, known)))
    assert float(numbers(known)[QUANTITIES.index("scaleup_bandwidth")]) == 0


def test_the_implicit_derivative_is_that_of_the_solved_load() -> None:
    """Rate 3 ln b + h0, constraint b^2 h1 - h2 = 0: b = sqrt(h2 / h1), so that the rate is 1.5 ln(h2 / h1) + h0."""
    h = jnp.array([0.3, 2.0, 5.0])
    b = jnp.sqrt(h[2] / h[1])
    direct, by_load = jnp.array([1.0, 0.0, 0.0]), 3 / b
    excess, excess_by_load = jnp.array([0.0, b**2, -1.0]), 2 * b * h[1]
    expected = jax.grad(lambda at: 1.5 * jnp.log(at[2] / at[1]) + at[0])(h)
    assert np.asarray(at_the_limit(direct, by_load, excess, excess_by_load, jnp.array(True))) == pytest.approx(np.asarray(expected), rel=1e-5)
    assert np.asarray(at_the_limit(direct, by_load, excess, excess_by_load, jnp.array(False))) == pytest.approx(np.asarray(direct))
