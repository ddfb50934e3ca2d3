"""What bounds a front: floor, targets and prefill ceiling as lines with captions, and the axes' limits, in which the near ones lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kvopt.plots.labels import Ground
from kvopt.plots.style import GREY, INK
from kvopt.wording import QUANTITIES, number

RATE, KEPT = "sessions_per_gpu_hour", "accuracy_retained"
DECADE = 10.0  # an axis is logarithmic where its range exceeds this
NEAR = 1.3  # a line is drawn up to this many times the highest point
PAD = 0.07  # of the range, free on either side
DOTTED, DASHED, CHAINED = (0, (1, 1.5)), "--", (0, (6, 2, 1, 2))
TARGETS = {"ttft_s": "TTFT", "tpot_s": "TPOT"}


@dataclass(frozen=True)
class Line:
    """A value of one axis, in its units, and how it is drawn; beyond the axis it is said as `beyond`."""

    goal: int
    value: float
    caption: str
    look: dict[str, Any]
    beyond: str = ""


def lines(goals: list[str], scenario: dict[str, Any], answer: dict[str, Any]) -> list[Line]:
    """The floor of the accuracy, the targets, and the prefill ceiling of today's plan, as far as they are on an axis."""
    found = []
    for goal, name in enumerate(goals[:2]):
        if name == KEPT:
            floor = 100 * scenario["accuracy_floor"]
            found.append(Line(goal, floor, f"floor {floor:g} %", {"color": INK, "linestyle": DOTTED}))
        elif name in TARGETS and scenario.get(name) is not None:
            value = scenario[name] * QUANTITIES[name].per_si
            asked = str(scenario.get(name.removesuffix("_s")) or "")
            percentile = f"{asked.partition(':')[0]} of " if ":" in asked else ""
            said = f"target: {percentile}{TARGETS[name]} {number(value)} {QUANTITIES[name].unit}"
            found.append(Line(goal, value, said, {"color": INK, "linestyle": CHAINED}, f"the {said.replace(': ', ', ')}, lies beyond the axis"))
    ceiling = (answer.get("metrics") or {}).get("prefill_ceiling_per_gpu_hour")
    if RATE in goals[:2] and ceiling is not None and not answer.get("infeasible"):
        beyond = f"the prefill ceiling of today's plan, {number(ceiling)} sessions per GPU-hour, lies beyond the axis"
        said = f"prefill ceiling of today's plan: {number(ceiling)}"
        found.append(Line(goals.index(RATE), ceiling, said, {"color": GREY, "linestyle": DASHED}, beyond))
    return found


def scale(axes: Axes, at: np.ndarray, goals: list[str], bounds: list[Line]) -> list[str]:
    """Sets scales and limits to the points `(n, 2 or 3)` and the lines near them. Returns what must be said in words instead."""
    notes = []
    for index, name in enumerate(goals[:2]):
        values, axis = at[:, index], (axes.xaxis, axes.yaxis)[index]
        for line in bounds:
            if line.goal == index and (name == KEPT or line.value <= NEAR * values.max()):
                values = np.append(values, line.value)
            elif line.goal == index:
                notes.append(line.beyond)
        low, high = float(values.min()), float(values.max())
        logarithmic = low > 0 and high > DECADE * low
        if logarithmic:
            reach = (high / low) ** PAD
            low, high = low / reach, high * reach
        else:
            reach = PAD * max(high - low, 0.02 * abs(high), 1e-9)
            low, high = low - reach, high + reach
        axes.set(**{f"{'xy'[index]}scale": "log" if logarithmic else "linear", f"{'xy'[index]}lim": (low, high)})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(8, steps=[1, 2, 5, 10]))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    return notes


def draw(axes: Axes, ground: Ground, line: Line) -> None:
    """One line across the axes with its caption where it covers least, unless it lies beyond them."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across = line.goal == 1
    if not (low if across else left) < line.value < (high if across else right):
        return
    ends = np.array([(left, line.value), (right, line.value)] if across else [(line.value, low), (line.value, high)])
    (axes.axhline if across else axes.axvline)(line.value, linewidth=1.0, zorder=2, **line.look)
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(ends[0]))
    spots = [(x, share, side, base) for share, base in ((0, "bottom"), (1, "top"), (0.5, "bottom")) for side in ("right", "left")]
    if across:
        spots = [(share, y, side, base) for base in ("bottom", "top") for share, side in ((0.0, "left"), (1.0, "right"), (0.5, "center"))]
    ground.caption(line.caption, spots, fontsize=8, color=INK)
    ground.add_line(ends)  # after its own caption, which keeps its distance
