"""Fronts under chance constraints, as `kvopt pareto --chance` adds them: what every plan gives where all limits must hold together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt import wording
from kvopt.describe import describe_all
from kvopt.problem import Problem
from kvopt.search import best as search
from kvopt.search import chance
from kvopt.search.best import Point
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import Choice
from kvopt.search.pipeline import Found
from kvopt.wording import QUANTITIES

MOST = 60  # plans above the floor that are tried beside those of a front
TRADED = ("sessions_per_gpu_hour", "accuracy_retained")


@dataclass(frozen=True)
class Searched:
    """One front and the search that it is of. The problem has the accuracy floor that was asked for, the search may have gone below."""

    label: str
    problem: Problem
    points: Sequence[Point]
    choices: Sequence[Choice]
    found: Found


def added(rows: Sequence[dict[str, Any]], fronts: Sequence[Searched], answer: Point | None, count: int) -> dict[str, Any]:
    """Adds `chance` to every described point, `rows` in the order of the fronts' points; the fronts where everything holds together, as `chance` of the result.

    Raises `BadInput` for a number of draws that cannot be.
    """
    scenario = fronts[0].problem.scenario
    whole: dict[str, Any] = {
        "draws": count,
        "confidence": scenario.confidence,
        "accuracy_floor": scenario.accuracy_floor,
        "answer": None,
        "points": [],
    }
    if answer is not None:
        whole["answer"] = chance.described(chance.joint(fronts[0].problem, [answer], count)[0])
    left = iter(rows)
    for one in fronts:
        tried = [*one.points, *_above_floor(one)]
        found = chance.joint(one.problem, tried, count)
        for held in found[: len(one.points)]:
            next(left)["chance"] = chance.described(held)
        kept = chance.front(found)
        described = describe_all(one.problem, [tried[row] for row in kept])
        whole["points"] += [{"front": one.label, **point, "chance": chance.described(found[row])} for row, point in zip(kept, described, strict=True)]
    return whole


def _above_floor(one: Searched) -> list[Point]:
    """Plans that the search came across which keep the floor, spread over what they keep: a front drawn below the floor has few of them."""
    kept = np.exp(-one.found.logs[:, list(GOALS).index("accuracy_retained")])
    rows = np.flatnonzero(kept >= one.problem.scenario.accuracy_floor)
    return search.front(one.problem, one.choices, one.found.best(rows), TRADED, MOST, load=True)


def lines(whole: dict[str, Any]) -> list[str]:
    """What a person reads of it."""
    asked, own = wording.percent(whole["confidence"]), whole["answer"]
    said = []
    if own is not None:
        said.append(
            f"Each limit holds with {asked} confidence by itself; all hold together in {wording.percent(own['joint_confidence'])} of {whole['draws']} draws."
        )
    today = [point for point in whole["points"] if point["front"] == "deployable"]
    if not today:
        return [*said, f"Together with {asked}: no plan of today's engine found that holds."]
    best = max(today, key=lambda point: point["chance"]["sessions_per_gpu_hour"])
    rate, users = (QUANTITIES[name](best["chance"][name]) for name in ("sessions_per_gpu_hour", "users_per_gpu"))
    return [*said, f"Together with {asked}: {wording.methods(best['plan'])} at {rate} sessions per GPU-hour, {users} users per GPU."]
