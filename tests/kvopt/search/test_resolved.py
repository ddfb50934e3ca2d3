"""A plan solved again serves no less than any share on a dense grid would, and steps go where a linear programme says."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from kvopt import named
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import resolve
from kvopt.search.lanes import FIELDS
from kvopt.search.moves import INPUTS, setting
from kvopt.search.resolved import free_shares, highest_vertex, resolved

ONE = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "methods": "fp8"}


@pytest.mark.parametrize(("fields", "shares", "each"), [({"context": "32k"}, 1, 65), ({"workload": "long-document-qa"}, 2, 17)])
def test_no_grid_of_shares_serves_more(fields, shares, each):
    problem = resolve(Scenario.of(**ONE, **fields))
    point = named.best_case(problem)
    at = setting(problem, point)
    free = free_shares(at)
    assert len(free) == shares
    (found,) = resolved([at], point.x, 1e-7)
    tried = np.array(list(itertools.product(np.linspace(0, 1, each), repeat=shares)))
    x = np.repeat(point.x[None], len(tried), axis=0)
    x[:, free] = at.lane.low[free] + tried * (at.lane.high - at.lane.low)[free]
    _, states = assess(problem, [point.choice] * len(x), x)
    assert found.feasible
    assert found.rate >= max(float(state.values["sessions_per_gpu_hour"]) for state in states if np.all(np.asarray(state.broken) <= 0)) * (1 - 1e-9)
    near, far = resolved([INPUTS["hbm_bytes"].move(at, 1.1)] * 2, found.x, near=0.1)
    assert near.rate == far.rate, "the same question beside others has the same answer"
    assert near.rate == pytest.approx(resolved([INPUTS["hbm_bytes"].move(at, 1.1)], point.x, 1e-6)[0].rate, rel=1e-4)


def test_the_plan_and_its_grouping_stay():
    problem = resolve(Scenario.of(**ONE, context="32k"))
    point = named.best_case(problem)
    at = setting(problem, point)
    (found,) = resolved([INPUTS["hbm_bandwidth"].move(at, 1.1)], point.x)
    changed = {name for name, old, new in zip(FIELDS, point.x, found.x, strict=True) if old != new}
    assert changed <= {"batch", "idle_resident", "prefix_cache_tokens"}
    assert "batch" in changed


@pytest.mark.parametrize("seed", range(8))
def test_the_best_vertex_is_that_of_a_linear_programme(seed):
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(size=(4, 3)), np.eye(3), -np.eye(3), np.zeros((1, 3))])
    room, goal = np.concatenate([rng.uniform(0, 1, 4), np.ones(6), [0.0]]), rng.normal(size=3)
    best = highest_vertex(goal, rows, room)
    expected = linprog(-goal, A_ub=rows, b_ub=room, bounds=(None, None))
    assert best is not None
    assert goal @ best == pytest.approx(-expected.fun, rel=1e-9)
    assert np.all(rows @ best <= room + 1e-9)


def test_without_room_there_is_no_vertex():
    assert highest_vertex(np.ones(2), np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([-1.0, -1.0, 1.0])) is None
