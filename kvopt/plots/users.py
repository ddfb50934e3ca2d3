"""Who prefills, decodes, switches and thinks when: users over time, as a simulation played them (after Fig. 1 of arXiv 2405.08944)."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kvopt import wording
from kvopt.plots.frame import empty, headed
from kvopt.plots.style import BLUE, GREEN, INK, ORANGE, SKY, styled
from kvopt.results import Result

LOOKS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "prefill": ("prefill", 0.86, {"facecolor": BLUE}),
    "decode": ("decode", 0.86, {"facecolor": ORANGE, "hatch": "//////"}),
    "switch": ("cache on the link", 0.86, {"facecolor": "white", "edgecolor": GREEN, "hatch": "xxxxxx"}),
    "waiting": ("waiting for the engine", 0.86, {"facecolor": "white"}),
    "think-resident": ("thinking, cache in HBM", 0.34, {"facecolor": SKY}),
    "think-parked": ("thinking, cache in host memory", 0.34, {"facecolor": "white", "hatch": "......"}),
    "think-dropped": ("thinking, cache dropped", 0.06, {"facecolor": INK}),
}
"""By state: name, height in rows, and look. Who asks is drawn tall, who thinks thin; hatches tell the states apart without colour."""
BEGINS: dict[str, Any] = {"linestyle": "none", "marker": "v", "color": INK, "markersize": 3.2, "markeredgewidth": 0.0}
ROW = 0.15  # [inch]


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    return bool(result.data.get("timeline"))


def timeline(result: Result, axes: Axes | None = None) -> Axes:
    """A row for each user (of a trace or of random arrivals, each session) over time [s], of a result of `simulate`: what each does, and where its cache is.

    A mark stands where a session begins. Returns the axes, of a new figure where none are given.
    """
    rows, title = result.data.get("timeline") or [], wording.question(result.data["scenario"])
    with styled(axes, (7.2, 1.9 + max(ROW * len(rows), 1.0))) as axes:
        if not rows:
            return empty(axes, title, "No user was served.")
        used = [state for state in LOOKS if any(span[2] == state for row in rows for span in row["spans"])]
        for state in used:
            _, height, face = LOOKS[state]
            boxes = [_box(place, height, span) for place, row in enumerate(rows) for span in row["spans"] if span[2] == state]
            drawn = PolyCollection(boxes, zorder=2, **{"edgecolor": INK, "linewidth": 0.35, **face})
            drawn.set_gid(state)
            axes.add_collection(drawn, autolim=False)
        begins = [(time, place - 0.5) for place, row in enumerate(rows) for time in row.get("begins", ())]
        if begins:
            axes.plot(*zip(*begins, strict=True), **BEGINS, zorder=3, clip_on=False)
        end = max(span[1] for row in rows for span in row["spans"])
        axes.set(xlim=(0, end), ylim=(len(rows) - 0.4, -0.6), xlabel=f"Time{_since(result)} [s]", ylabel=_who(result))
        axes.xaxis.set_major_locator(MaxNLocator(8))
        step = max(1, -(-len(rows) // 15))
        axes.set_yticks(range(0, len(rows), step), [str(row["user"]) for row in rows[::step]])
        axes.tick_params(axis="y", length=0)
        handles: list[Patch | Line2D] = [Patch(label=LOOKS[state][0], **{"edgecolor": INK, "linewidth": 0.6, **LOOKS[state][2]}) for state in used]
        if begins:
            handles.append(Line2D([], [], label="a session begins", **BEGINS))
        headed(axes, title, handles)
        return axes


def _box(place: int, height: float, span: list[Any]) -> list[tuple[float, float]]:
    """The corners of a span in its row."""
    start, end, _ = span
    low, high = place - height / 2, place + height / 2
    return [(start, low), (end, low), (end, high), (start, high)]


def _since(result: Result) -> str:
    """Since when the time counts."""
    return " since the warm-up" if result.data["traffic"].get("warmup_s") else ""


def _who(result: Result) -> str:
    return "User" if result.data["traffic"]["kind"] == "users" else "Session"
