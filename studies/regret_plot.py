"""The picture of the study `regret`: what the picks lose where they hold the limit, and how many exceed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots.style import BLUE, INK, STYLE


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The rows of the study's table, in their order; kvopt in ink, the other planner in blue and hatched."""
    names = [f"{row['groups']}\n{row['who picks']}, {row['picks']:,} picks" for row in rows]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10.0, 1.1 + 0.42 * len(rows)), layout="constrained")
        loss, over = drawing.subplots(1, 2, sharey=True, width_ratios=(1.4, 1.0))
        _losses(loss, rows)
        _over(over, rows)
        loss.set_yticks(range(len(rows)), names)
        loss.set_ylim(len(rows) - 0.5, -0.5)
        for axes in (loss, over):
            axes.tick_params(axis="y", length=0, pad=7)
            axes.grid(True, axis="x")
    return drawing


def _losses(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        if row["median loss %"] is None:
            axes.annotate("no pick holds its limit", (0, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
            continue
        colour, marker = (INK, "o") if row["who picks"] == "kvopt" else (BLUE, "s")
        axes.plot([row["median loss %"], row["90th pct loss %"]], [place, place], color=colour, linewidth=1.4, zorder=2)
        axes.plot(row["90th pct loss %"], place, color=colour, marker="|", markersize=9, markeredgewidth=1.4)
        axes.plot(row["median loss %"], place, color=colour, marker=marker, markersize=6, clip_on=False, zorder=3)
        text = f"{row['median loss %']:.2g} to {row['90th pct loss %']:.3g}"
        axes.annotate(text, (row["90th pct loss %"], place), (6, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    most = max((row["90th pct loss %"] or 0.0 for row in rows), default=1.0)
    axes.set(xlim=(0, 1.3 * max(most, 1.0)), xlabel="Throughput lost against the best measured setting [%]\n(mark: median, bar: 90th percentile)")
    axes.set_title("Loss of the picks that hold the TPOT limit")


def _over(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        ours, share = row["who picks"] == "kvopt", row["over the limit %"] or 0.0
        axes.barh(
            place, share, 0.55, facecolor="#bdbdbd" if ours else "white", edgecolor=INK if ours else BLUE, hatch="" if ours else "////", linewidth=0.8
        )
        by = f", by {row['by % (median)']:.2g} % (median)" if row["by % (median)"] is not None else ""
        axes.annotate(f"{share:.2g} %{by}", (share, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    most = max((row["over the limit %"] or 0.0 for row in rows), default=1.0)
    axes.set(xlim=(0, 2.2 * max(most, 1.0)), xlabel="Picks whose measured TPOT exceeds the limit [%]")
    axes.set_title("Picks over the limit")
