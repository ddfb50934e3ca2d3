"""`kvopt.explain`: one plan of a scenario with its arithmetic filled in."""

from __future__ import annotations

import dataclasses
from typing import Any

from kvopt import any_engine, describe, named
from kvopt.assumptions import PEAK, assumptions
from kvopt.explanation.arithmetic import arithmetic
from kvopt.explanation.formulas import formulas
from kvopt.explanation.parts import parts
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import Problem, resolve
from kvopt.results import Result
from kvopt.search.best import Point
from kvopt.search.blocks.answer import evaluated_on

LEAST_FLOOR = 1e-6  # a floor that every plan keeps


def explain(scenario: Scenario | None = None, plan: dict[str, Any] | None = None, **fields: Any) -> Result:
    """The formula of every metric of one plan, with its terms, its inputs and their sources, and the term that dominates.

    The plan is that of `analyze` unless given as a result holds it (`result.data["plan"]`), which is then taken at the load that it states. Takes the
    scenario's fields by name. Raises `BadInput`, also where the model's sizes are not known or its weights do not fit: there is then no arithmetic.
    """
    if scenario is not None and fields:
        scenario = Scenario.of(**{**scenario.model_dump(exclude_unset=True), **fields})
    asked = resolve(scenario if scenario is not None else Scenario.of(**fields))
    asked.require_known()
    problem, point = _given(asked, plan) if plan is not None else _named(asked)
    described = describe.describe(problem, point)
    asked = dataclasses.replace(problem, scenario=asked.scenario)
    data = {"scenario": describe.scenario(asked), **described, "arithmetic": arithmetic(problem, point)}
    data |= explained(problem, point, described["metrics"], described["plan"]) | {"assumptions": assumptions(asked)}
    return Result("explain", data, (*asked.warnings, *_below_floor(asked, point, plan)), point.feasible)


def _below_floor(asked: Problem, point: Point, plan: dict[str, Any] | None) -> list[str]:
    """What must be said of a plan that a front holds although it keeps too little."""
    least, floor = float(point.state.lower), asked.scenario.accuracy_floor
    if plan is None or least >= floor:
        return []
    return [f"accuracy: the plan keeps {100 * least:.1f} % at its lower end, below the floor of {100 * floor:g} %; explained all the same"]


def explained(problem: Problem, point: Point, metrics: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """`explained`: a row per metric as plain values, its inputs by their keys among the assumptions."""
    rows = formulas(parts(problem, point), metrics, plan, problem.system(point.choice.weights), problem.targets)
    known = {row["key"] for row in assumptions(problem)}
    told = [row.row(metrics[row.metric]) for row in rows]
    for row in told:  # at peak fidelity one assumption stands for every share and overhead
        row["inputs"] = list(dict.fromkeys(name if name in known else PEAK for name in row["inputs"]))
    return {"explained": told}


def _given(problem: Problem, plan: dict[str, Any]) -> tuple[Problem, Point]:
    problem = without_floor(any_engine.of_plan(problem, plan))
    choice, x = named.restored(problem, plan)
    problem = evaluated_on(problem, choice)
    _, states = assess(problem, [choice], x[None], load=False)
    return problem, Point(choice, x, states[0])


def without_floor(problem: Problem) -> Problem:
    """The problem for a plan that was chosen already: a front holds plans below the floor too."""
    return dataclasses.replace(problem, scenario=problem.scenario.model_copy(update={"accuracy_floor": LEAST_FLOOR}))


def _named(problem: Problem) -> tuple[Problem, Point]:
    problem = any_engine.named_best(problem)
    named.require_room(problem)
    return problem, named.best_case(problem)
