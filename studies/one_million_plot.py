"""The picture of the study `one_million`: the four metrics of 4K, of 1M, and of 1M with one lever after another, on logarithmic bars."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kvopt.inputs.scenario import Scenario
from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION
from kvopt.wording import number
from studies.one_million_levers import Stage

PANELS = (("KV cache per session [GiB]", 2.0**-30), ("Decoding one token [ms]", 1e3), ("Context switch [s]", 1.0), ("Prefill [s]", 1.0))
FEW = 100.0  # an axis that spans less than this has ticks at 2 and 5 as well
HEIGHT, ROW = 1.3, 0.3  # [inch] of a figure without bars, and of one bar


def figure(stages: Sequence[Stage], scenario: Scenario) -> Figure:
    """One panel a metric, one bar a stage, the short context's cost as a dashed line. The levers act together: each bar has those above it too."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(11.0, HEIGHT + ROW * len(stages)), layout="constrained")
        drawing.suptitle(
            f"{scenario.model}, {scenario.gpus} x {scenario.accelerator}: one lever after another", x=0.01, ha="left", fontsize=9.5, weight="bold"
        )
        panels = drawing.subplots(1, len(PANELS), sharey=True)
        places = np.arange(len(stages))
        colours = [BLUE, VERMILLION, *[GREY] * (len(stages) - 2)]
        for axes, column, (title, unit) in zip(panels, range(len(PANELS)), PANELS, strict=True):
            values = unit * np.array([stage.costs[column] for stage in stages])
            known = values[np.isfinite(values) & (values > 0)]
            axes.set_title(title, fontweight="normal", fontsize=9)
            if not len(known):
                axes.text(0.5, 0.5, "unknown", transform=axes.transAxes, ha="center")
                continue
            low, high = known.min() / 3, known.max()
            axes.barh(places, values, left=0, color=colours, height=0.66)
            axes.set(xscale="log", xlim=(low, high * (high / low) ** 0.42))
            axes.axvline(values[0], color=INK, linewidth=0.9, linestyle=(0, (5, 3)))
            for place, value in zip(places, values, strict=True):
                if np.isfinite(value):
                    axes.annotate(number(value), (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
            narrow = high / low < FEW
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(True, axis="x")
        panels[0].set_yticks(places, [stage.label for stage in stages])
        panels[0].invert_yaxis()
    return drawing
