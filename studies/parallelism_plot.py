"""The picture of the study `parallelism`: groupings by users per GPU for two models, with the copies of the cache that each holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots.style import BLUE, GREY, INK, STYLE

MOST = 14  # groupings of one model that are drawn: the best, and the last that serves anything
HEIGHT = 0.62
LIGHT = "#a6cee3"


def figure(rows: Sequence[Mapping[str, Any]], question: str) -> Figure:
    """A panel per model, the best groupings from above; hatched where every cache is held more than once. A number beside each bar says how often."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    shown = {model: _shown([row for row in rows if row["model"] == model]) for model in models}
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(11.5, 1.5 + 0.28 * max(map(len, shown.values()))), layout="constrained")
        for axes, (model, some) in zip(drawing.subplots(1, len(models), squeeze=False)[0], shown.items(), strict=True):
            _panel(axes, model, some)
        drawing.suptitle(question, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return drawing


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    served = [row for row in rows if row["users per GPU"]]
    return served if len(served) <= MOST else [*served[: MOST - 1], served[-1]]


def _panel(axes: Axes, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        copied = row["copies of the cache"] > 1.01
        look: dict[str, Any] = {"facecolor": LIGHT, "hatch": "////"} if copied else {"facecolor": BLUE}
        axes.barh(
            place, row["users per GPU"], HEIGHT, edgecolor=BLUE, linewidth=0.8, label="every cache copied" if copied else "every cache once", **look
        )
        copies = f", {row['copies of the cache']:.3g} copies" if copied else ""
        axes.annotate(
            f"{row['users per GPU']:.3g}{copies}",
            (row["users per GPU"], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_title(model, pad=20)
    axes.set_yticks(range(len(rows)), [row["grouping"] for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="Users per GPU")
    axes.margins(x=0.22)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    if not rows:
        axes.text(0.5, 0.5, "no grouping meets the targets", ha="center", transform=axes.transAxes, color=GREY)
        return
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
