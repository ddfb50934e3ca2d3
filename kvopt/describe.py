"""Points as plain values: what `--json` prints of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvopt.engine_capacity import engine_capacity
from kvopt.metrics import bottleneck, constraint_rows, metrics
from kvopt.plans import to_plan
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.lanes import FIELDS
from objectives.types import Plan


def scenario(problem: Problem) -> dict[str, Any]:
    """The question with everything that was filled in."""
    ttft, tpot = problem.latency_targets
    filled = {
        "model": problem.model.id,
        "accelerator": problem.accelerator.id,
        "context": problem.context,
        "task": problem.task,
        "question_hidden": problem.question_hidden,
        "weights": ",".join(weights.format for weights in problem.checkpoints),
        "ttft_s": ttft.seconds,
        "tpot_s": tpot.seconds,
        "profile": problem.profile.id if problem.profile else "peak",
    }
    return {**problem.scenario.model_dump(mode="json"), **filled, "asked": problem.scenario.model_dump(mode="json", exclude_unset=True)}


def describe_all(problem: Problem, found: Sequence[Point]) -> list[dict[str, Any]]:
    """Plan, metrics, constraints, bottleneck and evidence of every point."""
    if not found:
        return []
    rows = metrics(problem, [point.choice for point in found], np.array([point.x for point in found]), [point.state for point in found])
    plans = [to_plan(problem, point.choice, point.x) for point in found]
    return [
        {
            "plan": plan,
            "metrics": row,
            "constraints": constraint_rows(point.state),
            "bottleneck": bottleneck(point.state, point.choice),
            "evidence": evidence(problem, point),
            "engine_capacity": engine_capacity(problem, plan, row["kv_bytes_per_session"] or 0.0),
        }
        for point, plan, row in zip(found, plans, rows, strict=True)
    ]


def describe(problem: Problem, point: Point) -> dict[str, Any]:
    """The same of one point."""
    return describe_all(problem, [point])[0]


def describe_each(found: Sequence[tuple[Problem, Point]]) -> list[dict[str, Any]]:
    """The same of points of several problems, in their order."""
    groups: dict[tuple[int, bool, bool], list[int]] = {}  # plans by layer or head are evaluated by a program of their own
    for index, (problem, point) in enumerate(found):
        groups.setdefault((id(problem), point.choice.heads is None, point.choice.blocks is None), []).append(index)
    rows: dict[int, dict[str, Any]] = {}
    for places in groups.values():
        rows |= zip(places, describe_all(found[places[0]][0], [found[place][1] for place in places]), strict=True)
    return [rows[index] for index in range(len(found))]


def evidence(problem: Problem, point: Point) -> str:
    """Whether the plan's accuracy lies inside what was measured: interpolated, extrapolated or none."""
    values = dict(zip(FIELDS, point.x, strict=True))
    heads, blocks = point.choice.heads, point.choice.blocks
    tables = {name: heads.table(name) for name in heads.kept} if heads else dict(blocks.tables) if blocks else {}
    plan = Plan(**{**{name: values[name] for name in Plan.__dataclass_fields__}, **tables})
    return point.choice.methods.evidence(plan, problem.asked)
