"""The fronts of a result over two or three objectives."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt import wording
from kvopt.plots import limits
from kvopt.plots.binding import Kind, Marker, binding, markers, said
from kvopt.plots.frame import empty, headed
from kvopt.plots.labels import Ground
from kvopt.plots.limits import DECADE, KEPT, RATE
from kvopt.plots.style import BLUE, INK, VERMILLION, styled
from kvopt.results import Result
from kvopt.wording import QUANTITIES

SIZE = (7.2, 5.2)  # [inch]
LOWER = "accuracy_lower"
FRONTS: dict[str, dict[str, Any]] = {
    "research": {"color": VERMILLION, "linestyle": (0, (5, 2)), "linewidth": 1.2, "markersize": 5.0, "edge": 0.9, "zorder": 3},
    "deployable": {"color": BLUE, "linestyle": "-", "linewidth": 1.8, "markersize": 7.0, "edge": 1.2, "zorder": 3.5},
}
"""How each front is drawn: colours for the colour-blind; lines and sizes for grey paper."""
NAMES = {"deployable": "deployable today", "research": "research"}
MARKS: dict[str, dict[str, Any]] = {
    "baseline": {"marker": "*", "markersize": 13, "markerfacecolor": "#F0E442", "markeredgecolor": INK, "markeredgewidth": 0.8, "zorder": 5},
    "answer": {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.1, "zorder": 5},
}
"""How the points with a name are drawn."""
PAPER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}  # behind a label, so that lines do not run through it
BAND = 0.16  # opacity
FAINT = "#b0b0b0"

Place = list[float]
Points = dict[str, list[dict[str, Any]]]
Marks = list[tuple[str, dict[str, Any], str]]


def front(result: Result, axes: Axes | None = None) -> Axes:
    """The fronts over two or three objectives (the third as colour), with floor, targets, prefill ceiling, baseline and recommended answers.

    Accuracy lies on x where it is an objective; otherwise the objectives are x, y and colour in their order. The marker says what binds; a band reaches from
    the accuracy kept to its lower end, and a point whose lower end is below the floor is hollow. Returns the axes, of a new figure where none are given.
    """
    data, scenario, answer = result.data, result.data["scenario"], result.data.get("answer") or {}
    goals = sorted(data["objectives"], key=lambda name: name != KEPT)
    fronts = {label: [point for point in data["points"] if point["front"] == label and place(point["metrics"], goals)] for label in FRONTS}
    with styled(axes, SIZE) as axes:
        axes.set(xlabel=QUANTITIES[goals[0]].axis, ylabel=QUANTITIES[goals[1]].axis)
        if not any(fronts.values()):
            reason = (answer.get("infeasible") or {}).get("reason", "no plan meets the targets").partition("; per GPU")[0]
            return empty(axes, wording.question(scenario), f"No points: {reason}")
        axes.grid(True)
        marks = _marks(answer, goals)
        bounds = limits.lines(goals, scenario, answer)
        notes = [] if place(answer.get("baseline"), goals) or "baseline" not in answer else ["uncompressed, nothing is served within the targets"]
        notes += limits.scale(
            axes, _places([*(point for points in fronts.values() for point in points), *(mark for _, mark, _ in marks)], goals), goals, bounds
        )
        kinds = markers(binding(point, goals) for points in fronts.values() for point in points)
        (_coloured if len(goals) > 2 else _lines)(axes, fronts, goals, scenario, kinds)
        bars = _bars(axes, fronts, marks, goals)
        for _, mark, kind in marks:
            axes.plot(*_places([mark], goals)[0, :2], linestyle="none", **MARKS[kind])
        _noted(axes, goals, notes)
        headed(axes, wording.question(scenario), _legend(fronts, goals, scenario), _meanings(kinds))
        _label(axes, fronts, goals, bounds, marks, bars)
        return axes


def place(metrics: dict[str, Any] | None, goals: list[str]) -> Place | None:
    """Where a point lies, in the units of the axes; `None` where something is unknown or nothing is served."""
    values = [(metrics or {}).get(name) for name in goals]
    if not metrics or metrics.get(RATE) == 0 or any(value is None for value in values):
        return None
    return [value * QUANTITIES[name].per_si for value, name in zip(values, goals, strict=True) if value is not None]


def _places(points: list[dict[str, Any]], goals: list[str]) -> np.ndarray:
    """`(points, goals)`, in the units of the axes."""
    return np.array([place(point["metrics"], goals) for point in points], float).reshape(len(points), len(goals))


def _marks(answer: dict[str, Any], goals: list[str]) -> Marks:
    """The points that are named: (name, point, kind)."""
    base, research = answer.get("baseline") or {}, answer.get("research") or {}
    kinds = [("uncompressed", {"metrics": base}, "baseline")]
    if answer.get("plan") and not answer.get("infeasible"):
        kinds.append(("today", answer, "answer"))
    if research.get("plan") and research["plan"] != answer.get("plan"):
        kinds.append(("research", research, "answer"))
    found = []
    for name, point, kind in kinds:
        if place(point["metrics"], goals) is None:
            continue
        if kind == "answer":
            more = f", {wording.times(point['metrics'][RATE], base[RATE])}" if RATE in goals and base.get(RATE) else ""
            name = textwrap.fill(f"{name}: {wording.methods(point['plan'])}{more}", 38)
        found.append((name, point, kind))
    return found


def _noted(axes: Axes, goals: list[str], notes: list[str]) -> None:
    """Notes under the name of the horizontal axis, as wide as it is."""
    figure = axes.get_figure(root=True)
    if notes and figure is not None:
        figure.draw_without_rendering()
        letters = max(20, int(axes.bbox.width * 72 / figure.dpi / 4.9))
        axes.set_xlabel("\n".join([QUANTITIES[goals[0]].axis, *(line for note in notes for line in textwrap.wrap(note, letters))]))


def _holds(point: dict[str, Any], scenario: dict[str, Any]) -> bool:
    return (point["metrics"][LOWER] or 0) >= scenario["accuracy_floor"]


def _lower(points: list[dict[str, Any]]) -> np.ndarray:
    """[%] lower ends of the accuracy; nan where unknown."""
    return np.array([100 * point["metrics"][LOWER] if point["metrics"].get(LOWER) is not None else np.nan for point in points], float)


def _lines(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any], kinds: dict[Kind, Marker]) -> None:
    """Each front as a line through its points, filled where the floor holds, with the interval of the accuracy as a band."""
    for label, points in fronts.items():
        look = FRONTS[label]
        if not points:
            continue
        at = _places(points, goals)
        order = np.argsort(at[:, 0], kind="stable")
        line = {name: look[name] for name in ("color", "linestyle", "linewidth")}
        axes.plot(*at[order].T, **line, zorder=look["zorder"] - 0.5)
        if goals[0] == KEPT:
            along = np.argsort(at[:, 1], kind="stable")
            lower = _lower(points)[along]
            band = axes.fill_betweenx(at[along, 1], lower, at[along, 0], color=look["color"], alpha=BAND, linewidth=0, zorder=1.5)
            band.set_gid(f"band {label}")
            axes.plot(lower, at[along, 1], **{**line, "linewidth": 0.6}, alpha=0.6, zorder=1.6, scalex=False, scaley=False)
        for (kind, marker), holds in ((entry, holds) for entry in kinds.items() for holds in (False, True)):
            some = np.array([_holds(point, scenario) == holds and binding(point, goals) == kind for point in points])
            if some.any():
                face = look["color"] if holds else "white"
                style = {"marker": marker, "markersize": look["markersize"], "markeredgewidth": look["edge"], "zorder": look["zorder"]}
                axes.plot(*at[some].T, linestyle="none", color=look["color"], markerfacecolor=face, **style)


def _bars(axes: Axes, fronts: Points, marks: Marks, goals: list[str]) -> list[np.ndarray]:
    """The interval of the accuracy as a bar where a front has one point only, or a named point lies beside its front; the ends of each bar."""
    if goals[0] != KEPT or len(goals) != 2:
        return []
    alone = [(FRONTS[label]["color"], points[0]) for label, points in fronts.items() if len(points) == 1]
    drawn = [place(point["metrics"], goals) for points in fronts.values() for point in points]
    beside = [(INK, point) for _, point, kind in marks if kind == "answer" and place(point["metrics"], goals) not in drawn]
    ends = []
    for color, point in [*alone, *beside]:
        kept, value = place(point["metrics"], goals) or (np.nan, np.nan)
        lower = _lower([point])[0]
        if np.isfinite(lower):
            ends.append(np.array([(max(lower, axes.get_xlim()[0]), value), (kept, value)]))
        axes.hlines(value, lower, kept, color=color, linewidth=1.2, alpha=0.7, zorder=1.8)
    return ends


def _coloured(axes: Axes, fronts: Points, goals: list[str], scenario: dict[str, Any], kinds: dict[Kind, Marker]) -> None:
    """The points of each front with the marker of what binds, the third objective as colour."""
    third = QUANTITIES[goals[2]]
    values = _places([point for points in fronts.values() for point in points], goals)[:, 2]
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high > DECADE * low
    norm = (LogNorm if logarithmic else Normalize)(low, high if high > low else low + max(abs(low), 1e-9) * 0.01)
    drawn = None
    for label, points in fronts.items():
        for kind, marker in kinds.items():
            some = [point for point in points if binding(point, goals) == kind]
            if not some:
                continue
            at = _places(some, goals)
            edges = [INK if _holds(point, scenario) else FAINT for point in some]
            look = {
                "marker": marker,
                "zorder": FRONTS[label]["zorder"],
                "s": FRONTS[label]["markersize"] ** 2 * 1.3,
                "linewidths": FRONTS[label]["edge"],
            }
            drawn = axes.scatter(at[:, 0], at[:, 1], c=at[:, 2], norm=norm, cmap="cividis", edgecolors=edges, **look)
    figure = axes.get_figure(root=True)
    if figure is not None and drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, label=third.axis)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _legend(fronts: Points, goals: list[str], scenario: dict[str, Any]) -> list[Line2D | Patch]:
    """What lines, sizes, fillings and bands mean."""
    coloured = len(goals) > 2
    handles: list[Line2D | Patch] = []
    for label in ("deployable", "research"):
        look = FRONTS[label]
        if fronts[label] and coloured:
            style = {"marker": "o", "markersize": look["markersize"], "markeredgewidth": look["edge"], "markerfacecolor": "white"}
            handles.append(
                Line2D([], [], linestyle="none", color=INK, label=f"{NAMES[label]} ({'large' if label == 'deployable' else 'small'})", **style)
            )
        elif fronts[label]:
            handles.append(Line2D([], [], label=NAMES[label], **{name: look[name] for name in ("color", "linestyle", "linewidth")}))
    points = [point for several in fronts.values() for point in several]
    if goals[0] == KEPT and not coloured:
        handles.append(Patch(facecolor=INK, alpha=BAND, label=f"band: to the lower end at {100 * scenario['confidence']:g} % confidence"))
    if not all(_holds(point, scenario) for point in points):
        edge, what = (FAINT, "grey edge") if coloured else (INK, "hollow")
        text = f"{what}: lower end of accuracy below the floor"
        handles.append(Line2D([], [], linestyle="none", marker="o", color=edge, markerfacecolor="white", label=text))
    return handles


def _meanings(kinds: dict[Kind, Marker]) -> list[Line2D]:
    """What the markers mean."""
    shown = {marker: said(kind, marker) for kind, marker in kinds.items() if kind}
    return [Line2D([], [], linestyle="none", marker=marker, color=INK, markersize=5.5, label=text) for marker, text in shown.items()]


def _label(axes: Axes, fronts: Points, goals: list[str], bounds: list[limits.Line], marks: Marks, bars: list[np.ndarray]) -> None:
    """Floor, targets and ceiling with their captions, then the names of the named points, where they cover nothing."""
    ground = Ground(axes)
    left, _ = axes.get_xlim()
    for points in fronts.values():
        at = _places(points, goals)[:, :2]
        ground.add_points(at)
        if len(goals) == 2:
            ground.add_line(at[np.argsort(at[:, 0], kind="stable")])
        for lower, (x, y) in zip(_lower(points), at if goals[0] == KEPT and len(goals) == 2 else [], strict=False):
            ground.add_line(np.array([(max(lower, left) if np.isfinite(lower) else x, y), (x, y)]), weight=0.02)
    places = _places([mark for _, mark, _ in marks], goals)[:, :2]
    ground.add_points(places, radius=7)
    for ends in bars:
        ground.add_line(ends)
    for line in bounds:
        limits.draw(axes, ground, line)
    for (label, _, _), (x, y) in zip(marks, places, strict=True):
        ground.name(label, (x, y), fontsize=8, color=INK, zorder=6, bbox=PAPER)
