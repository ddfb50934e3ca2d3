"""The pictures behind an answer, each with a caption and the numbers that it draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kvopt import plots, report, tables, wording
from kvopt.html.inline import inline_svg
from kvopt.plots.blocks import panels
from kvopt.plots.cost import STAGES
from kvopt.plots.rows import ahead, answer_of, today, with_arithmetic
from kvopt.plots.tornado import INPUTS
from kvopt.results import Result

Row = tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One picture of a page."""

    name: str
    title: str
    caption: str
    svg: Markup
    columns: Sequence[str]
    rows: Sequence[Row]


def pictures(result: Result) -> list[Picture]:
    """Those that the result has numbers for."""
    found = []
    for name in plots.drawable(result):
        if name in FIGURES:
            title, caption, columns, rows_of = FIGURES[name]
            rows, draw = rows_of(result), plots.PLOTS[name][0]
            found.append(Picture(name, title, caption, inline_svg(draw(result, None), name), columns(rows) if callable(columns) else columns, rows))
    return found


def _named(name: str, point: dict[str, Any]) -> str:
    return name if name == "uncompressed" else f"{name}: {wording.methods(point['plan'])}"


def _ledger(result: Result) -> list[Row]:
    answer = answer_of(result)
    short = (answer.get("infeasible") or {}).get("ledger")
    if short:
        return [("needed", *(wording.said(wording.bytes_, short.get(name)) for name in report.LEDGER if name != "caches"))]
    shown = {today(result): answer, "research": ahead(answer)}
    found = [(_named(name, point), report.memory(point)) for name, point in shown.items() if point]
    return [(name, *(wording.said(wording.bytes_, sizes.get(part)) for part in report.LEDGER if part != "usable")) for name, sizes in found]


def _ledger_columns(rows: Sequence[Row]) -> list[str]:
    left_out = "caches" if rows[0][0] == "needed" else "usable"
    return ["plan", *(said for name, said in report.LEDGER.items() if name != left_out)]


def _session(result: Result) -> list[Row]:
    found = []
    for name, (point, made) in with_arithmetic(result).items():
        session = made["session"]
        spent = [session["gpu_seconds"].get(stage) for stage in STAGES]
        whole = sum(value for value in spent if value is not None)
        paid, used = (None if session[each] is None else whole * session[each] for each in ("usd_per_gpu_s", "watt"))
        seconds = [wording.said(wording.seconds, value) for value in (*spent, whole)]
        found.append((_named(name, point), *seconds, wording.said(wording.dollars, paid), wording.said(wording.joules, used)))
    return found


def _roofline(result: Result) -> list[Row]:
    found = []
    for name, (point, made) in with_arithmetic(result).items():
        for work in (made.get("roofline") or {}).get("work", ()):
            if work["flop"] and work["bytes"]:
                numbers = [wording.number(value) for value in (work["flop"] / 1e9, work["bytes"] / 1e9, work["flop"] / work["bytes"])]
                found.append((_named(name, point), work["name"], *numbers, wording.said(wording.seconds, work["seconds"])))
    return found


def _elasticities(result: Result) -> list[Row]:
    return [
        (INPUTS.get(name, (name.replace("_", " "),))[0], *(tables.between(sides, side, tables.slope) for side in ("left", "right")))
        for name, sides in (answer_of(result).get("elasticities") or {}).items()
    ]


def _heat_map(result: Result) -> list[Row]:
    """Layer by layer: the least, the mean and the most of every setting that blocks have of their own."""
    return [
        (panel.title, str(layer), *(f"{value:.3g}" for value in (row.min(), row.mean(), row.max())))
        for panel in panels(result)
        for layer, row in enumerate(panel.table)
    ]


_Columns = Sequence[str] | Callable[[Sequence[Row]], list[str]]
FIGURES: dict[str, tuple[str, str, _Columns, Callable[[Result], list[Row]]]] = {
    "ledger": (
        "Memory of one GPU",
        "What one GPU's memory holds: weights, what the engine keeps for itself, caches in use, and what is left for more of them.",
        _ledger_columns,
        _ledger,
    ),
    "session_cost": (
        "What a session costs",
        "GPU seconds of one session by what they go into; dollars and joules are these seconds at the price and the power of a GPU.",
        ("plan", *(stage for stage, _ in STAGES.values()), "together", "cost", "energy"),
        _session,
    ),
    "roofline": (
        "Roofline",
        "Work per byte against speed: what lies under the slope waits for memory, what lies under the flat roof for arithmetic.",
        ("plan", "work", "GFLOP per GPU", "GB per GPU", "FLOP per byte", "time"),
        _roofline,
    ),
    "elasticities": (
        "What a little more of each input is worth",
        "Percent of sessions per GPU-hour for one percent less or more of an input, the plan held and its load solved again.",
        ("input", "one percent less", "one percent more"),
        _elasticities,
    ),
    "heat_map": (
        "The plan by layer and head",
        "What each layer, or each KV head, keeps.",
        ("setting", "layer", "least", "mean", "most"),
        _heat_map,
    ),
}
"""Functions of `kvopt.plots`: (title, caption, columns of the table, its rows)."""
