"""Limits that hold together: the plain answer without spreads, each limit's own where it is alone, and never more confidence at more load."""

import dataclasses

import numpy as np
import pytest

from kvopt import chances, named
from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import resolve
from kvopt.search import chance
from kvopt.search.draws import draws
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import BATCH, FIELDS
from kvopt.search.pipeline import Found
from objectives.accuracy.composition import CORRELATION
from objectives.limits import NAMES

DRAWS = 1024


def solved(**fields):
    problem = resolve(Scenario.of(**{"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k", **fields}))
    return problem, named.best_case(problem)


def at_load(point, share):
    x = point.x.copy()
    x[BATCH] *= share
    return dataclasses.replace(point, x=x)


def test_without_spreads_it_is_the_plain_answer():
    problem, point = solved(fidelity="peak")
    (found,) = chance.joint(problem, [point], DRAWS)
    assert (found.confidence, found.joint_confidence, found.holds) == (1.0, 1.0, True)
    assert found.load == pytest.approx(point.x[BATCH], rel=1e-12)
    assert found.values["sessions_per_gpu_hour"] == pytest.approx(float(point.state.values["sessions_per_gpu_hour"]), rel=1e-12)


def test_confidence_rises_as_load_falls():
    problem, point = solved(tpot="20ms", confidence=0.5)
    found = [one.confidence for one in chance.joint(problem, [at_load(point, share) for share in (1.0, 0.95, 0.9, 0.8, 0.5)], DRAWS)]
    assert found == sorted(found)
    assert found[0] < 0.7 < 0.95 < found[-1]


@pytest.mark.parametrize(("binding", "fields"), [("hbm", {"turns": 1, "ttft": "10min", "tpot": "2s"}), ("tpot_s", {"tpot": "20ms", "ttft": "10min"})])
def test_where_one_limit_binds_its_load_is_that_of_its_own_confidence(binding, fields):
    problem, middle = solved(**fields, confidence=0.5)
    strict, _ = solved(**fields, confidence=0.9)
    marginal = assess(strict, [middle.choice], middle.x[None])[0][0, BATCH]  # the same plan at the load of z = 1.28
    (found,) = chance.joint(problem, [middle], DRAWS, confidence=0.9)
    assert abs(float(middle.state.broken[NAMES.index(binding)])) < 1e-6
    assert marginal < middle.x[BATCH] * (1 - 1e-3), "a spread without effect shows nothing"
    assert found.load == pytest.approx(marginal, rel=0.005)
    assert found.each[binding] == pytest.approx(0.5, abs=0.01)


def test_one_dimension_keeps_its_lower_end_with_the_confidence_of_it():
    problem, point = solved(methods="fp8", ttft="10min", tpot="2s")
    floor = float(point.state.lower)
    at_edge = dataclasses.replace(problem, scenario=problem.scenario.model_copy(update={"accuracy_floor": floor}))
    (found,) = chance.joint(at_edge, [point], DRAWS)
    assert found.each["accuracy"] == pytest.approx(0.9, abs=0.02)


def test_a_floor_out_of_reach_holds_at_no_load():
    problem, point = solved(methods="fp8", accuracy_floor=0.9999)
    (found,) = chance.joint(problem, [point], DRAWS)
    assert not found.holds
    shown = chance.described(found)
    assert shown["joint_confidence"] < 0.9
    assert shown["sessions_per_gpu_hour"] is None
    assert shown["decodes_in_flight"] is None


def test_draws_are_those_of_the_seed_and_share_what_they_should():
    one, again, other = draws(1, DRAWS), draws(1, DRAWS), draws(2, DRAWS)
    assert np.array_equal(one.prefill, again.prefill)
    assert not np.array_equal(one.prefill, other.prefill)
    assert np.std(one.memory) == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(one.prefill, one.decode)[0, 1]) < 0.08
    assert np.corrcoef(one.losses.token, one.losses.bits)[0, 1] == pytest.approx(CORRELATION, abs=0.08)


@pytest.mark.parametrize("count", [0, 15, 10**6])
def test_a_number_of_draws_that_says_nothing_is_refused(count):
    problem, point = solved()
    with pytest.raises(BadInput, match="chance"):
        chance.joint(problem, [point], count)


def test_every_point_of_a_front_says_what_it_serves_when_all_holds():
    problem, point = solved(methods="fp8")
    _, bare = solved()
    none = Found(np.zeros(0, int), np.zeros((0, len(FIELDS))), np.zeros((0, len(GOALS))), np.zeros((0, len(NAMES))))
    rows = [{}, {}]
    whole = chances.added(rows, [chances.Searched("deployable", problem, [point, bare], (), none)], point, DRAWS)
    assert [row["chance"]["holds"] for row in rows] == [True, True]
    assert rows[0]["chance"]["sessions_per_gpu_hour"] <= float(point.state.values["sessions_per_gpu_hour"]) * (1 + 1e-9)
    assert [point["plan"]["methods"] for point in whole["points"]] == [["fp8"], []]
    said = chances.lines(whole)
    assert "1024 draws" in said[0]
    assert "fp8" in said[1]
