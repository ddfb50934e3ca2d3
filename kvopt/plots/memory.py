"""One GPU's memory, as the engine divides it."""

from __future__ import annotations

from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvopt import wording
from kvopt.plots.frame import headed
from kvopt.plots.rows import ahead, answer_of, named, today
from kvopt.plots.style import SKY, VERMILLION, styled
from kvopt.report import LEDGER, memory
from kvopt.results import Result

GIB = 2.0**30
HEIGHT = 0.55  # of a bar, in rows
LEAST = 0.07  # share of the axis that a part needs to hold its number
FACES: dict[str, dict[str, Any]] = {
    "weights": {"facecolor": "#4d4d4d", "edgecolor": "#4d4d4d"},
    "reserve": {"facecolor": "#d9d9d9", "edgecolor": "#4d4d4d", "hatch": "////"},
    "caches": {"facecolor": SKY, "edgecolor": "#4d4d4d"},
    "left": {"facecolor": "white", "edgecolor": "#4d4d4d"},
}
"""How each part is drawn: told apart by lightness and hatch, without colour."""
WORDS = {"weights": "white"}  # colour of the number on a part; black on the others


def ledger(result: Result, axes: Axes | None = None) -> Axes:
    """One GPU's memory [GiB] as stacked bars: weights, the engine's reserve, caches in use and what is left; of the answer and the research optimum.

    Where the weights do not fit, what they need against what the engine may use. Returns the axes, of a new figure where none are given.
    """
    answer = answer_of(result)
    short = (answer.get("infeasible") or {}).get("ledger")
    research = ahead(answer)
    if short:
        rows: dict[str, dict[str, float | None]] = {"needed": {name: short[name] for name in ("weights", "reserve")}}
    else:
        rows = {named(today(result), answer): memory(answer)} | ({named("research", research): memory(research)} if research else {})
    with styled(axes, (7.2, 1.6 + 0.62 * len(rows))) as axes:
        _bars(axes, rows)
        handles: list[Artist] = [Patch(label=LEDGER[name], linewidth=0.8, **FACES[name]) for name in next(iter(rows.values()))]
        if short:
            look: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.6, "linestyle": (0, (4, 2))}
            axes.axvline(short["usable"] / GIB, color="white", linewidth=4)  # seen on what is dark
            axes.axvline(short["usable"] / GIB, **look)
            handles.append(Line2D([], [], label=f"{LEDGER['usable']}: {wording.bytes_(short['usable'])}", **look))
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Memory of one GPU that the engine may use [GiB]" if not short else "Memory of one GPU [GiB]")
        headed(axes, wording.question(result.data["scenario"]), handles)
        return axes


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    answer = answer_of(result)
    return bool((answer.get("infeasible") or {}).get("ledger") or (answer.get("plan") and answer.get("metrics")))


def _bars(axes: Axes, rows: dict[str, dict[str, float | None]]) -> None:
    """The parts of every row one after the other, each with its size where there is room for it; a part that is unknown is named beside the bar."""
    whole = max(sum(max(size or 0, 0) for size in sizes.values()) for sizes in rows.values()) / GIB or 1.0
    for row, sizes in enumerate(rows.values()):
        start = 0.0
        for name, size in sizes.items():
            width = max(size or 0, 0) / GIB
            axes.barh(row, width, HEIGHT, left=start, linewidth=0.8, **FACES[name])
            if width > LEAST * whole:
                box = {"facecolor": "#d9d9d9", "edgecolor": "none", "pad": 1.0} if name == "reserve" else None
                axes.text(start + width / 2, row, f"{width:.1f}", ha="center", va="center", color=WORDS.get(name, "black"), fontsize=8, bbox=box)
            start += width
        unknown = [LEDGER[name] for name, size in sizes.items() if size is None]
        if unknown:
            axes.text(start, row, f"  {wording.UNKNOWN}: {', '.join(unknown)}", va="center", fontsize=8)
    axes.set_xlim(0, 1.02 * whole)
