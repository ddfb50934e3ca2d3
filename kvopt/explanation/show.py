"""The arithmetic of a plan as a person reads it in a terminal: metric by metric, then the numbers that it starts from, with their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvopt import report, tables, wording
from kvopt.results import Result
from kvopt.wording import QUANTITIES

LEAST = 0.005  # share of a term below which it is said with the others
SAY = {
    "bytes": wording.bytes_,
    "bytes/s": lambda value: f"{wording.number(value / 1e9)} GB/s",
    "s": wording.seconds,
    "GPU-seconds": lambda value: f"{wording.number(value)} GPU-s",
    "log loss": wording.number,
    "share": wording.percent,
    "USD/h": lambda value: f"${value:.2f}/h",
    "W": lambda value: f"{value:,.0f} W",
    "": wording.number,
}
"""How a term is said, by its unit."""


def show(result: Result, console: Console) -> None:
    """Prints what `kvopt explain` found."""
    data, scenario = result.data, result.data["scenario"]
    report.put(console, f"explain: {wording.question(scenario)}", "bold")
    console.print(tables.grid([("Plan", report.settings_of(data, scenario))]))
    report.put(console, f"What binds: {data['bottleneck']}.")
    for row in data["explained"]:
        _metric(row, console)
    _inputs(data, console)


def _metric(row: Mapping[str, Any], console: Console) -> None:
    quantity = QUANTITIES[row["metric"]]
    report.put(console, f"\n{quantity.label}: {quantity(row['value'])}", "bold")
    report.put(console, f"  = {row['formula']}")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(overflow="fold")
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column(no_wrap=True)
    for name, value, share in _terms(row["terms"]):
        mark = "<- dominates" if name == row["dominates"] and len(row["terms"]) > 1 else ""
        lines.add_row(Text(f"    {name}"), value, "" if share is None else f"{100 * share:.0f} %", mark)
    console.print(lines)
    if row["note"]:
        report.put(console, f"    ({row['note']})", "dim")


def _terms(terms: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float | None]]:
    """Each term as name, value and share; those too small to see in one."""
    seen = [term for term in terms if term["share"] is None or term["share"] >= LEAST]
    said = [(term["name"], wording.said(SAY[term["unit"]], term["value"]), term["share"]) for term in seen]
    small = [term for term in terms if term not in seen]
    if small:
        value = sum(term["value"] for term in small)
        said.append((f"{len(small)} more" if len(small) > 1 else small[0]["name"], SAY[small[0]["unit"]](value), sum(t["share"] for t in small)))
    return said


def _inputs(data: Mapping[str, Any], console: Console) -> None:
    """The numbers that the formulas use, each source said once."""
    used = {name for row in data["explained"] for name in row["inputs"]}
    rows = [row for row in data["assumptions"] if row.get("key") in used]
    sources = list(dict.fromkeys(row["source"] for row in rows))
    table = Table("", "value", "known as", "from", box=None, pad_edge=False, title="\nWhat it starts from", title_justify="left", title_style="bold")
    for row in rows:
        value = wording.UNKNOWN if row["value"] is None else row["value"] if isinstance(row["value"], str) else wording.number(row["value"])
        table.add_row(Text(row["name"]), Text(f"{value} {row['unit']}".strip()), row["tag"], Text(f"[{sources.index(row['source']) + 1}]"))
    console.print(table)
    for number, source in enumerate(sources, 1):
        report.put(console, f"[{number}] {source}", "dim")
