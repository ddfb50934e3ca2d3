"""The fronts of a result over two or three objectives."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kvopt import wording
from kvopt.plots.labels import Ground
from kvopt.plots.style import BLUE, GREY, INK, VERMILLION, styled
from kvopt.results import Result
from kvopt.wording import QUANTITIES, number

SIZE = (7.2, 4.8)  # [inch]
RATE, KEPT, LOWER = "sessions_per_gpu_hour", "accuracy_retained", "accuracy_lower"
FRONTS: dict[str, dict[str, Any]] = {
    "research": {"color": VERMILLION, "marker": "o", "linestyle": (0, (5, 2)), "markersize": 4.0, "zorder": 3},
    "deployable": {"color": BLUE, "marker": "s", "linestyle": "-", "markersize": 5.0, "zorder": 3.5},
}
"""How each front is drawn: colours for the colour-blind, markers and lines for grey paper."""
NAMES = {"deployable": "deployable today", "research": "research"}
MARKS: dict[str, dict[str, Any]] = {
    "baseline": {"marker": "*", "markersize": 12, "markerfacecolor": "#F0E442", "markeredgecolor": INK, "markeredgewidth": 0.8, "zorder": 5},
    "answer": {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.1, "zorder": 5},
}
"""How the points with a name are drawn."""
PAPER = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}  # behind a label, so that bars do not run through it
DECADE = 10.0  # an axis is logarithmic where its range exceeds this
NEAR = 1.3  # the prefill ceiling is drawn up to this many times the highest point
PAD = 0.07  # of the range, free on either side

Place = list[float]
Points = dict[str, list[dict[str, Any]]]
Marks = list[tuple[str, Place, str]]


def front(result: Result, axes: Axes | None = None) -> Axes:
    """The fronts over two or three objectives (the third as colour), with floor, prefill ceiling, baseline and recommended answers.

    Accuracy lies on x where it is an objective; otherwise the objectives are x, y and colour in their order. Bars reach from the accuracy kept
    to its lower end; a point whose lower end is below the floor is hollow. Returns the axes, of a new figure where none are given.
    """
    data, scenario, answer = result.data, result.data["scenario"], result.data.get("answer") or {}
    goals = sorted(data["objectives"], key=lambda name: name != KEPT)
    fronts = {label: [point for point in data["points"] if point["front"] == label and place(point["metrics"], goals)] for label in FRONTS}
    with styled(axes, SIZE) as axes:
        axes.set_title(textwrap.fill(wording.question(scenario), 88))
        axes.set(xlabel=QUANTITIES[goals[0]].axis, ylabel=QUANTITIES[goals[1]].axis)
        if not any(fronts.values()):
            return _empty(axes, answer)
        axes.grid(True)
        marks = _marks(answer, goals)
        places = [place(point["metrics"], goals) or [] for points in fronts.values() for point in points] + [at for _, at, _ in marks]
        notes = _scale(axes, np.array(places), goals, scenario, answer)
        if notes:
            axes.set_xlabel("\n".join([QUANTITIES[goals[0]].axis, *(line for note in notes for line in textwrap.wrap(note, 100))]))
        (_coloured if len(goals) == 3 else _lines)(axes, fronts, goals, scenario)
        for _, at, kind in marks:
            axes.plot(*at[:2], linestyle="none", **MARKS[kind])
        _legend(axes, fronts, goals, scenario)
        _label(axes, fronts, goals, scenario, answer, marks)
        return axes


def place(metrics: dict[str, Any] | None, goals: list[str]) -> Place | None:
    """Where a point lies, in the units of the axes; `None` where something is unknown or nothing is served."""
    values = [(metrics or {}).get(name) for name in goals]
    if not metrics or metrics.get(RATE) == 0 or any(value is None for value in values):
        return None
    return [value * QUANTITIES[name].per_si for value, name in zip(values, goals, strict=True) if value is not None]


def _empty(axes: Axes, answer: dict[str, Any]) -> Axes:
    """What is said where there is no front."""
    reason = (answer.get("infeasible") or {}).get("reason", "no plan meets the targets").partition("; per GPU")[0]
    axes.text(0.5, 0.5, textwrap.fill(f"No points: {reason}", 60), ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    return axes


def _marks(answer: dict[str, Any], goals: list[str]) -> Marks:
    """The points that are named: (name, place, kind)."""
    base, research = answer.get("baseline") or {}, answer.get("research") or {}
    kinds = [("uncompressed", {"metrics": base}, "baseline")]
    if answer.get("plan") and not answer.get("infeasible"):
        kinds.append(("today", answer, "answer"))
    if research.get("plan") and research["plan"] != answer.get("plan"):
        kinds.append(("research", research, "answer"))
    found = []
    for name, point, kind in kinds:
        at = place(point["metrics"], goals)
        if at is None:
            continue
        if kind == "answer":
            more = f", {wording.times(point['metrics'][RATE], base[RATE])}" if RATE in goals and base.get(RATE) else ""
            name = textwrap.fill(f"{name}: {wording.methods(point['plan'])}{more}", 38)
        found.append((name, at, kind))
    return found


def _ceiling(goals: list[str], answer: dict[str, Any]) -> float | None:
    """[sessions per GPU-hour] the ceiling of today's plan, where the rate is on an axis and there is such a plan."""
    served = RATE in goals[:2] and not answer.get("infeasible")
    return (answer.get("metrics") or {}).get("prefill_ceiling_per_gpu_hour") if served else None


