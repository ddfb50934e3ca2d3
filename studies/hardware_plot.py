"""The picture of the study `hardware`: users per GPU, per dollar and per watt, card by card, marked by the resource that is worth most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION

PANELS = {"users per GPU": "Users per GPU", "users per USD/h": "Users per USD an hour", "users per kW": "Users per kW of board power"}
LOOKS: dict[str | None, dict[str, Any]] = {
    "HBM size": {"marker": "s", "color": BLUE},
    "HBM bandwidth": {"marker": "o", "color": VERMILLION},
    "FLOP/s": {"marker": "D", "color": "#009E73"},
    "link between GPUs": {"marker": "P", "color": "#CC79A7"},
    "host link": {"marker": ">", "color": "#56B4E9"},
    "host memory": {"marker": "<", "color": "#E69F00"},
    None: {"marker": "x", "color": GREY},
}
"""A marker and a colour for the resource that is worth most."""


def figure(rows: Sequence[Mapping[str, Any]], question: str) -> Figure:
    """A row per card that serves the session, in the order given; hollow where its speed was never measured and follows its class."""
    served = [row for row in rows if row["users per GPU"]]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10.5, 1.7 + 0.19 * len(served)), layout="constrained")
        panels = drawing.subplots(1, len(PANELS), sharey=True)
        for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, served, column, label)
        panels[0].set_yticks(range(len(served)), [row["accelerator"] for row in served])
        panels[0].set(ylim=(len(served) - 0.4, -0.6))
        drawing.suptitle(question, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        drawing.legend(handles=_handles(served), loc="outside lower center", ncols=4, columnspacing=1.6)
    return drawing


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str, label: str) -> None:
    for place, row in enumerate(rows):
        value, look = row[column], LOOKS[row["worth most"]]
        if value is None:
            axes.text(0.02, place, "not known", transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=GREY)
            continue
        face = "white" if row["speed from"] == "none" and look["marker"] != "x" else look["color"]
        axes.plot(value, place, linestyle="none", markersize=6, markerfacecolor=face, **look)
    best = max((row[column] for row in rows if row[column]), default=None)
    if best is not None:
        place = next(place for place, row in enumerate(rows) if row[column] == best)
        axes.annotate(f"{best:.3g}", (best, place), (-7, 0), textcoords="offset points", ha="right", va="center", fontsize=8, color=INK)
    axes.set(xscale="log", xlabel=label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.grid(True)
    axes.tick_params(axis="y", length=0)


def _handles(rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    used = {row["worth most"] for row in rows}
    handles = [
        Line2D([], [], linestyle="none", markersize=6, label=f"worth most: {name}" if name else "nothing of the card is worth more", **look)
        for name, look in LOOKS.items()
        if name in used
    ]
    if any(row["speed from"] == "none" for row in rows):
        handles.append(Line2D([], [], linestyle="none", marker="o", markerfacecolor="white", color=INK, label="hollow: speed follows its class"))
    return handles
