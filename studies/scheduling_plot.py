"""The picture of the study `scheduling`: TTFT and TPOT over the chunk size and over the load, and what becomes of idle caches over the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION

Row = Mapping[str, Any]
LINES = ((BLUE, "o", "-"), ("#009E73", "s", "--"), ("#E69F00", "^", "-."), (VERMILLION, "D", ":"))
FATES = {"keep": (BLUE, "o", "-"), "park": (VERMILLION, "s", "--"), "recompute": (INK, "^", ":")}


def figure(rows: Sequence[Row], question: str, limits: tuple[float, float], confidence: str) -> Figure:
    """Six panels: TTFT [s] and TPOT [ms] over the chunk at several loads and over the load; idle caches over the context.

    `limits`: means at which the targets hold with the `confidence` asked for.
    """
    of = {what: [row for row in rows if row["what"] == what] for what in ("chunk", "load", "idle")}
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(11.5, 6.2), layout="constrained")
        panels = drawing.subplots(2, 3)
        for line, (column, label, target) in enumerate(
            (("TTFT s", "Time to first token [s]", limits[0]), ("TPOT ms", "Time per output token [ms]", limits[1]))
        ):
            _chunks(panels[line][0], of["chunk"], column, label)
            _load(panels[line][1], of["load"], column, label)
            for axes in panels[line][:2]:
                _target(axes, target, confidence)
        _served(panels[0][2], of["idle"])
        _returns(panels[1][2], of["idle"])
        drawing.suptitle(question, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return drawing


def _target(axes: Axes, target: float, confidence: str) -> None:
    low, high = axes.get_ylim()
    if target <= 1.6 * high:
        axes.axhline(target, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)))
        axes.annotate(
            f"mean at which the target holds, {confidence}",
            (0, target),
            (3, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=7.5,
        )
        axes.set_ylim(low, max(high, 1.3 * target))
    else:
        axes.annotate(f"the target holds up to {target:.3g} in the mean", (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=7.5)


def _chunks(axes: Axes, rows: Sequence[Row], column: str, label: str) -> None:
    for (colour, marker, dash), load in zip(LINES, sorted({row["load %"] for row in rows}), strict=False):
        points = [(row["chunk"], row[column]) for row in rows if row["load %"] == load and row[column] is not None and np.isfinite(row[column])]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=dash, label=f"{load:.0f} %")
    axes.set(ylim=(0, None), ylabel=label)
    if column == "TPOT ms":
        steps = sorted({(row["chunk"], row["longest step ms"]) for row in rows})
        axes.plot(*zip(*steps, strict=True), color=GREY, linestyle="-", linewidth=2.2, alpha=0.6)
        axes.annotate("one step with a full chunk", steps[-2], (-6, 4), textcoords="offset points", ha="right", fontsize=7.5)
        least = min(row[column] for row in rows if row[column] is not None and np.isfinite(row[column]))
        axes.set(yscale="log", ylim=(0.7 * least, 1.5 * steps[-1][1]))
        _plain(axes)
    _tokens(axes, sorted({row["chunk"] for row in rows}), "Chunk [tokens]")
    axes.legend(
        title="load, of the most that holds", loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, columnspacing=1, title_fontsize=8
    )
    axes.grid(True)


def _load(axes: Axes, rows: Sequence[Row], column: str, label: str) -> None:
    for holds, face in ((True, BLUE), (False, "white")):
        some = [row for row in rows if row["holds"] == holds]
        name = "targets hold" if holds else "a target may be missed"
        axes.plot(
            [row["sessions per GPU-hour"] for row in some],
            [row[column] for row in some],
            linestyle="none",
            marker="o",
            color=BLUE,
            markerfacecolor=face,
            label=name,
        )
    high = max((row[column] for row in rows if row["holds"]), default=1.0)
    axes.set(ylim=(0, 2.5 * high), xlabel="Sessions per GPU-hour", ylabel=label)
    if rows:
        axes.legend(title=f"chunk {rows[0]['chunk']:,}", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, title_fontsize=8)
    axes.grid(True)


def _served(axes: Axes, rows: Sequence[Row]) -> None:
    for name, (colour, marker, dash) in FATES.items():
        points = [(row["context"], row["sessions per GPU-hour"]) for row in rows if row["idle caches"] == name and row["sessions per GPU-hour"]]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=dash, label=name)
    axes.set(yscale="log", ylabel="Sessions per GPU-hour, most")
    _plain(axes)
    _tokens(axes, sorted({row["context"] for row in rows}), "Context [tokens]")
    axes.legend(title="idle caches", loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, title_fontsize=8)
    axes.grid(True)


def _returns(axes: Axes, rows: Sequence[Row]) -> None:
    for name, column in (("park", "fetch s"), ("recompute", "recompute s")):
        colour, marker, dash = FATES[name]
        points = [(row["context"], row[column]) for row in rows if row["idle caches"] == name and row[column]]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                marker=marker,
                linestyle=dash,
                label="fetch from the host" if name == "park" else "compute again",
            )
    for row in rows:
        if row["break-even GB/s"] and row["fetch s"]:
            said = f"even at\n{row['break-even GB/s']:.2g} GB/s"
            axes.annotate(said, (row["context"], row["fetch s"]), (0, -7), textcoords="offset points", ha="center", va="top", fontsize=7, color=GREY)
    axes.set(yscale="log", ylabel="Bringing back one cache [s]")
    axes.margins(x=0.12)
    _plain(axes)
    fetched = [row["fetch s"] for row in rows if row["fetch s"]]
    if fetched:
        axes.set_ylim(min(fetched) / 4, None)
    _tokens(axes, sorted({row["context"] for row in rows}), "Context [tokens]")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    axes.grid(True)


def _plain(axes: Axes) -> None:
    """A logarithmic axis with numbers as people write them."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _tokens(axes: Axes, values: Sequence[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(values)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda tokens, _: f"{tokens / 1e3:g}k" if tokens >= 1e3 and tokens % 1000 == 0 else f"{tokens:,.0f}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
