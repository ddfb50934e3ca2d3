"""The picture of the study `sweep`: what every cell serves, beside its uncompressed plan, and why where nothing can be served."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION
from kvopt.wording import number

MOST = 60  # cells that are drawn: the table has all
SERVED = "sessions_per_gpu_hour"
Row = Mapping[str, Any]


def figure(rows: Sequence[Row], named: Sequence[str]) -> Figure:
    """The first `MOST` rows of the sweep's table; `named`: the columns that tell its cells apart."""
    shown = rows[:MOST]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(9.0, 1.3 + 0.3 * len(shown)), layout="constrained")
        axes = drawing.subplots()
        served = [row[SERVED] for row in shown if row[SERVED]]
        low = min([row[SERVED] / (row["gain_over_baseline"] or 1) for row in shown if row[SERVED]], default=1.0) / 1.6
        high = max(served, default=10.0)
        for place, row in enumerate(shown):
            _cell(axes, place, row, low)
        axes.set_yticks(range(len(shown)), [", ".join(str(row[name]) for name in named) or "the one cell" for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set(
            xscale="log",
            xlim=(low, high * max(high / low, 10.0) ** 0.9),
            xlabel="Sessions per GPU-hour of the best plan, and of the uncompressed one",
        )
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        cut = f"the first {MOST} of {len(rows):,} cells" if len(rows) > MOST else f"{len(rows)} cells"
        axes.set_title(f"Best plan of each cell ({cut})", pad=22)
        if served:
            axes.plot([], [], color=BLUE, marker="o", markersize=6, linestyle="none", label="best plan")
            axes.plot([], [], color=GREY, marker="|", markersize=9, markeredgewidth=1.6, linestyle="none", label="uncompressed")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handletextpad=0.3)
    return drawing


def _cell(axes: Axes, place: int, row: Row, low: float) -> None:
    served = row[SERVED]
    if not served:
        why = textwrap.shorten(f"{row['status']}: {row['reason']}" if row["reason"] else str(row["status"]), 92, placeholder=" ...")
        axes.annotate(why, (low, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=VERMILLION)
        return
    gain = row["gain_over_baseline"]
    if gain:
        axes.plot([served / gain, served], [place, place], color=BLUE, linewidth=1.2)
        axes.plot(served / gain, place, color=GREY, marker="|", markersize=9, markeredgewidth=1.6)
    axes.plot(served, place, color=BLUE, marker="o", markersize=6)
    binds = f"; binds: {row['bottleneck'].split(';')[0]}" if row.get("bottleneck") else ""
    told = f"{number(served)}{f' ({gain:.2g} times)' if gain else ''}, {row['methods']}{binds}"
    style: dict[str, Any] = {"va": "center", "fontsize": 7.5, "color": INK, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6}}
    axes.annotate(textwrap.shorten(told, 70, placeholder=" ..."), (served, place), (7, 0), textcoords="offset points", **style)
