"""The picture of the study `architecture`: KV bytes of a session, users per GPU and cost over the context, one line a kind of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from kvopt.plots.style import STYLE
from kvopt.wording import tokens

LINES: dict[str, dict[str, Any]] = {
    "MHA": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "GQA": {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    "shared layers": {"color": "#56B4E9", "marker": "D", "linestyle": "--"},
    "MQA": {"color": "#0072B2", "marker": "v", "linestyle": ":"},
    "MLA": {"color": "#D55E00", "marker": "^", "linestyle": "-"},
    "MLA + DSA": {"color": "#D55E00", "marker": "P", "linestyle": "--"},
    "windows 5:1": {"color": "#009E73", "marker": "<", "linestyle": "-"},
    "windows only": {"color": "#009E73", "marker": ">", "linestyle": ":"},
    "linear 3:1": {"color": "#CC79A7", "marker": "X", "linestyle": "-"},
    "Mamba 7:1": {"color": "#CC79A7", "marker": "*", "linestyle": "--"},
}
"""How each architecture is drawn: told apart by marker and dash where colours are not seen."""
ROOM = 0.05  # of the height of an axis, between the names at its right edge
PANELS = (
    ("KV GiB/session", "KV cache per session [GiB]"),
    ("users/GPU", "Users per GPU"),
    ("times its shortest", "GPU-hours per session [times its own at the shortest context]"),
)


def figure(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Three panels over the context; each line is named at its end. What serves nobody ends before."""
    names = list(dict.fromkeys(row["attention"] for row in rows))
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(13.0, 4.7), layout="constrained")
        drawing.suptitle(f"One model under {len(names)} kinds of attention: {title}", x=0.01, ha="left", fontsize=9.5, weight="bold")
        for axes, (column, label) in zip(drawing.subplots(1, len(PANELS)), PANELS, strict=True):
            ends: list[tuple[str, float]] = []
            for name in names:
                points = [(row["context"], row[column]) for row in rows if row["attention"] == name and row[column]]
                if points:
                    axes.plot(*zip(*points, strict=True), **LINES[name], markersize=5, linewidth=1.1)
                    ends.append((name, points[-1][1]))
            _scales(axes, sorted({row["context"] for row in rows}), label)
            _named(axes, ends)
    return drawing


def _scales(axes: Axes, contexts: Sequence[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(contexts[:: 1 + len(contexts) // 6])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda length, _: tokens(length)))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="Context [tokens]", ylabel=label)
    axes.grid(True)


def _named(axes: Axes, ends: Sequence[tuple[str, float]]) -> None:
    """The names at the right edge, in the order of the lines' ends, none over another; a thin line leads from each to its end."""
    low, high = np.log(axes.get_ylim())
    order = sorted(ends, key=lambda end: end[1])
    places = apart(np.array([(np.log(value) - low) / (high - low) for _, value in order]), ROOM)
    for (name, value), place in zip(order, places, strict=True):
        style = LINES[name]
        axes.annotate(
            name,
            xy=(1.0, (np.log(value) - low) / (high - low)),
            xytext=(1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=7.5,
            color=style["color"],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def apart(places: np.ndarray, least: float) -> np.ndarray:
    """Rising places moved as little as it takes to stand `least` apart, inside 0 to 1 where they fit."""
    found = np.array(places, float)
    for _ in range(200):
        gaps = np.diff(found)
        close = gaps < least - 1e-9
        if not close.any():
            break
        push = np.where(close, (least - gaps) / 2, 0.0)
        found[:-1] -= push
        found[1:] += push
        found += max(0.0, -float(found[0])) - max(0.0, float(found[-1]) - 1)
    return found
