"""Prices from multipliers are what solving again a little away gives, whichever constraint binds, and differ left and right at a kink."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kvopt import named
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search import shadow_prices
from kvopt.search.evaluate import evaluate
from kvopt.search.lanes import BATCH
from kvopt.search.moves import INPUTS, known, moved, setting
from kvopt.search.resolved import resolved
from objectives.limits import NAMES

ASKED = {
    "hbm": {"accelerator": "l40s", "context": "64k", "ttft": "10min", "tpot": "2s", "think": "5s"},
    "ttft_s": {"accelerator": "l40s", "context": "32k", "ttft": "12s", "tpot": "2s", "turns": 3},
    "tpot_s": {"accelerator": "h100-sxm", "context": "8k", "tpot": "15ms"},
    "host_memory": {"accelerator": "h100-sxm", "context": "32k"},
}
"""One scenario for each constraint that binds."""


def solved(**fields):
    """A problem, its plan and what it was evaluated with, solved as closely as derivatives are taken at."""
    problem = resolve(Scenario.of(**{"model": "llama-3.1-8b", "gpus": 1, "methods": "fp8", **fields}))
    point = named.best_case(problem)
    at = setting(problem, point)
    return problem, point, at, resolved([at], point.x, shadow_prices.FINEST)[0]


@pytest.mark.parametrize("binding", ASKED)
def test_a_price_is_what_one_percent_more_and_less_serve(binding):
    _, _, at, base = solved(**ASKED[binding])
    assert dict(zip(NAMES, np.abs(base.state.broken), strict=True))[binding] < 1e-5, "the scenario shows nothing of this constraint"
    names = [name for name, entry in INPUTS.items() if known(entry, at)]
    prices = shadow_prices.marginal(at, base, names)
    assert prices is not None
    assert prices.multipliers[binding] > 1e-3
    again = resolved([INPUTS[name].move(at, 1 + by) for name in names for by in (-0.01, 0.01)], base.x, 1e-6, near=0.1)
    rates = np.log(np.array([one.rate for one in again]).reshape(-1, 2) / base.rate) / np.log([0.99, 1.01])
    for name, left, right, steps in zip(names, prices.left, prices.right, rates, strict=True):
        assert (left + right) / 2 == pytest.approx(steps.mean(), rel=0.02, abs=2e-3), name


def test_slopes_are_jax_own_derivatives():
    _, _, at, base = solved(**ASKED["hbm"])
    names = ["hbm_bytes", "hbm_bandwidth", "ttft_target"]
    found = shadow_prices.slopes(at, base, names)
    direction = np.array([0.7, -1.3, 0.4, 2.0])  # of ln load and the inputs

    def along(t):
        given, targets, lane = at.given, at.targets, at.lane
        for name, by in zip(names, direction[1:], strict=True):
            given, targets, lane = moved(name, given, targets, lane, jnp.exp(t * by))
        state = evaluate(given, lane, targets, jnp.asarray(base.x).at[BATCH].multiply(jnp.exp(t * direction[0])))
        return jnp.log(state.values["sessions_per_gpu_hour"]), state.broken

    with jax.enable_x64(True):
        _, (rate, broken) = jax.jit(lambda t: jax.jvp(along, (t,), (jnp.ones(()),)))(jnp.zeros(()))
    assert float(rate) == pytest.approx(found.rate_y[0] * direction[0] + found.rate_p @ direction[1:], rel=1e-6)
    row = found.names.index("hbm")
    assert float(broken[NAMES.index("hbm")]) == pytest.approx(found.broken_y[row, 0] * direction[0] + found.broken_p[row] @ direction[1:], rel=1e-6)


@pytest.mark.parametrize("binding", ASKED)
def test_more_memory_never_serves_fewer(binding):
    _, _, at, base = solved(**ASKED[binding])
    users = [one.users for one in resolved([INPUTS["hbm_bytes"].move(at, factor) for factor in (0.95, 1.0, 1.02, 1.1, 1.5)], base.x, near=0.1)]
    assert all(more >= less * (1 - 1e-4) for less, more in itertools.pairwise(users)), users


def test_where_two_constraints_bind_at_once_less_costs_what_more_does_not_buy():
    asked = {"accelerator": "h100-sxm", "context": "32k", "turns": 1, "ttft": "10min", "confidence": 0.5}
    _, _, _, base = solved(**asked, tpot="2s")
    problem, point, _, _ = solved(**asked, tpot=repr(float(base.state.found["tpot_s"][0])))
    found = shadow_prices.elasticities(problem, point)
    for name in ("hbm_bytes", "tpot_target"):
        assert found[name]["marginal"]["left"] > 0.02, name
        assert found[name]["marginal"]["right"] == pytest.approx(0, abs=1e-4), name
    assert found["think_time"] == {"left": None, "right": None}, "nobody thinks in a session of one question"


def test_where_nothing_is_served_any_more_there_is_no_number():
    assert shadow_prices.compared({"left": 0.3}, {"left": shadow_prices._slope(5.0, 0.0, 0.9)}) == {"left": None}


def test_numbers_that_differ_by_more_than_a_fifth_become_both_ends():
    assert shadow_prices.compared({"left": 1.0, "right": 1.0}, {"left": 0.85, "right": 0.7}) == {
        "left": 1.0,
        "right": None,
        "right_interval": [0.7, 1.0],
    }
    assert shadow_prices.compared({"left": 0.004}, {"left": 0.0}) == {"left": 0.004}, "next to nothing is next to nothing"


def test_one_point_less_of_accuracy_buys_what_its_own_best_plan_serves(monkeypatch):
    problem, point, _, _ = solved(**ASKED["tpot_s"])
    _, better, _, _ = solved(**{**ASKED["tpot_s"], "tpot": "16ms"})
    asked = []

    def best(moved, choices, found, objective):
        asked.append(moved.scenario.accuracy_floor)
        return better if moved.scenario.accuracy_floor < 0.95 else None

    monkeypatch.setattr(shadow_prices.search, "run", lambda *_: (None, None))
    monkeypatch.setattr(shadow_prices.search, "best", best)
    space = type("Space", (), {"choices": ()})()
    found = shadow_prices.accuracy_floor(problem, point, space)
    assert asked == [pytest.approx(0.94), pytest.approx(0.96)]
    more = float(better.state.values["users_per_gpu"]) - float(point.state.values["users_per_gpu"])
    assert found["per_unit"]["users_per_gpu"] == pytest.approx(more)
    assert found["left"] < 0
    assert found["right"] is None
