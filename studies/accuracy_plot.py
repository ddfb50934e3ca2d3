"""The picture of the study `accuracy`: predicted against measured accuracy, and how far off, dimension by dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.accuracy.publish import FITTED
from kvopt.plots.style import GREEN, GREY, INK, ORANGE, PURPLE, SKY, STYLE, VERMILLION
from studies.spread_plot import Spread, handles, spreads

COLOURS = (SKY, VERMILLION, GREEN, ORANGE, PURPLE)
MARKERS = ("o", "s", "^", "D", "v")
TITLES = {"series": "Left out: whole series", "model": "Left out: everything of a model"}
WAYS = {"series": "a series left out", "model": "a model left out"}
MOST = 119.0  # [%] of measured accuracy that is drawn


class Drawn(NamedTuple):
    """Left-out readings, `(readings,)` each: their dimension, and shares of accuracy kept."""

    dimension: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


def figure(found: Mapping[str, Drawn]) -> Figure:
    """A panel for each way of leaving out, a colour and marker for each dimension; then the errors by dimension."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.2 * len(found) + 4.6, 4.6), layout="constrained")
        panels = drawing.subplots(1, len(found) + 1, squeeze=False)[0]
        for axes, (way, one) in zip(panels, found.items(), strict=False):
            _points(axes, one)
            axes.set_title(TITLES.get(way, way), pad=22)
        panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.2, handletextpad=0.1, columnspacing=0.9, markerscale=1.8)
        _errors(panels[-1], found)
    return drawing


def _points(axes: Axes, one: Drawn) -> None:
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=3)
    for place, dimension in enumerate(FITTED):
        chosen = one.dimension == dimension
        if chosen.any():
            look: dict[str, Any] = {"color": COLOURS[place], "marker": MARKERS[place], "edgecolors": "none"}
            axes.scatter(100 * one.measured[chosen], 100 * one.predicted[chosen], s=8, alpha=0.45, label=dimension, rasterized=True, **look)
    axes.set(xlim=(-2, MOST), ylim=(-2, 102), xlabel="Measured accuracy kept [%]", ylabel="Predicted accuracy kept [%]")
    beyond = int(np.sum(100 * one.measured > MOST))
    if beyond:
        axes.annotate(f"{beyond} beyond", (1, 0.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7.5, color=GREY)
    axes.grid(True)


def _errors(axes: Axes, found: Mapping[str, Drawn]) -> None:
    groups: dict[str, dict[str, Spread]] = {}
    for name in ("all", *FITTED):
        chosen = {WAYS.get(way, way): 100 * (one.predicted - one.measured)[(one.dimension == name) | (name == "all")] for way, one in found.items()}
        some = {way: Spread.of(errors) for way, errors in chosen.items() if len(errors)}
        if some:
            groups[f"{name} ({len(next(iter(chosen.values()))):,})"] = some
    ways = [WAYS.get(way, way) for way in found]
    spreads(axes, groups, ways)
    axes.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0.8)
    axes.set_xlabel("Predicted less measured [points]\n(mark: median, thick: 25th to 75th,\nthin: 10th to 90th percentile)")
    axes.set_ylabel("Dimension (readings)")
    axes.set_title("Error by dimension", pad=22)
    axes.legend(handles=handles(ways), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, columnspacing=1.2)
