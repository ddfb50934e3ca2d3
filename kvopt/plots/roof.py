"""Prefill and decode against what the accelerator can do."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kvopt import wording
from kvopt.plots.frame import empty, headed
from kvopt.plots.rows import today, with_arithmetic
from kvopt.plots.style import BLUE, GREY, INK, VERMILLION, styled
from kvopt.results import Result

SIZE = (7.2, 4.6)  # [inch]
SHAPES = ("s", "o", "^")  # by the place of a piece of work: a prefill chunk, one request decoding, the plan's load decoding
REACH = 3.0  # times the outermost points that the axes go to
LOOKS: tuple[dict[str, Any], ...] = (
    {"markersize": 12, "markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.1, "zorder": 3},
    {"markersize": 9, "markerfacecolor": BLUE, "markeredgecolor": BLUE, "zorder": 4},
    {"markersize": 6, "markerfacecolor": VERMILLION, "markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 5},
)
"""How the points of each plan are drawn: sizes differ, so that none hides another."""
ROOFS: dict[str, dict[str, Any]] = {
    "peak": {"color": INK, "linestyle": "-", "linewidth": 1.4},
    "fitted efficiency": {"color": GREY, "linestyle": "--", "linewidth": 1.1},
}
MEANS = {"uncompressed": "large, hollow", "today": "medium", "plan": "medium", "research": "small"}


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    return any(_points(found) for _, found in with_arithmetic(result).values())


def roofline(result: Result, axes: Axes | None = None) -> Axes:
    """FLOP/s of one GPU over arithmetic intensity, both logarithmic: the accelerator's roof, what the engine reaches of it, and where prefill and decode lie.

    Points: a chunk of a prompt, one request decoding, and the plan's load decoding, of the uncompressed, today's and the research plan.
    Returns the axes, of a new figure where none are given.
    """
    rows = {name: found for name, (_, found) in with_arithmetic(result).items() if _points(found)}
    title = wording.question(result.data["scenario"])
    with styled(axes, SIZE) as axes:
        if not rows:
            return empty(axes, title, "The work of a step is not known.")
        axes.grid(True)
        axes.set(xscale="log", yscale="log", xlabel="Arithmetic intensity [FLOP/byte]", ylabel="Performance of one GPU [FLOP/s]")
        looks = dict(zip(("uncompressed", today(result), "research"), LOOKS, strict=True))
        every = np.array([at for found in rows.values() for at in _points(found)])
        roofs = list(dict.fromkeys(_roof(found["roofline"]) for found in rows.values()))
        _limits(axes, every, roofs)
        lines = [line for peaks in roofs for line in _roofs(axes, peaks)]
        for name, found in rows.items():
            for shape, at in zip(SHAPES, _points(found), strict=False):
                axes.plot(*at, linestyle="none", marker=shape, **looks[name])
        plans = [
            Line2D([], [], linestyle="none", marker="o", label=f"{name} ({MEANS[name]})" if len(rows) > 1 else name, **looks[name]) for name in rows
        ]
        works = [
            Line2D([], [], linestyle="none", marker=shape, color=INK, markersize=6, label=said)
            for shape, said in zip(SHAPES, _names(rows), strict=False)
        ]
        headed(axes, title, lines, plans, works)
        return axes


def _points(found: dict[str, Any]) -> list[tuple[float, float]]:
    """(FLOP/byte, FLOP/s) of every piece of work; empty where one is not known."""
    work = (found.get("roofline") or {}).get("work") or []
    if any(not entry.get(name) for entry in work for name in ("flop", "bytes", "seconds")):
        return []
    return [(entry["flop"] / entry["bytes"], entry["flop"] / entry["seconds"]) for entry in work]


def _roof(found: dict[str, Any]) -> tuple[float | None, ...]:
    return tuple(found.get(name) for name in ("peak_flops", "peak_bandwidth", "reached_flops", "reached_bandwidth"))


def _limits(axes: Axes, points: np.ndarray, roofs: list[tuple[float | None, ...]]) -> None:
    """Around the points, with the roof and the place where it turns."""
    x, y = list(points[:, 0]), list(points[:, 1])
    for flops, bandwidth, *_ in roofs:
        if flops and bandwidth:
            x.append(flops / bandwidth)
            y.append(flops)
    axes.set(xlim=(min(x) / REACH, max(x) * REACH), ylim=(min(y) / REACH, max(y) * REACH))


def _roofs(axes: Axes, peaks: tuple[float | None, ...]) -> list[Line2D]:
    """The roof at peak and the one that is reached; what they are, for a legend."""
    drawn = []
    ends = np.array(axes.get_xlim())
    pairs = ((peaks[0], peaks[1]), (peaks[2], peaks[3]))
    for (flops, bandwidth), (word, look) in zip(pairs, ROOFS.items(), strict=True):
        if flops and bandwidth:
            x = np.array([ends[0], flops / bandwidth, max(ends[1], flops / bandwidth)])
            said = f"{word}: {wording.number(flops / 1e12)} TFLOP/s, {wording.number(bandwidth / 1e12)} TB/s"
            drawn += axes.plot(x, np.minimum(flops, bandwidth * x), label=said, zorder=2, scalex=False, scaley=False, **look)
    return drawn


def _names(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What each shape is; where plans differ in a word, the words of all plans, in their order."""
    named = zip(*([entry["name"].split() for entry in found["roofline"]["work"]] for found in rows.values()), strict=False)
    return [" ".join(words[0] if len(set(words)) == 1 else " / ".join(words) for words in zip(*several, strict=False)) for several in named]
