"""The picture of the study `methods`: users per GPU against the accuracy kept, of singles, pairs and triples."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvopt.inputs.scenario import Scenario
from kvopt.plots.labels import Ground
from kvopt.plots.style import BLUE, GREY, INK, VERMILLION, styled

SIZE = (8.2, 5.2)  # [inch]
LOOKS: dict[str, dict[str, Any]] = {
    "triple": {"color": VERMILLION, "marker": "^", "markersize": 4.0, "zorder": 2.0},
    "pair": {"color": BLUE, "marker": "s", "markersize": 3.6, "zorder": 2.5},
    "single": {"color": GREY, "marker": "o", "markersize": 5.0, "zorder": 3.0},
    "none": {"color": "#F0E442", "marker": "*", "markersize": 12.0, "zorder": 4.0, "markeredgecolor": INK, "markeredgewidth": 0.8},
}
"""By the number of methods: colours for the colour-blind, markers for grey paper."""
NAMED = 3  # singles, beside the best pair and the best triple
PAPER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
LEAST = 0.5  # [%] the narrowest span of accuracy that is drawn


def figure(rows: Sequence[dict[str, Any]], scenario: Scenario) -> Figure:
    """Every row a point; bars from the lower to the upper end of its accuracy, drawn for the named ones in full and for all others faintly."""
    with styled(None, SIZE) as axes:
        question = f"{scenario.model}, {scenario.gpus} x {scenario.accelerator}: every method, pair and triple at its best ratio above the floor"
        axes.set_title(textwrap.fill(question, 96), pad=26)
        axes.set(xlabel="Accuracy kept [%]", ylabel="Users per GPU")
        axes.grid(True)
        chosen = named(rows)
        _limits(axes, rows, 100 * scenario.accuracy_floor)
        for kind, look in LOOKS.items():
            some = [row for row in rows if row["kind"] == kind]
            axes.hlines(*_bars(some), color=look["color"], alpha=0.12, linewidth=0.7, zorder=1.5)
            axes.plot(*_places(some).T, linestyle="none", markerfacecolor=look["color"], **{**look, "alpha": 1.0 if kind != "triple" else 0.55})
        axes.hlines(*_bars(chosen), color=INK, linewidth=1.1, zorder=3.5)
        axes.axvline(100 * scenario.accuracy_floor, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1.4)
        _legend(axes, rows, scenario)
        _label(axes, rows, chosen, 100 * scenario.accuracy_floor)
        drawing = axes.get_figure(root=True)
    assert drawing is not None
    return drawing


def named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a name in the picture: the best triple, the best pair, the best engine-ready combination, some of the best singles, and no compression."""
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in LOOKS}
    ready = [row for row in rows if row["label"] == "engine" and row["kind"] != "none"][:1]
    picked = [*of["triple"][:1], *of["pair"][:1], *ready, *of["single"][:NAMED], *of["none"]]
    return [row for place, row in enumerate(picked) if row not in picked[:place]]


def _places(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([(row["kept %"], row["users per GPU"]) for row in rows]).reshape(-1, 2)


def _bars(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float], list[float]]:
    """Heights, lower and upper ends."""
    return tuple([row[name] for row in rows] for name in ("users per GPU", "lower %", "upper %"))  # type: ignore[return-value]


def _limits(axes: Axes, rows: Sequence[dict[str, Any]], floor: float) -> None:
    ends = [floor, *(row[name] for row in rows for name in ("lower %", "upper %"))]
    low, high = min(ends), max(max(ends), min(ends) + LEAST)
    users = [row["users per GPU"] for row in rows]
    logarithmic = min(users) > 0 and max(users) > 5 * min(users)
    axes.set_xlim(low - 0.08 * (high - low), high + 0.04 * (high - low))
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(min(users) / 1.3, max(users) * 1.5)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.3g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.3g}" if f"{value:e}"[0] in "25" else "")
    else:
        span = max(max(users) - min(users), 0.1 * max(users))
        axes.set_ylim(min(users) - 0.12 * span, max(users) + 0.25 * span)


def _legend(axes: Axes, rows: Sequence[dict[str, Any]], scenario: Scenario) -> None:
    handles = []
    for kind in ("single", "pair", "triple", "none"):
        count = sum(row["kind"] == kind for row in rows)
        label = {"single": f"alone ({count})", "pair": f"pairs ({count})", "triple": f"triples ({count})", "none": "uncompressed"}[kind]
        if count:
            handles.append(Line2D([], [], linestyle="none", label=label, **{**LOOKS[kind], "alpha": 1.0}))
    if scenario.confidence > 0.5:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, label=f"bar: {100 * scenario.confidence:g} % confidence, either side"))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0.2, columnspacing=1.4, handletextpad=0.5)


def _label(axes: Axes, rows: Sequence[dict[str, Any]], chosen: Sequence[dict[str, Any]], floor: float) -> None:
    ground = Ground(axes)
    ground.add_points(_places(rows), radius=3)
    for height, low, high in zip(*_bars(chosen), strict=True):
        ground.add_line(np.array([(low, height), (high, height)]))
    bottom, top = axes.get_ylim()
    ground.add_line(np.array([(floor, bottom), (floor, top)]))
    axes.annotate("accuracy floor", (floor, bottom), (-3, 6), textcoords="offset points", rotation=90, ha="right", va="bottom", fontsize=8, color=INK)
    for row in chosen:
        whole = row["methods"].replace(" ", "\u00a0").replace("\u00a0+\u00a0", " +\u00a0")  # lines break between methods alone
        ground.name(
            textwrap.fill(whole, 36, break_long_words=False, break_on_hyphens=False),
            (row["kept %"], row["users per GPU"]),
            fontsize=7.5,
            color=INK,
            zorder=6,
            bbox=PAPER,
        )
