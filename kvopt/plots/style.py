"""The one style of all pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 200
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "savefig.dpi": "figure",
    "svg.hashsalt": "kvopt",  # the same result gives the same file
}
"""Matplotlib settings, for `matplotlib.rc_context`."""
BLUE, VERMILLION, INK, GREY = "#0072B2", "#D55E00", "#222222", "#767676"  # the colours that the colour-blind tell apart (Okabe and Ito)
SKY, ORANGE, GREEN, YELLOW, PURPLE = "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7"  # the others of them


@contextmanager
def styled(axes: Axes | None, size: tuple[float, float]) -> Iterator[Axes]:
    """The style while something is drawn, on the given axes or on those of a new figure of `size` [inch]."""
    with mpl.rc_context(STYLE):
        if axes is not None:
            yield axes
            return
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.add_subplot()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels were placed in this layout: it stays
