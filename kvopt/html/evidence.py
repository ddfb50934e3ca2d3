"""The evidence behind an accuracy, and what an answer takes for given, in words and numbers for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kvopt import wording

Rows = list[tuple[str, str]]
Assumption = tuple[str, str, str, str, str]


def evidence(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the answer and of the research plan: `{title, together, note, question, methods}`, each method with its rows."""
    found = []
    research = answer.get("research") or {}
    for title, point in (("The answer", answer), ("The research plan", research)):
        behind = point.get("behind")
        if not behind or (point is research and research.get("plan") == answer.get("plan")):
            continue
        whole = behind["together"]
        found.append(
            {
                "title": f"{title}: {wording.methods(point['plan'])}",
                "together": f"{wording.percent(whole['retained'])}, lower end {wording.percent(whole['lower'])}",
                "note": f"{whole['note']}.",
                "question": f"{behind['task']} at {behind['context']:,.0f} tokens, question {behind['question']} when the cache is compressed",
                "confidence": f"{100 * behind['confidence']:g} %",
                "coverage": point.get("evidence", ""),
                "methods": [{"name": one["name"], "id": one["method"], "rows": _method(one, behind)} for one in behind["methods"]],
            }
        )
    return found


def _method(one: Mapping[str, Any], behind: Mapping[str, Any]) -> Rows:
    task = behind["task"]
    ends = " to ".join(wording.percent(one[end]) for end in ("lower", "upper"))
    predicted = f"{wording.percent(one['retained'])} ({ends}, each end at {100 * behind['confidence']:g} % confidence)"
    spread = ", ".join(f"{name} {100 * share:.0f} %" for name, share in one["spread"].items())
    own = f", {one['own']} of them your own" if one["own"] else ""
    basis = "" if one["readings"] else ", which are listed"
    rows = [
        ("Keeps", f"{one['kept']:.3g} bits" if one["dimension"] == "bits" else wording.percent(one["kept"])),
        ("Predicted alone", predicted),
        (
            "Inside what was measured",
            {"interpolated": "yes: interpolated", "extrapolated": "no: extrapolated", "none": "nothing was measured"}[one["coverage"]],
        ),
        ("Readings", f"{one['readings']} on {task}, {one['other_tasks']} on other tasks{basis}; {one['of_this_model']} of this model{own}"),
        ("Spread is from", spread),
    ]
    if one["lengths"]:
        least, most = one["lengths"]
        rows.append(("Lengths", f"{least:,.0f} tokens" if least == most else f"{least:,.0f} to {most:,.0f} tokens"))
    if one["kept_measured"]:
        least, most = one["kept_measured"]
        unit = " bits" if one["dimension"] == "bits" else ""
        rows.append(("Kept when measured", f"{least:.3g}{unit}" if least == most else f"{least:.3g} to {most:.3g}{unit}"))
    rows += [(name.capitalize(), counted(one[name])) for name in ("models", "benchmarks", "sources") if one[name]]
    return rows


def counted(names: Sequence[Sequence[Any]]) -> str:
    """Names with their counts; the rest have no name."""
    return ", ".join(f"{name} ({count})" if name else f"others ({count})" for name, count in names)


def assumed(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Assumption]]]:
    """What was taken for given, by group: (name, value with its unit, spread, how it is known, source)."""
    return [(about, _once([_assumed(row) for row in several])) for about, several in groupby(rows, key=lambda row: row["about"])]


def _once(rows: list[Assumption]) -> list[Assumption]:
    """A source that holds for several rows after each other is written at the first."""
    before = [""] + [row[-1] for row in rows[:-1]]
    return [(*row[:-1], "as above" if row[-1] == last else row[-1]) for row, last in zip(rows, before, strict=True)]


def _assumed(row: Mapping[str, Any]) -> Assumption:
    value, unit = row["value"], row["unit"]
    if isinstance(value, str):
        said = value
    elif value is None:
        said = wording.UNKNOWN
    elif unit == "bytes":
        said = wording.bytes_(value)
    elif unit in ("", "tokens", "requests", "readings"):
        said = f"{value:,.6g}" if isinstance(value, float) and value < 1e6 else f"{value:,.0f}"
    else:
        said = wording.number(value)
    spread = "" if row["spread_percent"] is None else f"± {row['spread_percent']:.0f} %"
    return row["name"], f"{said} {unit}".strip() if unit not in ("bytes", "share") and value is not None else said, spread, row["tag"], row["source"]
