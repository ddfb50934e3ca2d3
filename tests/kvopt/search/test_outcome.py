"""What is wrong with every infeasible choice of a search, by how much, and a change that does what it says."""

import numpy as np
import pytest

from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.report import outcomes as said_of
from kvopt.search import outcome
from kvopt.search.lanes import make_choices
from kvopt.search.offers import offered
from objectives.limits import NAMES, violation

SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
LARGE = {"model": "llama-3.1-70b", "accelerator": "h100-sxm", "gpus": 4, "context": "64k", "turns": 3}


def asked(**fields):
    problem = resolve(Scenario.of(**fields))
    choices = make_choices(problem, offered(problem))
    return problem, choices, outcome.summary(problem, choices)


def test_every_constraint_has_a_code_with_a_message():
    assert [outcome.OF_CONSTRAINT[name].code for name in NAMES] == list(NAMES)
    assert set(outcome.MESSAGES) == set(outcome.Outcome)


@pytest.mark.parametrize(
    ("name", "value", "limit", "percent"), [("ttft_s", 15.0, 10.0, 50.0), ("accuracy", 0.9, 1.0, 10.0), ("hbm", 5.0, 10.0, -50.0)]
)
def test_a_violation_is_said_in_percent_of_the_limit(name, value, limit, percent):
    assert outcome.excess(name, float(violation(name, value, limit))) == pytest.approx(percent, rel=1e-5)


def test_a_limit_of_nothing_has_no_percent():
    assert np.isnan(outcome.excess("hbm", float(violation("hbm", 5.0, -1.0))))


def test_every_choice_is_counted_once():
    problem, choices, found = asked(**LARGE)
    by_code = {row["code"]: row for row in found["by_code"]}
    assert found["lanes"] == found["feasible"] + sum(row["count"] for row in found["by_code"])
    assert {"weights", "hbm_peak", "accuracy"} <= set(by_code)
    assert found["feasible"] > 0
    assert by_code["weights"]["count"] == found["lanes"] - len(choices)
    assert by_code["weights"]["least_excess_percent"] == pytest.approx(81.7, abs=3), "141 GB of weights on one card of 80"
    assert by_code["weights"]["change"] == "2 or more GPUs a group"
    codes = outcome.outcomes(problem, choices)
    assert np.array_equal(codes.codes == outcome.Outcome.FEASIBLE, (codes.broken <= 0).all(axis=1))


def test_the_change_that_would_do_does():
    _, _, refused = asked(**SMALL, ttft="1s")
    assert refused["feasible"] == 0
    (row,) = refused["by_code"]
    assert row["code"] == "ttft_s"
    assert row["change"].startswith("--ttft ")
    target = row["change"].removeprefix("--ttft ")
    assert float(target.removesuffix("s")) == pytest.approx(1 + row["least_excess_percent"] / 100, rel=0.01)
    assert asked(**SMALL, ttft=target)[2]["feasible"] > 0


def test_a_floor_that_only_no_compression_keeps_leaves_just_that():
    _, choices, found = asked(**SMALL, accuracy_floor=1.0)
    assert found["feasible"] == sum(not choice.methods.methods for choice in choices)
    assert {row["code"] for row in found["by_code"]} == {"accuracy"}


def test_a_report_says_it_in_two_lines():
    found = {
        "lanes": 9,
        "feasible": 2,
        "by_code": [
            {"code": "weights", "message": "the weights do not fit", "count": 4, "least_excess_percent": None, "change": "--gpus 4"},
            {"code": "ttft_s", "message": "too late", "count": 3, "least_excess_percent": 12.34, "change": "--ttft 2s"},
        ],
    }
    first, second = said_of(found)
    assert "2 of 9" in first
    assert second == "4 the weights do not fit (--gpus 4); 3 too late, by 12.3 % at least (--ttft 2s)."
    assert said_of({"lanes": 1, "feasible": 1, "by_code": []}) == []
    assert said_of(None) == []
