"""The points of a front over its picture: where each lies, what is said of it, and what a page needs to filter and sort them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from kvopt import plots, wording
from kvopt.html.inline import area, in_svg, inline_svg
from kvopt.html.plans import READINESS, described
from kvopt.plots.fronts import KEPT, LOWER, NAMES, place
from kvopt.results import Result
from kvopt.wording import QUANTITIES

ALWAYS = ("sessions_per_gpu_hour", KEPT, LOWER, "ttft_s", "tpot_s")  # columns of the table, and what is said of a point that is pointed at
AFTER = ("users_per_gpu", "cost_per_session_usd")


def front(result: Result) -> dict[str, Any] | None:
    """What the page shows of a front: picture, points, columns; None where there are no points."""
    data, scenario = result.data, result.data["scenario"]
    if not data.get("points"):
        return None
    axes = plots.front(result)
    svg = inline_svg(axes, "front")
    goals = sorted(data["objectives"], key=lambda name: name != KEPT)
    columns = list(dict.fromkeys([*data["objectives"], *ALWAYS, *AFTER]))
    points = [_point(index, point, scenario, columns) for index, point in enumerate(_along(_with_best(data), goals))]
    spots = [place(point["raw"]["metrics"], goals) for point in points]
    drawn = [point | {"spot": spot} for point, spot in zip(points, spots, strict=True)]
    _put(drawn, axes)
    return {
        "svg": svg,
        "points": drawn,
        "columns": [QUANTITIES[name].label for name in columns],
        "lower": columns.index(LOWER),
        "area": [round(value, 2) for value in area(axes)],
        "ready": [(name, sum(point["where"] == name for point in points)) for name in READINESS],
        "floor": f"{100 * scenario['accuracy_floor']:g} %",
        "chosen": _chosen(drawn),
        "data": [{name: point[name] for name in ("index", "x", "y", "front", "where", "holds", "title", "said")} for point in drawn],
    }


def _with_best(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of the fronts and the plans that are recommended, marked. These may lie behind a front: they are chosen by what they keep at the lower end."""
    answer = data.get("answer") or {}
    best = {"deployable": {} if answer.get("infeasible") else answer, "research": answer.get("research") or {}}
    found = [{**point, "best": False} for point in data["points"]]
    for label, point in best.items():
        if point.get("plan"):
            on_front = next((one for one in found if one["front"] == label and _alike(one["plan"], point["plan"])), None)
            if on_front is None:
                found.append({**point, "front": label, "best": True})
            else:
                on_front["best"] = True
    return found


def _alike(plan: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two plans are one, found by two searches: their numbers agree to a thousandth."""

    def close(one: Any, two: Any) -> bool:
        numbers = isinstance(one, float) and isinstance(two, float)
        return math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-3) if numbers else bool(one == two)

    return plan.keys() == other.keys() and all(close(plan[name], other[name]) for name in plan)


def _along(points: list[dict[str, Any]], goals: list[str]) -> list[dict[str, Any]]:
    """The points front by front, each along the horizontal axis."""

    def key(point: dict[str, Any]) -> tuple[int, float]:
        at = place(point["metrics"], goals)
        return list(NAMES).index(point["front"]), at[0] if at else np.inf

    return sorted(points, key=key)


def _point(index: int, point: dict[str, Any], scenario: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    plan, metrics = point["plan"], point["metrics"]
    title, name = wording.methods(plan), NAMES[point["front"]] + (", recommended" if point["best"] else "")
    said = [[QUANTITIES[name].label, QUANTITIES[name](metrics[name])] for name in ALWAYS]
    words = "; ".join(f"{label} {value}" for label, value in said)
    return {
        "index": index,
        "raw": point,
        "front": point["front"],
        "name": name,
        "title": title,
        "where": plan["where"],
        "holds": (metrics[LOWER] or 0) >= scenario["accuracy_floor"],
        "said": said,
        "label": f"{name}: {title}. {words}",
        "cells": [(QUANTITIES[name](metrics[name]), metrics[name]) for name in columns],
        "plan": described(point, scenario, f"{name}: {title}"),
    }


def _put(points: list[dict[str, Any]], axes: Axes) -> None:
    """Adds to every point where it lies in the picture; nothing where it is not drawn."""
    for point in points:
        point |= {"x": None, "y": None}
        if point["spot"] is not None:
            point["x"], point["y"] = (round(float(value), 2) for value in in_svg(axes, np.array([point["spot"][:2]]))[0])


def _chosen(points: list[dict[str, Any]]) -> int:
    """The point that is shown first: the answer, or else the research optimum."""
    return next((point["index"] for point in points if point["raw"]["best"]), 0)


def as_script(data: Any) -> Markup:
    """Data within a script element: JSON that can neither end the element nor begin a comment in it."""
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
