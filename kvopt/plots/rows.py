"""The plans that a picture sets side by side: uncompressed, today's and the research optimum."""

from __future__ import annotations

import textwrap
from typing import Any

from kvopt import wording
from kvopt.results import Result

WIDTH = 22  # letters of a row's name


def answer_of(result: Result) -> dict[str, Any]:
    """The answer of a result: of a front, that beside its points."""
    found: dict[str, Any] = result.data.get("answer") or result.data
    return found


def today(result: Result) -> str:
    """What the answer is called: a plan that was asked about, or today's best."""
    return "plan" if result.kind in ("analyze", "explain") else "today"


def ahead(answer: dict[str, Any]) -> dict[str, Any] | None:
    """The research optimum, where it is another plan than the answer's."""
    research = answer.get("research") or {}
    return research if research.get("plan") and research["plan"] != answer.get("plan") else None


def with_arithmetic(result: Result) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """(point, its arithmetic) by name, of those whose arithmetic is known."""
    answer = answer_of(result)
    points = {"uncompressed": answer.get("baseline_point"), today(result): answer, "research": ahead(answer)}
    return {name: (point, point["arithmetic"]) for name, point in points.items() if point and point.get("arithmetic") and point.get("plan")}


def named(name: str, point: dict[str, Any]) -> str:
    """The name of a row in lines: which plan, and its methods."""
    return name if name == "uncompressed" else f"{name}:\n{textwrap.fill(wording.methods(point['plan']), WIDTH)}"
