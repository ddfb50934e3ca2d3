"""The picture of the study `planners`: predicted over measured of both predictors, over the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kvopt.plots.style import STYLE
from studies.spread_plot import READ, Spread, handles, ratio_axis, spreads

WHO = ("kvopt", "aiconfigurator 0.12.0")
TITLES = {"ttft_s": "TTFT", "tpot_ms": "TPOT"}
ENDS = (0.1, 10.0)  # of the axis, at most: lines go on beyond it


def figure(errors: Mapping[str, Mapping[str, np.ndarray]], order: Sequence[str]) -> Figure:
    """`errors`: ln(predicted / measured) of both, `(rows, 2)`, by group of rows and by quantity; groups in this order."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(11.0, 1.3 + 0.31 * len(order)), layout="constrained")
        panels = drawing.subplots(1, len(TITLES), sharey=True)
        for axes, (quantity, title) in zip(panels, TITLES.items(), strict=True):
            groups = {
                f"{name} ({max(len(found) for found in errors[name].values())})": {
                    who: Spread.of(np.exp(errors[name][quantity][:, place])) for place, who in enumerate(WHO)
                }
                if quantity in errors[name]
                else {}
                for name in order
            }
            ends = np.array([(one.low, one.high) for found in groups.values() for one in found.values()]).reshape(-1, 2)
            spreads(axes, groups, WHO)
            ratio_axis(axes, max(ENDS[0], min(0.7, *ends[:, 0] / 1.05)), min(ENDS[1], max(1.5, *ends[:, 1] * 1.05)))
            axes.set_xlabel(f"Predicted over measured\n({READ})")
            axes.set_title(title, pad=22)
        panels[0].set_ylabel("Rows (number of readings)")
        panels[0].legend(handles=handles(WHO), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, columnspacing=1.4)
    return drawing
