"""Plans as vectors: repaired to deployable values, evaluated as everything else is, differentiable where they are not repaired."""

from __future__ import annotations

import dataclasses
import pickle

import jax
import numpy as np
import pytest

from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import resolve
from kvopt.search.lanes import FIELDS
from kvopt.search.vector_problem import OBJECTIVES, Axis
from kvopt.search.vector_uniform import UniformVector

POINTS = 96


@pytest.fixture(scope="module")
def vectors() -> UniformVector:
    """A token method, one of rank and one of bits, on two accelerators."""
    problem = resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=2))
    return UniformVector(problem, MethodChoice.of(*map(methods.load, ("kvzip", "palu", "round-to-nearest"))))


@pytest.fixture(scope="module")
def drawn(vectors: UniformVector) -> np.ndarray:
    return np.random.default_rng(3).random((POINTS, vectors.size))


def test_what_the_coordinates_are(vectors: UniformVector) -> None:
    names = [axis.name for axis in vectors.axes]
    assert names == ["grouping", "fate", "token", "key_rank", "value_rank", "format", "chunk", "resident"]
    assert vectors.categorical.tolist() == [name in ("grouping", "fate", "format") for name in names]
    assert sorted(vectors.lane_of.ravel()) == list(range(len(vectors.space.choices)))


def test_an_axis_repairs_to_the_nearest_value_and_bins_are_equal() -> None:
    ratios = Axis.spaced("ratio", np.array([0.25, 0.5, 1.0]), logarithmic=True)
    assert ratios.positions.tolist() == [0, 0.5, 1]
    assert np.searchsorted(ratios.edges, [0, 0.24, 0.26, 0.74, 0.76, 1], side="right").tolist() == [0, 0, 1, 1, 2, 2]
    assert np.searchsorted(Axis.bins("kind", 4).edges, [0, 0.24, 0.26, 0.51, 0.99, 1], side="right").tolist() == [0, 0, 1, 2, 3, 3]


def test_repaired_plans_are_on_the_grid_and_come_back(vectors: UniformVector, drawn: np.ndarray) -> None:
    index = vectors.repair(drawn)
    assert np.all((index >= 0) & (index < vectors.levels))
    assert np.array_equal(vectors.repair(vectors.vector(index)), index)
    lane, x = vectors.settings(index)
    assert np.array_equal(vectors.index_of(lane, x), index)
    grid, coarse = vectors.space.grid, x.copy()
    place = FIELDS.index("idle_resident")
    coarse[:, place] = np.round(x[:, place] * 40) / 40  # finer than the grid's steps, which an outcome may be
    again = grid.settings(lane, grid.nearest(lane, coarse), x[:, FIELDS.index("batch")])
    assert np.allclose(again, coarse, rtol=1e-12)


def test_evaluation_is_deterministic_whatever_the_batch(vectors: UniformVector, drawn: np.ndarray) -> None:
    whole, again = vectors.evaluate(drawn), vectors.evaluate(drawn)
    assert np.array_equal(whole.objectives, again.objectives)
    few = vectors.evaluate(drawn[:20])
    assert np.array_equal(few.objectives, whole.objectives[:20])
    copy = pickle.loads(pickle.dumps(vectors))
    assert np.array_equal(copy.evaluate(drawn).violation, whole.violation)
    assert copy.reference.tolist() == vectors.reference.tolist()


def test_feasible_in_single_precision_is_feasible_in_double(vectors: UniformVector, drawn: np.ndarray) -> None:
    made, exact = vectors.evaluate(drawn), vectors.exact(vectors.repair(drawn))
    assert 3 <= made.feasible.sum() < POINTS
    assert np.mean(exact.feasible[made.feasible]) > 0.95
    both = made.feasible & exact.feasible
    assert np.allclose(made.objectives[both], exact.objectives[both], atol=1e-4)


def test_exact_values_are_those_of_every_other_answer(vectors: UniformVector, drawn: np.ndarray) -> None:
    index = vectors.repair(drawn)[:8]
    lane, x = vectors.settings(index)
    _, states = assess(vectors.problem, [vectors.space.choices[place] for place in lane], x)
    found = vectors.exact(index)
    assert np.allclose(found.objectives, [[-np.log(float(state.values[name])) for name in OBJECTIVES] for state in states], rtol=1e-9)
    assert np.allclose(found.violation, [float(np.max(state.broken)) for state in states], rtol=1e-9)


def test_the_reference_is_the_best_uncompressed_plan(vectors: UniformVector) -> None:
    sessions, loss = vectors.reference
    assert loss == pytest.approx(np.log(2))
    made = vectors.evaluate(np.random.default_rng(0).random((512, vectors.size)))
    assert np.any(made.objectives[made.feasible, 0] < sessions)
    bare = dataclasses.replace(vectors.space.choices[0], methods=MethodChoice())
    x = vectors.space.lanes.low[0].copy()
    x[[FIELDS.index(name) for name in ("token_keep", "key_rank", "value_rank")]] = 1.0
    x[[FIELDS.index("key_bits"), FIELDS.index("value_bits")]] = 16.0
    _, states = assess(vectors.problem, [bare], x[None])
    assert sessions <= -np.log(float(states[0].values["sessions_per_gpu_hour"])) + 1e-9


def test_relaxed_values_and_their_slopes(vectors: UniformVector) -> None:
    v = np.append(vectors.vector(vectors.repair(np.full((1, vectors.size), 0.5)))[0], 0.2)
    value, jacobian = vectors.linearised(v)
    with jax.enable_x64(True):
        assert np.allclose(np.asarray(vectors.relaxed(vectors.shared(), v)), value, rtol=1e-9)
    assert np.all(np.isfinite(jacobian))
    for place in (2, 3, vectors.size):  # token keep, key rank, load
        step = np.zeros_like(v)
        step[place] = 1e-6
        slope = (vectors.linearised(v + step)[0] - vectors.linearised(v - step)[0]) / 2e-6
        assert np.allclose(jacobian[:, place], slope, rtol=1e-4, atol=1e-6)
    assert jacobian[0, vectors.size] < 0  # more load, more sessions
    assert jacobian[1, 2] < 0  # more tokens kept, less loss
