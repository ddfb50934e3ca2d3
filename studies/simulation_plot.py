"""The picture of the study `simulation`: every quantity as simulated against the closed form, with the band that is called agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt.plots.style import BLUE, GREEN, GREY, STYLE, VERMILLION

QUANTITIES = {"sessions": ("sessions/GPU-h", "Sessions per GPU-hour"), "TPOT": ("TPOT ms", "TPOT [ms]"), "TTFT": ("TTFT s", "TTFT, mean [s]")}
LOOKS = {"dense": (BLUE, "o"), "MoE": (VERMILLION, "^"), "MLA": (GREEN, "D")}
Row = Mapping[str, Any]


def figure(rows: Sequence[Row], within: Mapping[str, float]) -> Figure:
    """One panel a quantity, one point a scenario; `within`: the relative difference of a quantity that is called agreement."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.2 * len(QUANTITIES), 4.5), layout="constrained")
        panels = drawing.subplots(1, len(QUANTITIES))
        for axes, (name, (column, title)) in zip(panels, QUANTITIES.items(), strict=True):
            _panel(axes, rows, name, column, within[name])
            axes.set_title(title, pad=22)
            axes.set(xlabel=f"Closed form: {title}", ylabel="Simulated")
        panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handletextpad=0.3, columnspacing=1.2)
    return drawing


def _panel(axes: Axes, rows: Sequence[Row], name: str, column: str, within: float) -> None:
    said = np.array([row[column] for row in rows], float)
    simulated = said * np.array([row[name] for row in rows], float)
    ends = np.array([min(said.min(), simulated.min()) / 1.5, max(said.max(), simulated.max()) * 1.5])
    axes.fill_between(ends, ends * (1 - within), ends * (1 + within), color="#dddddd", linewidth=0, zorder=0.5)
    axes.plot(ends, ends, color=GREY, linewidth=0.8, zorder=1)
    for kind, (colour, marker) in LOOKS.items():
        some = np.array([row["kind"] == kind for row in rows])
        if some.any():
            look: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "linestyle": "none",
                "markeredgecolor": "white",
                "markeredgewidth": 0.5,
                "markersize": 6,
            }
            axes.plot(said[some], simulated[some], label=kind, **look)
    inside = int(np.sum(np.abs(simulated / said - 1) <= within))
    told = f"{inside} of {len(rows)} within {100 * within:.0f} %"
    axes.annotate(told, (0.03, 0.97), xycoords="axes fraction", ha="left", va="top", fontsize=8)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True)
