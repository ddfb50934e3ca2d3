"""The picture of the study `bounds`: how far plans are from the best of everything tried and from the bound, and the gaps of fronts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots.style import BLUE, INK, STYLE, VERMILLION

LEAST = 1e-6  # [%] a gap below this is rounding, and drawn at it
SERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gap %": ("bound over what is found", {"color": BLUE, "marker": "o", "linestyle": "-"}),
    "below everything tried %": (
        "everything tried over what is found",
        {"color": VERMILLION, "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    ),
}
Row = Mapping[str, Any]


def figure(rows: Sequence[Row]) -> Figure:
    """At the left the gaps of uniform scenarios, sorted; at the right the median and the worst gap of every front, where there are any."""
    uniform = [row for row in rows if row["plan"] == "uniform"]
    fronts = [row for row in rows if row["plan"] != "uniform"]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(11.5 if fronts else 5.4, 3.9), layout="constrained")
        panels = drawing.subplots(1, 2 if fronts else 1, squeeze=False)[0]
        if uniform:
            _sorted(panels[0], uniform)
        if fronts:
            _fronts(panels[1], fronts)
    return drawing


def _sorted(axes: Axes, uniform: Sequence[Row]) -> None:
    share = 100 * (np.arange(len(uniform)) + 1) / len(uniform)
    for column, (label, look) in SERIES.items():
        gaps = np.sort([max(row[column], LEAST) for row in uniform])
        axes.plot(gaps, share, drawstyle="steps-post", label=f"{label}: at most {gaps[-1]:.2g} %", **look)
    axes.set(xscale="log", ylim=(0, 104), xlabel="Gap [%]", ylabel="Scenarios with no larger a gap [%]")
    _named(axes)
    axes.set_title(f"One plan for the whole model: {len(uniform)} scenarios", pad=36)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=2.4)
    axes.grid(True)


def _fronts(axes: Axes, fronts: Sequence[Row]) -> None:
    for place, row in enumerate(fronts):
        middle, worst = (max(row[column], LEAST) for column in ("gap %", "worst gap %"))
        axes.plot([middle, worst], [place, place], color=BLUE, linewidth=1.4, zorder=2)
        axes.plot(middle, place, color=BLUE, marker="o", markersize=5.5, linestyle="none", label="median point" if place == 0 else None)
        look: dict[str, Any] = {"markerfacecolor": "white", "marker": "D", "markersize": 5.0, "linestyle": "none"}
        axes.plot(worst, place, color=VERMILLION, label="worst point" if place == 0 else None, **look)
        axes.annotate(f"{worst:.2g} %", (worst, place), (6, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    names = [f"{row['plan']}, {row['variables']:,} variables:\n{textwrap.fill(row['scenario'], 42, break_on_hyphens=False)}" for row in fronts]
    axes.set_yticks(range(len(fronts)), names, fontsize=7.5)
    axes.set_ylim(len(fronts) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set(xscale="log", xlabel="Bound over what is found [%]")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.12)
    _named(axes)
    axes.set_title("Plans by layer and by head: fronts", pad=36)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handletextpad=0.3)
    axes.grid(True, axis="x")


def _named(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda gap, _: "≤ $10^{-6}$" if gap <= LEAST * 1.01 else f"{gap:.10f}".rstrip("0").rstrip("."))
