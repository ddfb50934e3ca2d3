"""The study `methods`: its ranking, its plans, and what it says of combinations, on a few methods of each dimension."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from kvopt import api
from kvopt.errors import BadInput
from kvopt.inputs import method as catalog
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.scenario import Scenario
from kvopt.plans import to_plan
from kvopt.problem import Problem, resolve
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import Choice
from studies import combinations, methods, methods_search
from studies.best_of_each import Each
from studies.methods_notes import notes
from studies.methods_plot import figure, named
from studies.methods_rows import said, table
from studies.methods_search import OBJECTIVE, PAYS, Tried, search
from studies.result import StudyResult

SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "64k", "tp": 1, "idle": "park"}


@dataclass(frozen=True)
class Case:
    problem: Problem
    tried: Tried
    rows: list[dict]

    def users(self, *ids: str) -> float:
        return float(next(row["users per GPU"] for row in self.rows if set(filter(None, row["ids"].split(","))) == set(ids)))


def few(problem: Problem, trained: bool = False, each: int = 2) -> list[MethodSpec]:
    """The first methods of each dimension."""
    found = ALL(problem, trained)
    return [one for dimension in catalog.DIMENSIONS for one in [m for m in found if m.dimension == dimension][:each]]


ALL = combinations.singles


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combinations, "singles", few)
        yield


def case(**fields: object) -> Case:
    problem = resolve(Scenario.of(**{**SMALL, **fields}))
    tried = search(problem)
    assert tried is not None
    return Case(problem, tried, table(problem, tried))


@pytest.fixture(scope="module")
def sure(small: None) -> Case:
    return case()


@pytest.fixture(scope="module")
def middle(small: None) -> Case:
    return case(confidence=0.5)


@pytest.fixture(scope="module")
def result(small: None, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    out = tmp_path_factory.mktemp("methods")
    found = methods.run(out=out, **SMALL)
    found.save(out)
    assert {"methods.png", "methods.svg", "table.csv", "result.json"} <= {path.name for path in out.iterdir()}
    return found


def test_rows_are_ranked_and_hold_the_floor(sure: Case, middle: Case) -> None:
    for one in (sure, middle):
        users = [row["users per GPU"] for row in one.rows]
        assert users == sorted(users, reverse=True)
        assert [row["#"] for row in one.rows] == list(range(1, len(users) + 1))
        assert {row["kind"] for row in one.rows} >= {"none", "single", "pair"}
        for row in one.rows:
            assert row["lower %"] >= 95 - 1e-9
            assert row["lower %"] <= row["kept %"] + 1e-9 <= row["upper %"] + 2e-9
            assert row["ceiling %"] <= 100


def test_every_plan_holds_its_limits_when_it_is_evaluated_again(sure: Case) -> None:
    assert all(point.feasible for point in sure.tried.points.values())
    for key in sorted(sure.tried.points, key=lambda key: -sure.tried.users(key))[:4]:
        point = sure.tried.points[key]
        again = api.evaluate(to_plan(sure.problem, point.choice, point.x), sure.problem.scenario)
        assert again.feasible
        assert again.data["metrics"]["users_per_gpu"] == pytest.approx(sure.tried.users(key), rel=1e-6)
        assert again.data["metrics"]["users_per_gpu"] == pytest.approx(sure.users(*key), rel=1e-6)


def test_what_a_member_brings_is_what_the_table_says(sure: Case) -> None:
    """Drop-one: the gain of every row over its parts is that of the other rows."""
    keys = {frozenset(filter(None, row["ids"].split(","))): row for row in sure.rows}
    checked = 0
    for key, row in keys.items():
        parts = [key - {name} for name in key]
        if key and all(part in keys for part in parts):
            best = max(keys[part]["users per GPU"] for part in parts)
            assert row["vs parts %"] == pytest.approx(100 * (row["users per GPU"] / best - 1), abs=1e-6)
            assert sure.tried.pays(key) == (row["vs parts %"] > 100 * PAYS)
            checked += 1
    assert checked > 10


def test_a_pair_is_never_worse_than_its_best_member_alone(middle: Case) -> None:
    """In the middle of the interval: a member that keeps all of its dimension costs nothing. Bits methods have no such setting."""
    bits = {method.id for method in middle.tried.methods if method.dimension == "bits"}
    pairs = [key for key in middle.tried.points if len(key) == 2 and not key & bits]
    assert pairs
    for key in pairs:
        assert middle.tried.users(key) >= (1 - 2e-3) * max(middle.tried.users(frozenset([name])) for name in key)


def test_a_combination_without_a_plan_of_its_own_is_worth_its_best_part(sure: Case) -> None:
    left_out = [combinations.key(chosen) for chosen in combinations.together(sure.tried.methods, 2)]
    left_out = [key for key in left_out if key not in sure.tried.points]
    for key in left_out:
        assert sure.tried.users(key) == max(sure.tried.users(key - {name}) for name in key)
        assert not sure.tried.pays(key)
    counted = sure.tried.unused.get(2, 0) + sure.tried.infeasible.get(2, 0)
    assert counted == len(left_out)
    assert sum(len(key) == 2 for key in sure.tried.points) + counted == sure.tried.searched[2] == sure.tried.possible[2]


def test_the_search_finds_what_trying_every_setting_finds(sure: Case) -> None:
    """A token method alone: all shares, chunks and shares of resident caches."""
    method = next(method for method in sure.tried.methods if method.dimension == "token")
    each = Each(
        sure.problem, [Choice(grouping, sure.problem.checkpoints[0], MethodChoice.of(method)) for grouping in sure.tried.groupings], OBJECTIVE
    )
    best = 0.0
    for place in range(len(each.space.choices)):
        counts = each.space.grid.counts[each.space.grid.of[place]]
        index = np.array(list(itertools.product(*(range(count) for count in counts))))
        choice = np.full(len(index), place)
        found = each.search.measure(choice, each.space.grid.settings(choice, index, np.ones(len(index))), relaxed=True)
        best = max(best, float(np.exp(-found.logs[found.feasible, list(GOALS).index(OBJECTIVE)].min(initial=np.inf))))
    assert sure.tried.users(frozenset([method.id])) == pytest.approx(best, rel=2e-3)


def test_the_notes_name_the_winner_and_what_its_members_bring(sure: Case) -> None:
    told = notes(sure.problem, sure.tried, sure.rows)
    best = frozenset(sure.rows[0]["ids"].split(","))
    assert any(note.startswith(f"most users per GPU: {said(sure.tried.points[best])}") for note in told)
    pair = next(row for row in sure.rows if row["kind"] == "pair")
    line = next(note for note in told if note.startswith("best pair: "))
    for name in pair["ids"].split(","):
        assert f"without {name} " in line
    assert any("that do not exclude each other" in note for note in told)
    assert any(note.startswith("never pay together") or note.startswith("pairs that pay") for note in told)


def test_what_is_left_out_is_said(sure: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods_search, "MOST_TRIPLES", 3)
    sets = combinations.together(sure.tried.methods, 3)
    kept = methods_search._promising(sure.tried, sets)
    assert len(kept) == 3
    worth = [sum(sure.tried.users(part) for part in combinations.parts(chosen)) for chosen in kept]
    paying = [all(sure.tried.pays(part) for part in combinations.parts(chosen)) for chosen in kept]
    assert paying == sorted(paying, reverse=True)
    assert [value for value, pays in zip(worth, paying, strict=True) if pays == paying[0]] == sorted(
        [value for value, pays in zip(worth, paying, strict=True) if pays == paying[0]], reverse=True
    )


def test_the_study_is_the_same_twice_and_prints_a_part(result: StudyResult, sure: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["methods"] for row in result.rows] == [row["methods"] for row in sure.rows]
    assert [row["users per GPU"] for row in result.rows] == [row["users per GPU"] for row in sure.rows]
    assert result.shown is not None
    assert len(result.shown) < len(result.rows)
    of = {method.id: method.dimension for method in sure.tried.methods}
    alone = {of[row["ids"]] for row in result.rows if row["kind"] == "single"}
    assert {of[result.rows[place]["ids"]] for place in result.shown if result.rows[place]["kind"] == "single"} == alone
    assert any(result.rows[place]["kind"] == "none" for place in result.shown)
    result.print()
    assert "uncompressed" in capsys.readouterr().out
    assert len(json.loads(result.to_json())["rows"]) == len(result.rows)


def test_the_picture(sure: Case) -> None:
    drawing = figure(sure.rows, sure.problem.scenario)
    axes = drawing.axes[0]
    texts = " ".join(text.get_text().replace("\u00a0", " ").replace("\n", " ") for text in axes.texts)
    for row in named(sure.rows):
        assert row["methods"] in texts
    low, high = axes.get_xlim()
    assert all(low <= row["lower %"] and row["upper %"] <= high for row in sure.rows)


def test_methods_that_need_training_are_only_tried_when_asked() -> None:
    problem = resolve(Scenario.of(**SMALL))
    usual, more = ({method.id for method in ALL(problem, trained)} for trained in (False, True))
    assert all(catalog.load(name).where != combinations.TRAINED for name in usual)
    assert {catalog.load(name).where for name in more - usual} <= {combinations.TRAINED}
    assert usual < more
    assert combinations.where(more) == combinations.TRAINED
    assert combinations.where([]) == "engine-ready"


def test_limits_that_nothing_holds_are_explained() -> None:
    found = methods.run(**{**SMALL, "ttft": "1ms"})
    assert not found.ok
    assert found.rows == ()
    assert "neither a method nor no compression holds" in found.notes[-1]
    assert "time to first token" in found.notes[-1]


def test_weights_that_do_not_fit_and_bad_input() -> None:
    found = methods.run(model="llama-3.1-70b", accelerator="a100-80-sxm", gpus=1)
    assert not found.ok
    assert "do not fit" in found.notes[0]
    with pytest.raises(BadInput, match="must be above 0"):
        methods.run(accuracy_floor=0)
    with pytest.raises(BadInput, match="field"):
        methods.run(speed=1)
    with pytest.raises(BadInput, match="no search does yet"):
        methods.run(methods="duoattention:0.5", head_scores="gates")
