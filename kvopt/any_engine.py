"""The same question to every engine that may run the answer: one, or all that suit where the scenario says `any`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt import named
from kvopt.inputs.scenario import ANY
from kvopt.problem import Problem, on_each_engine, unsuited
from kvopt.realise import deployable
from kvopt.results import Result
from kvopt.search.best import Point
from kvopt.search.pipeline import Progress
from kvopt.search.solve import Solved, least_broken, solve, worth


@dataclass(frozen=True)
class Answered:
    """A question as one engine answers it."""

    problem: Problem
    solved: Solved


def solve_each(problem: Problem, objective: str, progress: Progress) -> list[Answered]:
    """The optima on every engine that may run the answer. The engines share their compiled programs: the second costs a few seconds."""
    each = on_each_engine(problem)

    def part(index: int, name: str) -> Progress:
        before = f"{name}: " if len(each) > 1 else ""
        return lambda phase, share: progress(before + phase, (index + share) / len(each))

    return [Answered(one, solve(one, objective, part(index, one.engine.id))) for index, one in enumerate(each)]


def today(found: Sequence[Answered], objective: str) -> Answered:
    """The engine whose deployable plan is best; where none has one, the one that comes closest to the constraints."""

    def rank(one: Answered) -> tuple[int, float]:
        if one.solved.answer is not None:
            return 0, worth(one.solved.answer, objective)
        if one.solved.candidates is None or len(found) == 1:
            return 2, 0.0
        return 1, float(np.nanmax(np.asarray(least_broken(one.problem, one.solved.candidates.choices).state.broken)))

    return min(found, key=rank)


def ahead(found: Sequence[Answered], objective: str) -> Answered:
    """The engine on which the research plan is best: its speed is that of the engine it is built into."""
    solved = [one for one in found if one.solved.research is not None]
    return min(solved, key=lambda one: worth(one.solved.research, objective) if one.solved.research else 0.0, default=today(found, objective))


def bound(found: Sequence[Answered], best: Answered) -> dict[str, Any]:
    """The most that any deployable plan can give within the model, on any engine that may run it: as `bound` of a result.

    `model_percent`: how much longer prefill and decode steps may take than predicted, at the confidence asked for. The bound is about the search, this about
    the world.
    """
    efficiency, z = best.problem.system().efficiency, float(best.problem.targets.z)
    spread = {name: 100 * (math.exp(z * float(getattr(efficiency, f"{name}_log_sd"))) - 1) for name in ("prefill", "decode")}
    bounds = [one.solved.bound.sessions_per_gpu_hour for one in found if one.solved.bound is not None]
    if best.solved.answer is None or not bounds:
        return {"sessions_per_gpu_hour": None, "gap_percent": None, "model_percent": spread}
    value = float(best.solved.answer.state.values["sessions_per_gpu_hour"])
    return {"sessions_per_gpu_hour": max(bounds), "gap_percent": 100 * (max(bounds) / value - 1), "model_percent": spread}


def of_plan(problem: Problem, plan: Mapping[str, Any]) -> Problem:
    """The problem on the engine that a plan names, where the scenario takes any."""
    return next((one for one in on_each_engine(problem) if one.engine.id == plan.get("engine")), problem)


def able(problem: Problem) -> tuple[Problem, ...]:
    """The problem on every engine that runs the methods that the scenario names; on every engine that suits where none runs them."""
    each = on_each_engine(problem)
    return tuple(one for one in each if deployable(one, named.methods(one)[0])) or each


def named_best(problem: Problem) -> Problem:
    """The problem on the engine that serves most with the plan that the scenario names."""
    each = able(problem)
    if len(each) == 1:
        return each[0]
    points = [(one, named.best_case(one)) for one in each]
    return max(points, key=lambda pair: (pair[1].feasible, float(pair[1].state.values["sessions_per_gpu_hour"])))[0]


def effort(found: Sequence[Answered]) -> dict[str, float]:
    """What all the searches cost."""
    costs = [one.solved.cost for one in found]
    return {name: sum(cost[name] for cost in costs) for name in costs[0]}


def table(found: Sequence[Answered]) -> dict[str, Any]:
    """What each engine would give, as `engines` of a result; nothing unless the scenario takes any engine."""
    return _table(found[0].problem, [_answer(one) for one in found])


def best_result(results: Sequence[tuple[Problem, Result]]) -> Result:
    """The result of the engine that serves most with one named plan, with what each engine would give."""
    rows = [_row(problem, result.data["metrics"] if result.feasible else {}, result.data["plan"]["methods"]) for problem, result in results]
    tried = {row["engine"] for row in rows}
    lacking = [one for one in on_each_engine(results[0][0]) if one.engine.id not in tried]
    rows += [{**_row(one, {}, []), "why": "does not run these methods"} for one in lacking]
    _, best = max(results, key=lambda pair: (pair[1].feasible, pair[1].data["metrics"]["sessions_per_gpu_hour"] or 0.0))
    best.data.update(_table(results[0][0], rows))
    return best


def _table(problem: Problem, rows: list[dict[str, Any]]) -> dict[str, Any]:
    if problem.scenario.engine != ANY:
        return {}
    left_out = [{**_row(None, {}, []), "engine": name, "why": why} for name, why in unsuited(problem).items()]
    return {"engines": sorted(rows, key=lambda row: -(row["sessions_per_gpu_hour"] or 0.0)) + left_out}


def _row(problem: Problem | None, metrics: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """One engine's row. `profile`: whether its speed was measured with this model, with others of its kind (group), or not on this accelerator (none)."""
    speed = problem.profile.evidence if problem and problem.profile else None
    rates = {name: metrics.get(name) for name in ("sessions_per_gpu_hour", "accuracy_retained")}
    why = None if metrics else "no plan meets the targets"
    return {"engine": problem.engine.id if problem else None, **rates, "methods": methods, "profile": speed, "why": why}


def _answer(one: Answered) -> dict[str, Any]:
    numbers, methods = _numbers(one.solved.answer)
    found = _row(one.problem, numbers, methods)
    if one.solved.candidates is None:
        found["why"] = "the weights do not fit"
    numbers, methods = _numbers(one.solved.research)
    return {**found, "research_sessions_per_gpu_hour": numbers.get("sessions_per_gpu_hour"), "research_methods": methods}


def _numbers(point: Point | None) -> tuple[dict[str, float], list[str]]:
    if point is None:
        return {}, []
    return {name: float(value) for name, value in point.state.values.items()}, [method.id for method in point.choice.methods.methods]
