"""One GPU's memory, as the engine divides it."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kvopt import wording
from kvopt.plots.style import BLUE, VERMILLION, styled
from kvopt.report import LEDGER, memory
from kvopt.results import Result

GIB = 2.0**30
HEIGHT = 0.55  # of a bar, in rows
LEAST = 0.07  # share of the axis that a part needs to hold its number
FACES: dict[str, dict[str, Any]] = {
    "weights": {"facecolor": "#4d4d4d", "edgecolor": "#4d4d4d"},
    "reserve": {"facecolor": "#d9d9d9", "edgecolor": "#4d4d4d", "hatch": "////"},
    "caches": {"facecolor": BLUE, "edgecolor": BLUE},
    "left": {"facecolor": "white", "edgecolor": "#4d4d4d"},
}
"""How each part is drawn: told apart by lightness and hatch, without colour."""
WORDS = {"weights": "white", "caches": "white"}  # colour of the number on a part; black on the others


def ledger(result: Result, axes: Axes | None = None) -> Axes:
    """One GPU's memory [GiB] as stacked bars: weights, the engine's reserve, caches in use and what is left; of the answer and the research optimum.

    Where the weights do not fit, what they need against what the engine may use. Returns the axes, of a new figure where none are given.
    """
    answer = result.data.get("answer") or result.data
    short = (answer.get("infeasible") or {}).get("ledger")
    research = answer.get("research") or {}
    rows: dict[str, dict[str, float | None]] = {_named(result, answer): memory(answer)}
    if short:
        rows = {"needed": {name: short[name] for name in ("weights", "reserve")}}
    if not short and research.get("plan") and research["plan"] != answer["plan"]:
        rows[f"research:\n{_methods(research)}"] = memory(research)
    with styled(axes, (7.2, 1.6 + 0.62 * len(rows))) as axes:
        axes.set_title(textwrap.fill(wording.question(result.data["scenario"]), 88), pad=26)
        _bars(axes, rows)
        if short:
            said = f"{LEDGER['usable']}: {wording.bytes_(short['usable'])}"
            axes.axvline(short["usable"] / GIB, color=VERMILLION, linewidth=1.6, linestyle=(0, (4, 2)), label=said)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Memory of one GPU that the engine may use [GiB]" if not short else "Memory of one GPU [GiB]")
        handles, labels = axes.get_legend_handles_labels()
        shown = dict(sorted(zip(labels, handles, strict=True), key=lambda entry: isinstance(entry[1], Line2D)))
        axes.legend(shown.values(), shown.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.2, handlelength=1.4)
        return axes


def _named(result: Result, answer: dict[str, Any]) -> str:
    return f"{'plan' if result.kind == 'analyze' else 'today'}:\n{_methods(answer)}"


def _methods(point: dict[str, Any]) -> str:
    return textwrap.fill(wording.methods(point["plan"]), 22)


def _bars(axes: Axes, rows: dict[str, dict[str, float | None]]) -> None:
    """The parts of every row one after the other, each with its size where there is room for it; a part that is unknown is named beside the bar."""
    whole = max(sum(max(size or 0, 0) for size in sizes.values()) for sizes in rows.values()) / GIB or 1.0
    for row, sizes in enumerate(rows.values()):
        start = 0.0
        for name, size in sizes.items():
            width = max(size or 0, 0) / GIB
            axes.barh(row, width, HEIGHT, left=start, linewidth=0.8, label=LEDGER[name], **FACES[name])
            if width > LEAST * whole:
                box = {"facecolor": "#d9d9d9", "edgecolor": "none", "pad": 1.0} if name == "reserve" else None
                axes.text(start + width / 2, row, f"{width:.1f}", ha="center", va="center", color=WORDS.get(name, "black"), fontsize=8, bbox=box)
            start += width
        unknown = [LEDGER[name] for name, size in sizes.items() if size is None]
        if unknown:
            axes.text(start, row, f"  {wording.UNKNOWN}: {', '.join(unknown)}", va="center", fontsize=8)
    axes.set_xlim(0, 1.02 * whole)
