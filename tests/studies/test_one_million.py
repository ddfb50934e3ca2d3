"""The study `one_million`: its targets, its losses against every setting tried one by one, and what it says remains."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kvopt import named
from kvopt.errors import BadInput
from kvopt.inputs import method as catalog
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.search.grid import grid
from kvopt.search.lanes import Choice
from kvopt.search.solve import vector
from studies import combinations, one_million
from studies.one_million_levers import SHOWN, after, in_turn, shares
from studies.one_million_meter import Meter, reused_prefill_s, tokens_that_take
from studies.one_million_plot import figure
from studies.one_million_search import Goal, Levers, scored
from studies.result import StudyResult

FIELDS = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "fidelity": "peak", "ttft": "30d", "tpot": "1h"}
KV = ("cache held", "context switch", "all of the cache")
ALL = combinations.singles


def few(problem: Problem, trained: bool = False, each: int = 2) -> list[MethodSpec]:
    found = ALL(problem, trained)
    return [one for dimension in catalog.DIMENSIONS for one in [m for m in found if m.dimension == dimension][:each]]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combinations, "singles", few)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one_million")


@pytest.fixture(scope="module")
def result(small: None, folder: Path) -> StudyResult:
    return one_million.run(out=folder, model="llama-3.1-8b", accelerator="h100-sxm", gpus=1)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return resolve(Scenario.of(**{**FIELDS, "context": "1m"}))


@pytest.fixture(scope="module")
def levers(small: None, problem: Problem) -> Levers:
    before = resolve(Scenario.of(**{**FIELDS, "context": "4k"}))
    bare = Choice(named.groupings(problem)[0], problem.checkpoints[0], MethodChoice())
    target = Meter(before, [bare], 4000).costs(np.zeros(1, int), vector(before, {})[None]).metrics[0]
    return Levers(problem, few(problem), bare.deployment, problem.context, target)


def row(result: StudyResult, goal: str, asked: str) -> dict:
    return dict(next(row for row in result.rows if (row["goal"], row["asked"]) == (goal, asked)))


def test_the_two_contexts_by_hand(result: StudyResult) -> None:
    short, long = result.rows[:2]
    kv = 32 * 8 * 128 * 2 * 2  # [bytes] per token of Llama-3.1-8B in 16 bit
    assert short["KV GiB"] == pytest.approx(4_000 * kv / 2**30)
    assert long["KV GiB"] == pytest.approx(1_000_000 * kv / 2**30)
    assert long["switch s"] / short["switch s"] == pytest.approx(250)
    assert long["prefill s"] / short["prefill s"] > 1000
    assert "grows 250 times" in " ".join(result.notes)


def test_every_goal_is_met_or_says_what_remains(result: StudyResult) -> None:
    short = result.rows[0]
    of = {
        "cache held": ["KV GiB"],
        "context switch": ["switch s"],
        "decoding": [],
        "all of the cache": ["KV GiB", "switch s"],
        "prefill": ["prefill s"],
    }
    for found in result.rows[2:]:
        factors = [found[name] / short[name] for name in of[found["goal"]]]
        if factors and found["goal"] != "all of the cache":
            assert found["x short"] == pytest.approx(max(factors), rel=1e-6)
        if found["x short"] <= 1:
            assert all(factor <= 1 + 1e-6 for factor in factors)
        assert found["lower %"] <= found["kept %"] <= found["upper %"] + 1e-9
    assert row(result, "cache held", "least loss")["x short"] <= 1 + 1e-6
    assert row(result, "decoding", "least loss")["decode ms"] <= 1.001 * short["decode ms"]
    for goal in one_million.GOALS:
        note = next(note for note in result.notes if note.startswith(f"{goal} ("))
        assert ("reaches it" in note) == (row(result, goal, "least loss")["x short"] <= 1.001)


def test_the_floor_holds_and_stricter_questions_lose_more(result: StudyResult) -> None:
    for goal in one_million.GOALS:
        least, ratios, floor = (row(result, goal, asked) for asked in one_million.ASKED)
        assert floor["lower %"] >= 95 - 1e-9
        assert floor["x short"] >= least["x short"] - 1e-9
        if ratios["x short"] <= 1 and least["x short"] <= 1:
            assert ratios["lower %"] <= least["lower %"] * 1.02 + 1e-9
        assert ratios["ratios"] == "measured"
    whole = row(result, "all of the cache", "least loss")
    if whole["x short"] <= 1:
        assert all(whole["lower %"] <= 1.02 * row(result, goal, "least loss")["lower %"] + 1e-9 for goal in (*KV, "decoding"))


def test_the_search_finds_what_trying_every_setting_finds(problem: Problem, levers: Levers) -> None:
    """A token method with a bits method: all their settings."""
    pair = [next(method for method in levers.methods if method.dimension == dimension) for dimension in ("token", "bits")]
    chosen = Choice(levers.deployment, problem.checkpoints[0], MethodChoice.of(*pair))
    cells = grid(problem, [chosen])
    counts = cells.counts[0] * 1
    counts[-3:] = 1
    index = np.array(list(itertools.product(*(range(count) for count in counts))))
    x = cells.settings(np.zeros(len(index), int), index, np.ones(len(index)))
    costs = Meter(problem, [chosen], problem.context).costs(np.zeros(len(x), int), x)
    own = Levers(problem, pair, levers.deployment, problem.context, levers.target * 8)  # a target that both together reach
    for goal in (Goal((0,)), Goal((0, 1, 2)), Goal((0,), 0.05)):
        best = scored(goal, np.log(costs.metrics / own.target), costs.worst).min()
        found = own.search(goal)
        reached = scored(goal, np.log(found.remains)[None], np.array([found.worst]))[0]
        assert reached <= best + 0.01 * abs(best) + 1e-9


def test_contributions_add_up(problem: Problem, levers: Levers) -> None:
    answer = levers.search(Goal((0, 1, 2)))
    stages = in_turn(problem, answer.choice, answer.x)
    assert len(stages) == 1 + len(answer.choice.methods.methods)
    found = shares(stages, [0])
    assert sum(share for _, share in found) == pytest.approx(1)
    assert stages[0].costs[0] == pytest.approx(levers.base[0])
    assert stages[-1].costs[0] == pytest.approx(answer.metrics[0])
    assert shares(stages[:1], [0]) == []


def test_a_reused_prefix_makes_the_prompt_as_cheap(problem: Problem, levers: Levers) -> None:
    bare, x = levers.choices[0], vector(problem, {})
    whole = reused_prefill_s(problem, bare, x, 1e6, 1e6)
    assert whole == pytest.approx(levers.base[3], rel=1e-6)
    new = tokens_that_take(problem, bare, x, 1e6, levers.target[3])
    assert new is not None
    assert reused_prefill_s(problem, bare, x, 1e6, new) <= levers.target[3]
    assert reused_prefill_s(problem, bare, x, 1e6, 1.01 * new) > levers.target[3]
    assert tokens_that_take(problem, bare, x, 1e6, 1e-9) is None
    stages, tokens = after(problem, bare, x, float(levers.target[3]))
    assert tokens == new
    assert stages[-1].costs[SHOWN.index("prefill_s")] == levers.target[3]
    assert stages[0].costs[SHOWN.index("prefill_s")] < levers.base[3]


def test_the_picture_and_the_honest_note(result: StudyResult, folder: Path, problem: Problem, levers: Levers) -> None:
    assert {"one_million.png", "one_million.svg"} <= {path.name for path in folder.iterdir()}
    assert "extrapolated" in result.notes[-1] + result.notes[-2]
    answer = levers.search(Goal((0,)))
    drawing = figure(in_turn(problem, answer.choice, answer.x), problem.scenario)
    drawing.draw_without_rendering()
    assert len(drawing.axes) == 4
    assert all(np.diff(axes.get_xlim())[0] > 0 for axes in drawing.axes)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="takes two"):
        one_million.run(context="50k")
    with pytest.raises(BadInput, match="must be shorter"):
        one_million.run(short="1m", long="4k")
    with pytest.raises(BadInput, match="no search does yet"):
        one_million.run(methods="duoattention:0.5", head_scores="gates")
    found = one_million.run(model="llama-3.1-70b", gpus=1)
    assert not found.ok
    assert "do not fit" in found.notes[0]
