"""The one-page report of a result: the answer first, then the front to look around in, and what stands behind it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kvopt import block_report, chances, head_summary, report, tables, wording
from kvopt.errors import BadInput
from kvopt.html.evidence import assumed, evidence
from kvopt.html.figures import pictures
from kvopt.html.front import as_script, front
from kvopt.html.plans import SHOWN, described
from kvopt.results import Result
from kvopt.simulation.report import verdict
from kvopt.wording import GLOSSARY, QUANTITIES

KINDS = ("pareto", "optimize", "analyze", "sensitivity")


def reports_on(result: Result) -> bool:
    """Whether `report_html` makes a report of results of this kind."""
    return result.kind in KINDS


def report_html(result: Result) -> str:
    """The report of a `pareto`, `optimize`, `analyze` or `sensitivity` result as one HTML document that loads nothing; the same result gives the same text.

    Raises `BadInput` for a result of another kind.
    """
    if not reports_on(result):
        raise BadInput("report", result.kind, f"a report is made of {', '.join(KINDS)}")
    scenario = result.data["scenario"]
    answer = result.data.get("answer") or result.data
    shown = front(result)
    return _template().render(
        title=f"{result.kind}: {wording.question(scenario)}",
        lines=_lines(result, answer, scenario),
        warnings=result.warnings,
        notes=_notes(result, answer, scenario),
        compared=_compared(result, answer, scenario),
        engines=_engines(answer),
        front=shown,
        plans=[] if shown else _plans(result, answer, scenario),
        pictures=pictures(result),
        evidence=evidence(answer),
        assumptions=assumed(result.data.get("assumptions") or []),
        question=_question(scenario),
        glossary=GLOSSARY,
        data=as_script(shown["data"] if shown else []),
        style=_own("report.css"),
        script=_own("report.js"),
    )


@cache
def _template() -> Any:
    loader = FunctionLoader(_text)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.get_template("report.html.j2")


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _own(name: str) -> Markup:
    """A file of this package as it is: it holds nothing of a result."""
    return Markup(_text(name))


def _lines(result: Result, answer: dict[str, Any], scenario: dict[str, Any]) -> list[tuple[str, str]]:
    """The answer, as a terminal says it."""
    if answer.get("infeasible"):
        return report.infeasible(answer)
    if result.kind == "analyze":
        return [("Plan", report.settings_of(answer, scenario)), ("Ceiling", report.ceiling(answer))]
    return [("Today", report.today(answer, scenario)), *report.bound(answer), *report.lost(answer), ("Ceiling", report.ceiling(answer))]


def _notes(result: Result, answer: dict[str, Any], scenario: dict[str, Any]) -> list[str]:
    """What else is said of the answer, a line each."""
    data, found = result.data, []
    if not answer.get("infeasible"):
        found.append(f"What binds: {answer['bottleneck']}.")
    if data.get("per"):
        found += block_report.lines(data["per"], scenario["per"])
    if answer.get("heads"):
        found += head_summary.lines(answer["heads"], answer["plan"].get("engine", scenario["engine"]))
    if data.get("verification"):
        found.append(verdict(data["verification"], scenario))
    if data.get("chance"):
        found += chances.lines(data["chance"])
    found.append(" ".join(line.strip() for line in report.outcomes((data.get("search") or {}).get("outcomes"))))
    return [line for line in found if line]


def _compared(result: Result, answer: dict[str, Any], scenario: dict[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows of the plans side by side."""
    shown = (
        {"plan": answer["metrics"]}
        if result.kind == "analyze"
        else {"answer": answer["metrics"], "research": (answer.get("research") or {}).get("metrics")}
    )
    shown |= {} if result.kind == "analyze" else {"uncompressed": answer.get("baseline")}
    columns = {} if answer.get("infeasible") else {name: metrics for name, metrics in shown.items() if metrics}
    labels = tables.labels(scenario)
    rows = [(labels[name], *(QUANTITIES[name](metrics[name]) for metrics in columns.values())) for name in SHOWN] if columns else []
    return list(columns), rows


def _engines(answer: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What each engine would give, where any may run the answer."""
    found = []
    for row in answer.get("engines") or ():
        numbers = ["-" if row["why"] else QUANTITIES[name](row[name]) for name in ("sessions_per_gpu_hour", "accuracy_retained")]
        found.append((row["engine"], *numbers, row["why"] or wording.methods(row)))
    return found


def _plans(result: Result, answer: dict[str, Any], scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """The plans of a result without a front."""
    closest = "The plan" if result.kind == "analyze" else "The answer"
    named = "What comes closest" if answer.get("infeasible") and "ledger" not in answer["infeasible"] else closest
    found = [] if "ledger" in (answer.get("infeasible") or {}) else [described(answer, scenario, f"{named}: {wording.methods(answer['plan'])}")]
    research = answer.get("research") or {}
    if research.get("plan") and research["plan"] != answer["plan"]:
        found.append(described(research, scenario, f"Research: {wording.methods(research['plan'])}"))
    return found


def _question(scenario: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Every field of the scenario: (name, value, whether it was asked for)."""
    asked = scenario.get("asked", {})
    given = {name: value for name, value in scenario.items() if name not in ("asked",) and value is not None}
    return [(name.replace("_", " "), _plain(value), "asked for" if name in asked else "filled in") for name, value in given.items()]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
