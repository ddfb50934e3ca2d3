"""The picture of the study `peers`: what each optimizer still lacks of the best known hypervolume, against time, one panel a problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots.style import DPI, INK, STYLE
from studies.peers_table import OURS, Run, best_known, grouped, share_at

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#767676",
)  # Okabe and Ito's, which the colour-blind tell apart; kvopt has vermillion
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
OURS_COLOUR = "#D55E00"
LEAST = 1e-5  # a gap below this is drawn at it
STEPS = 200
PANEL = (5.4, 4.4)  # [inch]
LABEL = 0.042  # least distance of two labels, as a share of a panel's height


class Look(NamedTuple):
    """How a method is drawn."""

    color: str
    linestyle: Any  # a name, or (offset, dashes)
    linewidth: float


def figure(runs: Sequence[Run]) -> Figure:
    """Medians over seeds, from the lowest to the highest seed shaded; both axes logarithmic."""
    best = best_known(runs)
    names = sorted({run["method"] for run in runs} - {OURS})
    looks = {name: Look(COLOURS[place % len(COLOURS)], LINES[place // len(COLOURS) % len(LINES)], 1.2) for place, name in enumerate(names)}
    looks[OURS] = Look(OURS_COLOUR, "-", 2.2)
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(PANEL[0] * len(best), PANEL[1]), dpi=DPI, layout="constrained")
        panels = drawing.subplots(1, len(best), squeeze=False)[0]
        for axes, (problem, volume) in zip(panels, best.items(), strict=True):
            own = {method: some for (name, method), some in grouped(runs).items() if name == problem}
            _panel(axes, problem, own, volume, looks)
    return drawing


def _panel(axes: Axes, problem: str, own: dict[str, list[Run]], volume: float, looks: dict[str, Look]) -> None:
    end = max(run["seconds"] for some in own.values() for run in some)
    begin = min([run["curve"][0][0] for some in own.values() for run in some if run["curve"]], default=end / 10)
    at = np.geomspace(min(begin, end / 2), end, STEPS)
    ends: dict[str, float] = {}
    for method, some in own.items():
        gaps = np.array([[max(1 - share_at(run, volume, when), LEAST) for when in at] for run in some])
        look = looks[method]
        middle = np.median(gaps, axis=0)
        shown = (middle < 1) & (at <= max(run["seconds"] for run in some))
        axes.plot(at[shown], middle[shown], drawstyle="steps-post", zorder=3 if method == OURS else 2, **look._asdict())
        axes.fill_between(
            at, gaps.min(axis=0), gaps.max(axis=0), where=shown & (gaps.max(axis=0) < 1), step="post", color=look.color, alpha=0.12, linewidth=0
        )
        ends[method] = float(middle[-1])
    axes.set(xscale="log", yscale="log", xlim=(at[0], end), ylim=(LEAST / 1.3, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.set_title(problem)
    axes.set(xlabel="Time since the process was launched [s]", ylabel="Missing of the best known hypervolume")
    axes.grid(True)
    low, high = np.log(axes.get_ylim())
    heights = {method: (np.log(gap) - low) / (high - low) for method, gap in ends.items()}
    for method, height in apart(heights, LABEL).items():
        colour = looks[method].color
        axes.annotate(
            method,
            (1, heights[method]),
            (1.06, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=7.5,
            color=INK,
            fontweight="bold" if method == OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.4, "shrinkA": 1, "shrinkB": 0},
            annotation_clip=False,
        )


def apart(heights: dict[str, float], least: float) -> dict[str, float]:
    """Heights in [0, 1] moved as little as needed for no two to be nearer than `least`, their order kept."""
    names = sorted(heights, key=heights.__getitem__)
    placed = np.array([heights[name] for name in names])
    for _ in range(200):
        close = np.flatnonzero(np.diff(placed) < least - 1e-9)
        if not len(close):
            break
        for low in close:
            middle, half = placed[low : low + 2].mean(), least / 2
            placed[low], placed[low + 1] = middle - half, middle + half
        placed += max(0.0, -placed[0]) if placed[0] < 0 else min(0.0, 1 - placed[-1])
    return dict(zip(names, placed.tolist(), strict=True))
