"""The picture of the study `benchmark`: values and gradients a second, and the seconds of compiling, importing and of whole fronts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt.plots.style import BLUE, INK, STYLE
from kvopt.wording import number

RATES = {"values per s": ("values", BLUE, ""), "gradients per s": ("values with gradients", "white", "////")}
COMPILED = {"compile value s": "compile the value", "compile gradient s": "compile the gradient"}
Row = Mapping[str, Any]


def figure(rows: Sequence[Row]) -> Figure:
    """Of the rows of the study's table: at the left those with rates, at the right every time."""
    rated = [row for row in rows if row.get("values per s") is not None]
    times = {f"{word}: {row['what']}": row[column] for row in rated for column, word in COMPILED.items() if row.get(column)}
    times |= {row["what"]: row["seconds"] for row in rows if row.get("seconds") is not None}
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(12.0, 4.4), layout="constrained")
        rates, seconds = drawing.subplots(1, 2, width_ratios=(1.15, 1.0))
        _rates(rates, rated)
        _seconds(seconds, times)
    return drawing


def _rates(axes: Axes, rated: Sequence[Row]) -> None:
    most = max(row[column] for row in rated for column in RATES)
    least = min(row[column] for row in rated for column in RATES)
    for offset, (column, (label, face, hatch)) in zip((-0.2, 0.2), RATES.items(), strict=True):
        at = [place + offset for place in range(len(rated))]
        values = [row[column] for row in rated]
        axes.barh(at, values, 0.36, facecolor=face, edgecolor=INK, hatch=hatch, linewidth=0.8, label=label)
        for where, value, row in zip(at, values, rated, strict=True):
            ratio = f" (1/{row['gradient / value']:.2g})" if column == "gradients per s" else ""
            axes.annotate(f"{number(value)}/s{ratio}", (value, where), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(range(len(rated)), [textwrap.fill(row["what"], 20) for row in rated])
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(least / 5, most * 12), xlabel="Evaluations of the whole model [1/s]")
    _plain(axes)
    axes.set_title("Rates of one compiled program", pad=22)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.6)


def _seconds(axes: Axes, times: Mapping[str, float]) -> None:
    axes.barh(range(len(times)), list(times.values()), 0.6, facecolor="#bdbdbd", edgecolor=INK, linewidth=0.8)
    for place, value in enumerate(times.values()):
        axes.annotate(f"{number(value)} s", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(range(len(times)), [textwrap.fill(name, 44) for name in times], fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(min(times.values()) / 3, max(times.values()) * 3), xlabel="Time [s]")
    _plain(axes)
    axes.set_title("What is waited for", pad=22)


def _plain(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
