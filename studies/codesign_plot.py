"""The picture of the study `codesign`: the least that so many users need, the ratio at which a long session costs what a short one does, the best card."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt.plots.style import BLUE, INK, ORANGE, STYLE
from kvopt.wording import number

Row = Mapping[str, Any]
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def figure(rows: Sequence[Row]) -> Figure:
    """A panel for each of the three questions, of the rows of the study's table: bars are factors, hatched where there is no answer by this alone."""
    kinds = {kind: [row for row in rows if kind in row["question"]] for kind in ("least for", "at the cost of", "best card")}
    titles = {
        "least for": "Least {rest}, one quantity at a time",
        "at the cost of": "{question}: ratio of compression",
        "best card": "Best card per {per}",
    }
    words = {"least for": "Times what is at hand", "at the cost of": "Ratio for equal GPU-hours", "best card": "Times the accelerator's"}
    sides = [[kind for kind in side if kinds[kind]] for side in (("least for", "best card"), ("at the cost of",))]
    most = max(sum(len(kinds[kind]) + 3 for kind in side) for side in sides)
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(13.0, 0.6 + 0.3 * most), layout="constrained")
        for part, side in zip(drawing.subfigures(1, len(sides), squeeze=False)[0], sides, strict=True):
            panels = part.subplots(len(side), 1, squeeze=False, height_ratios=[len(kinds[kind]) + 1 for kind in side])[:, 0]
            for axes, kind in zip(panels, side, strict=True):
                _panel(axes, kinds[kind], _beside if kind != "best card" else _changed)
                question = kinds[kind][0]["question"]
                axes.set_title(titles[kind].format(rest=question.removeprefix("least "), question=question, per=question.rsplit(" ", 1)[-1]))
                axes.set_xlabel(words[kind])
    return drawing


def _panel(axes: Axes, rows: Sequence[Row], say: Callable[[Row], str]) -> None:
    known = [row["times"] for row in rows if row["times"]]
    low, high = min([1.0, *known]), max([1.0, *known])
    left = 1 / 1.15 if low >= 1 else low / 1.3
    for place, row in enumerate(rows):
        times = row["times"]
        if times:
            axes.barh(place, times - 1, 0.62, left=1, facecolor=BLUE if times >= 1 else ORANGE, edgecolor=INK, linewidth=0.7)
        end = max(times or 1.0, 1.0)
        axes.annotate(say(row), (end, place), (5, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK, bbox=PAPER)
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    most = max(high, 2.0)
    axes.set(xscale="log", xlim=(left, most * (most / left) ** (0.3 if most > 100 else 1.2)))  # what is written beside the bars needs room
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="x")


def _name(row: Row) -> str:
    name = re.sub(r"^ratio, ", "", row["of"]).replace("; ", ", ")
    return f"{name} [{row['unit']}]" if row["unit"] else name


def _beside(row: Row) -> str:
    """The answer, or what remains."""
    if row["times"] is None:
        told = row["remark"]
        left = re.search(r"no ratio: (.*?) times the GPU-hours remain", told)
        most = re.search(r"at most (.*?) users", told)
        return f"no ratio: {left[1]} times the GPU-hours remain" if left else f"not by this alone: at most {most[1]} users" if most else told
    return _changed(row) + (f"; {row['remark']}" if row["question"].startswith("least") else "")


def _changed(row: Row) -> str:
    """From what to what."""
    if row["times"] is None:
        return str(row["remark"])
    if row["of"].startswith("ratio"):
        return f"{number(row['times'])}"
    return f"{number(row['at hand'])} to {number(row['answer'])}"
