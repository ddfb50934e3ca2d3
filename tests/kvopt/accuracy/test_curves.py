"""The curves that plans are judged by, from the catalog's evidence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from kvopt.accuracy import benchmarks, curves, posterior
from kvopt.accuracy.asked import Asked
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import SCORED, Reading
from kvopt.inputs import method
from kvopt.inputs.evidence import TASKS, Task
from kvopt.inputs.method import Dimension

LONG = Asked("ruler", 32768.0, True, "llama-3.1-8b")


def test_every_task_has_a_benchmark_that_resolves_to_it() -> None:
    assert set(TASKS) == set(get_args(Task))
    for task in TASKS:
        found = benchmarks.find(benchmarks.plan_benchmark(task))
        assert found is not None
        assert found.task == task
    assert benchmarks.find("My own exam") is None
    assert benchmarks.find("ruler-AVG") == benchmarks.find("RULER-avg-13")


def questions_of(dimension: Dimension) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in posterior.load(dimension).readings:
        found.setdefault(one.method, set()).add(one.question)
    return found


def test_a_hidden_question_is_never_served_by_readings_that_saw_it() -> None:
    seen_alone = {name for name, asked in questions_of("token").items() if asked == {"seen"}}
    scored = {spec.id for spec in method.load_all() if spec.dimension == "token" and spec.pool in SCORED}
    assert seen_alone & scored, "the evidence has methods that were measured with the question seen alone"
    hidden, seen = curves.all_of("token", LONG), curves.all_of("token", replace(LONG, question_hidden=False))
    assert not seen_alone & scored & set(hidden)
    assert seen_alone & scored <= set(seen)
    assert set(hidden) < set(seen)  # a hidden question's readings stand in for a seen one's


def test_without_evidence_there_is_no_curve() -> None:
    measured = {name for dimension in FITTED for name in questions_of(dimension)}
    for spec in method.load_all():
        if spec.id not in measured:
            assert curves.find(spec, replace(LONG, question_hidden=False)) is None, spec.id
    assert curves.find(method.load("minference"), LONG) is None
    assert curves.find(method.load("rocketkv"), LONG) is None


@pytest.mark.parametrize("dimension", FITTED)
def test_spreads_are_wide_enough_and_grow_with_compression(dimension: Dimension) -> None:
    found = curves.all_of(dimension, LONG)
    assert found
    for name, curve in found.items():
        assert curve.log_sd > 0, name
        assert curve.log_sd_growth >= 0, name
        assert sum(curve.parts.values()) == pytest.approx(1), name
        assert set(curve.parts) == {"method", "model", "noise"}
        leaves = curve.bits_loss() if dimension == "bits" else curve.keep_loss()
        assert all(math.isfinite(value) for value in vars(leaves).values()), name


def test_few_readings_are_wider_than_many() -> None:
    found = curves.all_of("token", replace(LONG, task="longbench", question_hidden=False))
    assert found["snapkv"].rows > 100
    few = [curve.log_sd for curve in found.values() if not curve.rows]
    assert found["snapkv"].log_sd < np.median(few)


def test_a_curve_says_what_it_covers() -> None:
    curve = curves.find(method.load("snapkv"), replace(LONG, task="longbench", question_hidden=False))
    assert curve is not None
    assert curve.range is not None
    least = curve.range[0]
    assert curve.covers(np.array([0.5]), 8192) == "interpolated"
    assert curve.covers(np.array([0.5, least / 2]), 8192) == "extrapolated"
    assert curve.covers(np.array([1.0]), 8192) == "interpolated"  # less compression than any measured loses less
    assert curve.covers(np.array([0.5]), 3 * curve.longest) == "extrapolated"
    assert replace(curve, rows=0, range=None).covers(np.array([0.5]), 8192) == "extrapolated"


def test_what_is_asked_is_kept_by_its_content() -> None:
    one = Asked("ruler", 4096.0, True, "llama-3.1-8b", (own(0.25, 0.9),))
    same = Asked("ruler", 4096.0, True, "llama-3.1-8b", (own(0.25, 0.9),))
    assert one == same
    assert hash(one) == hash(same)
    assert one != replace(one, own=())
    assert curves.all_of("layer", one) is curves.all_of("layer", same)


def own(keep: float, retained: float, **changes: object) -> Reading:
    """A person's own reading of SnapKV on RULER with the question hidden."""
    asked = curves.planned(method.load("snapkv"), LONG, "hidden")
    return replace(asked, source="mine.csv", key=keep, value=keep, retained=retained, **changes)  # type: ignore[arg-type]


BETTER = tuple(own(keep, kept) for keep, kept in ((0.5, 0.99), (0.25, 0.98), (0.12, 0.95)))


def kept(curve: curves.Curve | None, z: float = 0.0) -> float:
    """Retained accuracy at a quarter."""
    assert curve is not None
    return math.exp(-math.exp(curve.eta[0] + z * (curve.log_sd + curve.log_sd_growth * -math.log(0.25))))


def test_own_measurements_move_the_curve_and_narrow_it() -> None:
    snapkv = method.load("snapkv")
    before, after = curves.find(snapkv, LONG), curves.find(snapkv, replace(LONG, own=BETTER))
    assert before is not None
    assert after is not None
    assert kept(before) < 0.6
    assert kept(after) > 0.93
    assert after.log_sd + after.log_sd_growth < 0.8 * (before.log_sd + before.log_sd_growth)
    assert after.rows == before.rows + len(BETTER)
    assert after.covers(np.array([0.12]), 32768) == "interpolated"
    assert before.covers(np.array([0.12]), 32768) == "extrapolated"


def test_own_measurements_say_little_of_other_models_and_nothing_of_other_dimensions() -> None:
    mine, other = replace(LONG, own=BETTER), replace(LONG, model="qwen2.5-7b", own=BETTER)
    snapkv = method.load("snapkv")
    assert kept(curves.find(snapkv, replace(LONG, model="qwen2.5-7b"))) < kept(curves.find(snapkv, other)) < kept(curves.find(snapkv, mine))
    assert curves.all_of("bits", mine) == curves.all_of("bits", LONG)


def test_a_plan_is_read_in_the_persons_harness_where_it_spoke() -> None:
    """For the method measured, then for its kind, on the model measured."""
    snapkv, tova, fp8 = (method.load(name) for name in ("snapkv", "tova", "fp8"))
    asked = replace(LONG, own=BETTER)
    assert curves.planned(snapkv, asked, "hidden").source == "mine.csv"
    assert curves.planned(tova, asked, "hidden").source == "mine.csv"  # of the same kind
    assert curves.planned(snapkv, asked, "seen").source == ""  # another kind of question is another method
    assert curves.planned(fp8, asked, "hidden").source == ""
    assert curves.planned(snapkv, replace(asked, model="qwen2.5-7b"), "hidden").source == ""
