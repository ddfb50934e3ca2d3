"""Distributions side by side, as the studies of errors and losses draw them: one row a group, one mark a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt.plots.style import BLUE, GREEN, INK, VERMILLION

LOOKS: tuple[tuple[str, str], ...] = ((INK, "o"), (BLUE, "s"), (VERMILLION, "^"), (GREEN, "D"))
"""Colours that the colour-blind tell apart, and markers for grey paper, by the place of a series."""
READ = "mark: median, thick: 25th to 75th, thin: 10th to 90th percentile"
ROW = 0.8  # of a group's height that its series take
RATIOS = (0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 5, 10)


class Spread(NamedTuple):
    """Percentiles of something: 10th, 25th, median, 75th, 90th."""

    low: float
    lower: float
    middle: float
    upper: float
    high: float

    @classmethod
    def of(cls, values: Any) -> Spread:
        """Those of values `(n,)`, n at least 1."""
        return cls(*(float(value) for value in np.percentile(values, (10, 25, 50, 75, 90))))


def spreads(axes: Axes, groups: Mapping[str, Mapping[str, Spread]], series: Sequence[str]) -> None:
    """Draws the spreads of every group, by series; a group may lack some. The first group stands at the top. The legend stands above the axes."""
    step = ROW / len(series)
    for row, found in enumerate(groups.values()):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
        for place, name in enumerate(series):
            if name not in found:
                continue
            (colour, marker), one = looks(place), found[name]
            at = row + (place - (len(series) - 1) / 2) * step
            axes.plot([one.low, one.high], [at, at], color=colour, linewidth=0.9, solid_capstyle="butt")
            axes.plot([one.lower, one.upper], [at, at], color=colour, linewidth=2.6, solid_capstyle="butt")
            axes.plot(one.middle, at, color=colour, marker=marker, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


def handles(series: Sequence[str]) -> list[Line2D]:
    """What a legend shows for each series."""
    return [
        Line2D([], [], color=looks(place)[0], marker=looks(place)[1], linewidth=2.0, markeredgecolor="white", label=name)
        for place, name in enumerate(series)
    ]


def looks(place: int) -> tuple[str, str]:
    """Colour and marker of a series."""
    return LOOKS[place % len(LOOKS)]


def ratio_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis of ratios around 1, named at round ones."""
    axes.set(xscale="log", xlim=(low, high))
    span = high / low
    shown = [ratio for ratio in RATIOS if low <= ratio <= high and (span < 5 or ratio not in (0.8, 0.9, 1.1, 1.25))]
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.axvline(1, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0.8)