def _scale(axes: Axes, at: np.ndarray, goals: list[str], scenario: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Sets scales and limits, with the floor and, where it is near, the ceiling within them. Returns what must be said in words instead."""
    notes = [] if place(answer.get("baseline"), goals) or "baseline" not in answer else ["uncompressed, nothing is served within the targets"]
    ceiling = _ceiling(goals, answer)
    for index, name in enumerate(goals[:2]):
        values, axis = at[:, index], (axes.xaxis, axes.yaxis)[index]
        if name == KEPT:
            values = np.append(values, 100 * scenario["accuracy_floor"])
        if name == RATE and ceiling is not None and ceiling <= NEAR * values.max():
            values = np.append(values, ceiling)
        elif name == RATE and ceiling is not None:
            notes.append(f"the prefill ceiling of today's plan, {number(ceiling)} sessions per GPU-hour, lies beyond the axis")
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


def _holds(point: dict[str, Any], scenario: dict[str, Any]) -> bool:
    return (point["metrics"][LOWER] or 0) >= scenario["accuracy_floor"]


def _lines(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any]) -> None:
    """Each front as a line through its points, filled where the floor holds, with the interval of the accuracy behind them."""
    for label, points in fronts.items():
        look = FRONTS[label]
        if not points:
            continue
        at = np.array([place(point["metrics"], goals) for point in points])
        if goals[0] == KEPT:
            lower = 100 * np.array([point["metrics"][LOWER] if point["metrics"][LOWER] is not None else np.nan for point in points])
            axes.hlines(at[:, 1], lower, at[:, 0], color=look["color"], alpha=0.25, linewidth=0.8, zorder=1.5)
        order = np.argsort(at[:, 0], kind="stable")
        axes.plot(*at[order].T, color=look["color"], linestyle=look["linestyle"], zorder=look["zorder"] - 0.5)
        for holds in (False, True):
            some = np.array([_holds(point, scenario) == holds for point in points])
            face = look["color"] if holds else "white"
            kind = {"marker": look["marker"], "markersize": look["markersize"], "zorder": look["zorder"]}
            axes.plot(*at[some].T, linestyle="none", color=look["color"], markerfacecolor=face, **kind)


def _coloured(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any]) -> None:
    """The points of each front with its marker, the third objective as colour."""
    third = QUANTITIES[goals[2]]
    values = np.array([place(point["metrics"], goals) for points in fronts.values() for point in points])[:, 2]
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high > DECADE * low
    norm = (LogNorm if logarithmic else Normalize)(low, high if high > low else low + max(abs(low), 1e-9) * 0.01)
    drawn = None
    for label, points in fronts.items():
        if not points:
            continue
        at = np.array([place(point["metrics"], goals) for point in points])
        edges = [INK if _holds(point, scenario) else "#b0b0b0" for point in points]
        look = {"marker": FRONTS[label]["marker"], "zorder": FRONTS[label]["zorder"]}
        drawn = axes.scatter(at[:, 0], at[:, 1], c=at[:, 2], s=36, norm=norm, cmap="cividis", edgecolors=edges, linewidths=0.8, **look)
    figure = axes.get_figure(root=True)
    if figure is not None and drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, label=third.axis)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any]) -> None:
    """Above the axes, where it covers nothing; the title makes room for it."""
    coloured = len(goals) == 3
    handles = []
    for label in ("deployable", "research"):
        look = FRONTS[label]
        drawn = {"color": INK if coloured else look["color"], "linestyle": "none" if coloured else look["linestyle"], "marker": look["marker"]}
        if fronts[label]:
            handles.append(Line2D([], [], label=NAMES[label], markerfacecolor="white" if coloured else look["color"], **drawn))
    points = [point for several in fronts.values() for point in several]
    if not all(_holds(point, scenario) for point in points):
        edge, what = ("#b0b0b0", "grey edge") if coloured else (INK, "hollow")
        said = f"{what}: accuracy, at its lower end, below the floor"
        handles.append(Line2D([], [], linestyle="none", marker="o", color=edge, markerfacecolor="white", label=said))
    if goals[0] == KEPT and not coloured:
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=f"bar: to the lower end at {100 * scenario['confidence']:g} % confidence"))
    columns = 2  # more do not fit beside a colourbar
    axes.set_title(axes.get_title(loc="left"), pad=11 + 13 * -(-len(handles) // columns))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, borderaxespad=0.2, handlelength=2.8, columnspacing=2)


def _label(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any], answer: dict[str, Any], marks: Marks) -> None:
    """Floor and ceiling with their captions, then the names of the named points, where they cover nothing."""
    ground = Ground(axes)
    left, _ = axes.get_xlim()
    for points in fronts.values():
        at = np.array([place(point["metrics"], goals) for point in points]).reshape(len(points), len(goals))[:, :2]
        ground.add_points(at)
        if len(goals) == 2:
            ground.add_line(at[np.argsort(at[:, 0], kind="stable")])
        for point, (x, y) in zip(points, at if goals[0] == KEPT and len(goals) == 2 else [], strict=False):
            ground.add_line(np.array([(max(100 * (point["metrics"][LOWER] or 0), left), y), (x, y)]), weight=0.2)
    for _, mark, _ in marks:
        ground.add_points(np.array([mark[:2]]), radius=7)
    if goals[0] == KEPT:
        _floor(axes, ground, 100 * scenario["accuracy_floor"])
    ceiling = _ceiling(goals, answer)
    if ceiling is not None:
        _ceiling_line(axes, ground, goals, ceiling)
    for label, mark, _ in marks:
        ground.name(label, (mark[0], mark[1]), fontsize=8, color=INK, zorder=6, bbox=PAPER)


def _floor(axes: Axes, ground: Ground, floor: float) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    axes.axvline(floor, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=2)
    ground.add_line(np.array([(floor, low), (floor, high)]))
    x = (floor - left) / (right - left)
    ground.caption(
        f"floor {floor:g} %", [(x, y, side, base) for y, base in ((0, "bottom"), (1, "top")) for side in ("right", "left")], fontsize=8, color=INK
    )


def _ceiling_line(axes: Axes, ground: Ground, goals: list[str], ceiling: float) -> None:
    """Across the axis of the rate, where it is within the limits."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across = goals[1] == RATE
    if ceiling >= (high if across else right):
        return
    ends = np.array([(left, ceiling), (right, ceiling)] if across else [(ceiling, low), (ceiling, high)])
    (axes.axhline if across else axes.axvline)(ceiling, color=GREY, linewidth=1.0, linestyle="--", zorder=2)
    ground.add_line(ends)
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(ends[0]))
    spots = [(x, share, "right", base) for share, base in ((1.0, "top"), (0.0, "bottom"))]
    if across:
        spots = [(share, y, side, base) for base in ("bottom", "top") for share, side in ((0.0, "left"), (1.0, "right"), (0.5, "center"))]
    ground.caption(f"prefill ceiling of today's plan: {number(ceiling)}", spots, fontsize=8, color=INK)
