"""Plans by layer or head as vectors, and the fronts that kvopt draws of them and of uniform plans."""

from __future__ import annotations

import itertools
import pickle

import jax
import numpy as np
import pytest

from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import resolve
from kvopt.search.blocks.front import BlockSearch, levels
from kvopt.search.blocks.plan import block_plan, tables
from kvopt.search.blocks.stream import LEAST_LOSS, stream
from kvopt.search.lanes import Choice
from kvopt.search.uniform_front import line, uniform_stream
from kvopt.search.vector_blocks import BlockVector, uneven
from kvopt.search.vector_problem import OBJECTIVES

POINTS = 8


@pytest.fixture(scope="module")
def vectors() -> BlockVector:
    """A token method and one of bits, each KV head for itself."""
    problem = resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1))
    return BlockVector(problem, MethodChoice.of(*map(methods.load, ("kvzip", "round-to-nearest"))), "head")


@pytest.fixture(scope="module")
def index(vectors: BlockVector) -> np.ndarray:
    """Plans that keep most tokens, and so some accuracy."""
    u = np.random.default_rng(3).random((POINTS, vectors.size))
    u[:, vectors._first["token"] :] = 0.6 + 0.4 * u[:, vectors._first["token"] :]
    return vectors.repair(u)


def test_some_blocks_matter_more(vectors: BlockVector) -> None:
    problem = resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1))
    head, again, other = (uneven(problem, "head", seed).share for seed in (0, 0, 1))
    assert np.array_equal(head, again)
    assert np.allclose(np.sort(head), np.sort(other))
    assert not np.array_equal(head, other)
    assert head.sum() == pytest.approx(1)
    assert head.max() > 2 * head.min()
    layer = uneven(problem, "layer", 0).share
    assert len(layer) == 32
    assert np.allclose(layer, head.reshape(32, 8).sum(axis=1))
    assert np.array_equal(vectors.search.blocks.share, head)


def test_plans_come_back_from_their_values(vectors: BlockVector, index: np.ndarray) -> None:
    assert vectors.size == len(vectors._place) + 2 * 256
    assert np.array_equal(vectors.repair(vectors.vector(index)), index)
    lane, x = vectors.settings(index)
    picks = vectors.picks(index)
    assert np.array_equal(vectors.index_of(lane, x, picks), index)
    first = vectors._first["token"]
    assert np.allclose(vectors.search.values.settings[picks, 0], vectors.steps["token"][index[:, first : first + 256]])


def test_a_vector_is_evaluated_as_its_plan_is_setting_by_setting(vectors: BlockVector, index: np.ndarray) -> None:
    search, found = vectors.search, vectors.exact(index)
    lane, x = vectors.settings(index)
    home = search.problem.splitting_heads
    own = []
    for place, picks in zip(lane, vectors.picks(index), strict=True):
        made = block_plan(search.problem, search.methods, "head", tables(search.blocks, search.values, picks))
        choice = search.choices[place]
        own.append(Choice(choice.deployment, choice.weights, choice.methods, blocks=made))
    _, states = assess(home, own, x)
    sessions = [-np.log(float(state.values[OBJECTIVES[0]])) for state in states]
    assert np.allclose(found.objectives[:, 0], sessions, rtol=1e-6)
    v = np.append(vectors.vector(index[:1])[0], 0.2)
    with jax.enable_x64(True):
        relaxed = np.asarray(jax.jit(vectors.relaxed)(vectors.shared(), v))
    assert relaxed[1] == pytest.approx(found.objectives[0, 1], rel=1e-6)


def test_a_copy_has_numbers_alone_and_the_same_answers(vectors: BlockVector, index: np.ndarray) -> None:
    made = vectors.measure(index)
    copy = pickle.loads(pickle.dumps(vectors))
    assert copy.search.problem is None
    assert copy.reference.tolist() == vectors.reference.tolist()
    assert np.array_equal(copy.measure(index).objectives, made.objectives)


def test_a_stream_grows_and_holds_what_it_says(vectors: BlockVector) -> None:
    search: BlockSearch = vectors.search
    rounds = list(itertools.islice(stream(search, 0.5), 2))
    assert [len(found.lane) for found in rounds] == [9, 36]
    assert np.array_equal(rounds[0].budget, levels(rounds[0].budget[-1], 9, LEAST_LOSS))
    dense = rounds[1]
    assert (dense.broken <= 1e-5).all(axis=1).mean() > 0.8  # at the far end prices differ, and some miss the floor by little
    exact = vectors.exact(vectors.index_of(dense.lane, dense.x, dense.picks))
    assert exact.feasible.mean() > 0.8
    assert np.all(exact.objectives[:, 1] <= dense.budget + 1e-6)
    assert np.all(np.diff(exact.objectives[:, 0]) <= 1e-3)  # more loss, more sessions


def test_the_line_of_uniform_values_is_what_nothing_beats(vectors: BlockVector) -> None:
    search = vectors.search
    found = line(search, np.arange(len(search.values.settings)), search.prices())
    assert np.all(np.diff(found.loss) > 0)
    wide = line(search, np.arange(len(search.values.settings)), search.prices(), slack=0.1)
    assert set(found.value) < set(wide.value)
    plans = next(uniform_stream(search, 0.5))
    assert np.all(plans.picks == plans.picks[:, :1])
    assert np.all(plans.broken[:, :-1] <= 0)
