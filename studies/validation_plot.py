"""The picture of the study `validation`: predicted over measured, by kind of reading and by what was left out of the fit."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kvopt.plots.style import STYLE
from studies.spread_plot import READ, Spread, handles, ratio_axis, spreads


def figure(errors: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """`errors`: ln(predicted / measured) of readings `(readings,)`, by kind of reading and by way of leaving out."""
    ways = list(dict.fromkeys(way for found in errors.values() for way in found))
    groups = {
        f"{kind} ({len(next(iter(found.values()))):,})": {way: Spread.of(np.exp(error)) for way, error in found.items()}
        for kind, found in errors.items()
    }
    ends = np.array([(one.low, one.high) for found in groups.values() for one in found.values()])
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(8.0, 1.2 + (0.2 + 0.07 * len(ways)) * len(groups)), layout="constrained")
        axes = drawing.subplots()
        spreads(axes, groups, ways)
        ratio_axis(axes, min(0.8, ends[:, 0].min() / 1.05), max(1.25, ends[:, 1].max() * 1.05))
        axes.set(xlabel=f"Predicted over measured\n({READ})", ylabel="Kind of reading (readings)")
        axes.set_title("kvopt against what others measured, by what its fit has not seen", pad=22)
        axes.legend(handles=handles(ways), loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, columnspacing=1.4)
    return drawing
