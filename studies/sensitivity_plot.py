"""The picture of the study `sensitivity`: the tornado of one context, and which input is worth how much at which context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kvopt.plots import elasticities
from kvopt.plots.style import BLUE, INK, STYLE
from kvopt.plots.tornado import INPUTS
from kvopt.results import Result
from kvopt.wording import number

SHADES = LinearSegmentedColormap.from_list("worth", ["#ffffff", "#9ecae1", BLUE])
CORNER: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "fontsize": 7.5, "annotation_clip": False}
DARK = 0.62  # of the largest worth, above which a number is written in white


def figure(result: Result, rows: Sequence[Mapping[str, Any]], at: int) -> Figure:
    """The tornado of the result at `at` tokens; the elasticities of all contexts as a heat strip in the same order, with what one unit buys at `at`."""
    mine = [row for row in rows if row["context"] == at]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(14.5, 1.6 + 0.36 * len(mine)), layout="constrained")
        left, right = drawing.subplots(1, 2, width_ratios=(1.1, 1.25))
        elasticities(result, left)
        _strip(right, rows, mine)
    return drawing


def _price(row: Mapping[str, Any]) -> str:
    price = row["sessions/GPU-hour per unit"]
    said = row["sessions/GPU-hour per unit, ends"] if price is None else f"{price:+,.3g}" if price else "0"
    return f"{said} per {row['unit']}" if said and row["unit"] else ""


def _strip(axes: Axes, rows: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]]) -> None:
    """Each cell holds the elasticity for more of the input; a frame marks what is worth most at a context."""
    contexts, names = sorted({row["context"] for row in rows}), [row["input"] for row in mine]
    values = np.full((len(names), len(contexts)), np.nan)
    for row in rows:
        more = row["more"]
        if more is None and row["more, from"] is not None:
            more = (row["more, from"] + row["more, to"]) / 2
        values[names.index(row["input"]), contexts.index(row["context"])] = np.nan if more is None else more
    most = max(float(np.nanmax(np.abs(values))), 0.01)
    shown = axes.imshow(np.abs(values), cmap=SHADES, vmin=0, vmax=most, aspect="auto")
    shown.set_rasterized(True)
    rough = {(row["input"], row["context"]) for row in rows if row["more"] is None and row["more, from"] is not None}
    for (line, column), value in np.ndenumerate(values):
        text = "?" if np.isnan(value) else ("~" if (names[line], contexts[column]) in rough else "") + _signed(float(value))
        colour = "white" if abs(value) > DARK * most else INK
        axes.text(column, line, text, ha="center", va="center", fontsize=7.5, color=colour)
    for column in range(len(contexts)):
        if not np.all(np.isnan(values[:, column])):
            best = int(np.nanargmax(np.abs(values[:, column])))
            axes.add_patch(Rectangle((column - 0.47, best - 0.45), 0.94, 0.9, fill=False, edgecolor=INK, linewidth=1.8))
    axes.set_xticks(range(len(contexts)), [_tokens(context) for context in contexts])
    for line, row in enumerate(mine):
        axes.annotate(_price(row), (1.0, line), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=7.5)
    axes.annotate(f"one unit buys, at {_tokens(mine[0]['context'])}\n[sessions per GPU-hour]", (1.0, 1.0), (8, 4), **CORNER)
    axes.set_yticks(range(len(names)), [INPUTS.get(name, (name, ""))[0] for name in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="Context [tokens]")
    axes.set_title("Change of sessions per GPU-hour [%] for 1 % more; framed: worth most", pad=30)


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-3 else f"{value:+.2f}"


def _tokens(count: float) -> str:
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}K" if count >= 1e3 else number(count)
