"""The evidence behind a method as `kvopt catalog methods` shows it: what was measured, what a plan would be told, and what its spread is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

from rich.console import Console
from rich.table import Table

from kvopt.accuracy import curves, posterior
from kvopt.accuracy.asked import Asked
from kvopt.accuracy.curves import Curve
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import SCORED, Question, Reading
from kvopt.inputs.evidence import REFERENCE_CONTEXT, TASKS, Task
from kvopt.inputs.method import Format, MethodSpec, load_all
from objectives.accuracy.proxies import bits_loss, keep_loss

SHARES = (0.75, 0.5, 0.25, 0.12)  # shown, where a method can be set to any share
MOST_SHOWN = 4  # settings of a method, and sources by name
END = NormalDist().inv_cdf(0.95)


@cache
def readings(method: str) -> tuple[Reading, ...]:
    """The published measurements of a method (catalog id) that the evidence holds."""
    return tuple(one for dimension in FITTED for one in posterior.load(dimension).readings if one.method == method)


def evidence(method: MethodSpec) -> list[dict[str, Any]]:
    """By task family, and by whether the question was seen where that matters: what was measured, and what is predicted of a model that nobody measured.

    Only of tasks that something speaks for; empty without any evidence.
    """
    questions: tuple[Question, ...] = ("seen", "hidden") if method.pool in SCORED else ("hidden",)
    return [row for task in TASKS for question in questions if (row := _of_task(method, task, question)) is not None]


def _of_task(method: MethodSpec, task: Task, question: Question) -> dict[str, Any] | None:
    if not readings(method.id):
        return None
    asked = Asked(task, REFERENCE_CONTEXT, question == "hidden")
    curve = curves.curves(curves.fitted(method.dimension), method.dimension, asked, specs=[method]).get(method.id)
    if curve is None:
        return None
    scored = method.pool in SCORED
    here = [one for one in readings(method.id) if one.task == task and (not scored or one.question == question)]
    kept = [(one.key + one.value) / 2 for one in here]
    return {
        "task": task,
        "question": question if scored else None,
        "readings": len(here),
        "kept": [min(kept), max(kept)] if here else None,
        "longest_context": max((one.context for one in here), default=None),
        "models": len({one.model for one in here}),
        "sources": [name for name, _ in Counter(one.source for one in here).most_common()],
        "predicted": _predicted(method, curve),
        "spread": dict(curve.parts),
    }


def _predicted(method: MethodSpec, curve: Curve) -> list[dict[str, Any]]:
    """Retained accuracy at a few settings: its middle and the ends of its 90 % interval."""
    if method.dimension == "bits":
        leaves = curve.bits_loss()
        settings = [({"key_bits": one.key_bits, "value_bits": one.value_bits}, one) for one in _formats(method)]
        found = [(said, [float(bits_loss(one.key_bits, one.value_bits, leaves, z)) for z in (0.0, END, -END)]) for said, one in settings]
    else:
        kept = curve.keep_loss()
        found = [({"kept": share}, [float(keep_loss(share, kept, z)) for z in (0.0, END, -END)]) for share in _shares(method)]
    return [{**said, **{name: math.exp(-loss) for name, loss in zip(("retained", "lower", "upper"), losses, strict=True)}} for said, losses in found]


def _formats(method: MethodSpec) -> list[Format]:
    """From the most bits to the fewest; a few of many."""
    falling = sorted(method.formats, key=lambda one: (-one.key_bits - one.value_bits, -one.key_bits))
    few = min(len(falling), MOST_SHOWN)
    return [falling[place * (len(falling) - 1) // max(few - 1, 1)] for place in range(few)]


def _shares(method: MethodSpec) -> Sequence[float]:
    assert method.allowed is not None  # a validator has seen to it
    if method.allowed.values:
        return [share for share in reversed(method.allowed.values) if share < 1][:MOST_SHOWN]
    return [share for share in SHARES if method.allowed.bounds[0] <= share <= method.allowed.bounds[1]] or [method.allowed.bounds[0]]


def show(method: MethodSpec, console: Console) -> None:
    """Prints the evidence of a method."""
    rows = evidence(method)
    if not rows:
        console.print("evidence: no evidence", highlight=False)
        return
    count = len(readings(method.id))
    console.print(
        f"evidence: {count} reading{'' if count == 1 else 's'}; predicted for a model that nobody measured, at {REFERENCE_CONTEXT:,} tokens"
    )
    console.print(_measured(rows))
    console.print(_said(rows))


def _measured(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("task", "question", "n", "models", "kept", "longest", "sources", box=None)
    for row in rows:
        if row["readings"]:
            names = ", ".join(row["sources"][:MOST_SHOWN]) + (f" and {more} more" if (more := len(row["sources"]) - MOST_SHOWN) > 0 else "")
            least, most = row["kept"]
            counts = (str(row["readings"]), str(row["models"]), f"{least:g}" if least == most else f"{least:.3g} to {most:.3g}")
            table.add_row(row["task"], row["question"] or "", *counts, f"{row['longest_context']:,.0f}", names)
    return table


def _said(rows: Sequence[dict[str, Any]]) -> Table:
    settings = [_setting(one) for one in rows[0]["predicted"]]
    table = Table("task", "question", "rests on", *settings, "spread: method, model, noise", box=None)
    for row in rows:
        cells = [f"{one['retained']:.3f} ({one['lower']:.3f} to {one['upper']:.3f})" for one in row["predicted"]]
        parts = ", ".join(f"{100 * row['spread'][name]:.0f} %" for name in ("method", "model", "noise"))
        table.add_row(row["task"], row["question"] or "", f"{row['readings']} of its own" if row["readings"] else "other tasks", *cells, parts)
    return table


def _setting(one: dict[str, Any]) -> str:
    return f"at {one['kept']:g}" if "kept" in one else f"k{one['key_bits']:g}v{one['value_bits']:g}"


def listed() -> list[tuple[str, str, str, str, str, str]]:
    """A row per method of the catalog: id, dimension, kind, readings, what runs it, what it is."""
    return [(one.id, one.dimension, one.pool or "-", _count(one), one.where, one.name) for one in load_all()]


def _count(method: MethodSpec) -> str:
    return str(len(readings(method.id)) or "no evidence")
