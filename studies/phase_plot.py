"""The picture of the study `phase_diagram`: a panel for each share kept, colours for what binds, hatching where HBM is full, lines between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator
from scipy.ndimage import distance_transform_edt, label, zoom

from kvopt.plots.style import INK, STYLE
from studies.phase_grid import Plane

FACES = {
    "HBM capacity": "#0072B2",
    "HBM bandwidth (TPOT)": "#F0E442",
    "prefill FLOP/s (TTFT)": "#E69F00",
    "host memory": "#009E73",
    "host link": "#56B4E9",
    "max-num-seqs": "#CC79A7",
    "too slow": "#e4e4e4",
    "no HBM": "#8a8a8a",
}
"""The colours of Okabe and Ito, which the colour-blind tell apart; in grey the words in the regions do."""
WORDS = {
    "HBM capacity": "HBM",
    "HBM bandwidth (TPOT)": "TPOT",
    "prefill FLOP/s (TTFT)": "prefill",
    "host memory": "host\nmemory",
    "host link": "host\nlink",
    "max-num-seqs": "max-\nnum-seqs",
    "too slow": "too\nslow",
    "no HBM": "no\nHBM",
}
FINE = 8  # points drawn per cell and direction
ROOM = 0.055  # of the panel's height: the radius of a region that holds its name
TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h"}
HATCH = "////"


def figure(plane: Plane, masks: Mapping[str, np.ndarray], shares: Sequence[str], title: str) -> Figure:
    """Panels in one or two rows. `masks`: where each resource binds `(kept, think, context)`; HBM beside another resource is drawn as hatching on it."""
    across = 3 if len(shares) % 3 == 0 else min(len(shares), 2)
    down = -(-len(shares) // across)
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(0.9 + 4.2 * across, 1.4 + 2.9 * down), layout="constrained")
        drawing.suptitle(f"What binds: {title}", x=0.01, ha="left", fontsize=9.5, weight="bold")
        panels = drawing.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        used: set[str] = set()
        for place, share in enumerate(shares):
            axes = panels[place // across, place % across]
            used |= _panel(axes, plane, {name: mask[place] for name, mask in masks.items()})
            axes.set_title("whole cache kept" if share == "1" else f"{share} of the cache kept", fontsize=9)
        for spare in panels.ravel()[len(shares) :]:
            spare.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("Think time between turns [s]")
        for axes in panels.ravel()[max(len(shares) - across, 0) : len(shares)]:  # the lowest of every column
            axes.set_xlabel("Context [tokens]")
            axes.tick_params(labelbottom=True)
        drawing.legend(handles=_legend(used), loc="outside lower center", ncols=3)
    return drawing


def regions(masks: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The colour of every cell, a place in `FACES`, and whether HBM is full: HBM has a colour of its own only where nothing else binds."""
    names = list(FACES)
    face = np.full(masks["HBM capacity"].shape, names.index("HBM capacity"))
    for name in reversed(names[1:]):
        face[masks[name]] = names.index(name)
    return face, masks["HBM capacity"]


def _panel(axes: Axes, plane: Plane, masks: Mapping[str, np.ndarray]) -> set[str]:
    """Draws one panel; the resources that it shows."""
    names = list(FACES)
    face, full = regions(masks)
    tokens, times = (np.geomspace(ends[0], ends[-1], FINE * (len(ends) - 1) + 1) for ends in (plane.contexts, plane.thinks))
    smooth = {place: _finer(face == place) for place in np.unique(face)}
    drawn = np.array(list(smooth))[np.argmax(list(smooth.values()), axis=0)]
    axes.pcolormesh(
        tokens, times, drawn, cmap=ListedColormap(list(FACES.values())), vmin=-0.5, vmax=len(FACES) - 0.5, shading="nearest", rasterized=True
    )
    hatched = _finer(full) >= 0.5
    if hatched.any():
        axes.contourf(tokens, times, hatched, levels=[0.5, 1.5], colors="none", hatches=[HATCH])
    for place in smooth:
        if 0 < (drawn == place).mean() < 1:
            axes.contour(tokens, times, drawn == place, levels=[0.5], colors="white", linewidths=1.6)
            axes.contour(tokens, times, drawn == place, levels=[0.5], colors=INK, linewidths=0.7)
    if 0 < hatched.mean() < 1:
        axes.contour(tokens, times, hatched, levels=[0.5], colors=INK, linewidths=1.8)
    for place in smooth:
        parts, count = label(drawn == place)
        for part in range(1, count + 1):
            _word(axes, tokens, times, parts == part, WORDS[names[place]])
    _scales(axes, tokens, times)
    return {names[place] for place in smooth} | ({HATCH} if full.any() else set())


def _finer(mask: np.ndarray) -> np.ndarray:
    """A mask between its cells, linear in the logarithms of both axes: `FINE` points a cell."""
    rows, columns = mask.shape
    size = (FINE * (rows - 1) + 1, FINE * (columns - 1) + 1)
    return np.asarray(zoom(mask.astype(float), (size[0] / rows, size[1] / columns), order=1, grid_mode=False))


def _word(axes: Axes, tokens: np.ndarray, times: np.ndarray, region: np.ndarray, word: str) -> None:
    """The name of a region where it is widest, if it is wide enough."""
    inside = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    if inside[row, column] >= ROOM * len(times):
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2}
        axes.text(tokens[column], times[row], word, ha="center", va="center", fontsize=7.5, linespacing=1.0, color=INK, bbox=box)


def _scales(axes: Axes, tokens: np.ndarray, times: np.ndarray) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    powers = [2**power for power in range(64) if tokens[0] <= 2**power <= tokens[-1]]
    axes.set_xticks(powers[:: 1 + (len(powers) - 1) // 5])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 2**20:g}M" if value >= 2**20 else f"{value / 2**10:g}K"))
    marks = [time for time in TIMES if times[0] * 0.999 <= time <= times[-1] * 1.001]
    if marks:
        axes.set_yticks(marks, [f"{mark:,}" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlim=(tokens[0], tokens[-1]), ylim=(times[0], times[-1]))


def _legend(used: set[str]) -> list[Patch]:
    told = {"too slow": "serves nobody: one at a time misses a target", "no HBM": "serves nobody: HBM too small"}
    shown = [Patch(facecolor=FACES[name], edgecolor=INK, linewidth=0.6, label=told.get(name, name)) for name in FACES if name in used]
    if HATCH in used:
        shown.insert(0, Patch(facecolor="white", edgecolor=INK, hatch=HATCH, linewidth=1.4, label="HBM capacity full (thick line: its edge)"))
    return shown
