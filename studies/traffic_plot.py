"""The picture of the study `traffic`: attainment over load, how long users think against the break-even times, and what each fate of a cache costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION
from kvopt.wording import number, seconds
from studies.traffic_replay import PARK

STYLES: tuple[dict[str, Any], ...] = (
    {"color": INK, "marker": "o", "linestyle": "-"},
    {"color": BLUE, "marker": "s", "linestyle": "--"},
    {"color": VERMILLION, "marker": "^", "linestyle": "-"},
    {"color": "#009E73", "marker": "D", "linestyle": ":"},
)
BARS = {"keep": (INK, ""), "recompute": ("#bdbdbd", "////"), "park": (BLUE, "...."), "least": ("white", "")}
SAID = {"keep": "kept in HBM", "recompute": "computed again", "park": "parked", "least": "cheapest, gap by gap"}
SHARES = (90, 99)  # [%] that are drawn across


def figure(
    rows: Sequence[dict[str, Any]],
    idle: Sequence[dict[str, Any]],
    gaps: Mapping[str, tuple[np.ndarray, np.ndarray]],
    full: Mapping[str, float],
    title: str,
) -> Figure:
    """`gaps`: percents and seconds by trace; `full`: requests/s per GPU that are 100 % of the load. Attainment alone where nobody comes back."""
    styles = {name: STYLES[place % len(STYLES)] for place, name in enumerate(gaps)}
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(13.0, 4.2) if idle else (5.2, 4.2), layout="constrained")
        drawing.suptitle(title, x=0.01, ha="left", fontsize=9.5, weight="bold")
        panels = drawing.subplots(1, 3 if idle else 1, squeeze=False)[0]
        _attainment(panels[0], rows, full, styles)
        if idle:
            _gaps(panels[1], idle, gaps, styles)
            _costs(panels[2], idle)
    return drawing


def named(trace: str) -> str:
    """A trace as it is written in a picture."""
    return trace.replace("_", " ").replace("azure", "Azure").replace("mooncake", "Mooncake")


def _attainment(axes: Axes, rows: Sequence[dict[str, Any]], full: Mapping[str, float], styles: Mapping[str, dict[str, Any]]) -> None:
    for name, style in styles.items():
        mine = [row for row in rows if row["trace"] == name]
        if not mine:
            continue
        fate = PARK if any(row["idle"] == PARK for row in mine) else mine[0]["idle"]
        points = [(100 * row["requests/s"] / full[name], row["attained %"]) for row in mine if row["idle"] == fate]
        axes.plot(*zip(*points, strict=True), **style, label=f"{named(name)} (100 %: {number(full[name])} requests/s)")
    for share in SHARES:
        axes.axhline(share, color=GREY, linewidth=0.6, linestyle=(0, (2, 3)), zorder=0.5)
    axes.set_yticks([0, 20, 40, 60, 80, *SHARES])
    axes.set(
        ylim=(0, 103), xlim=(0, None), xlabel="Load [% of the throughput with all requests queued]", ylabel="Requests that meet both targets [%]"
    )
    axes.set_title("SLO attainment", pad=66)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=2.4)
    axes.grid(True)


def _gaps(
    axes: Axes, idle: Sequence[dict[str, Any]], gaps: Mapping[str, tuple[np.ndarray, np.ndarray]], styles: Mapping[str, dict[str, Any]]
) -> None:
    for name, (percent, found) in gaps.items():
        if len(found):
            axes.plot(np.maximum(found, 0.02), percent, color=styles[name]["color"], linestyle=styles[name]["linestyle"], label=named(name))
    for column, word in (("park after s", "parking"), ("recompute after s", "computing again")):
        times = [row[column] for row in idle if row[column] is not None]
        if times:
            low, high = min(times), max(times)
            axes.axvspan(low * 0.97, high * 1.03, color="#dddddd", zorder=0)
            side, edge = (-5, low) if column.startswith("recompute") else (5, high)
            axes.annotate(
                f"{word} pays\nfrom {seconds(float(np.mean(times)))} on",
                (edge, 62 if side < 0 else 92),
                (side, 0),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
                va="top",
                fontsize=7.5,
                color=INK,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(ylim=(0, 103), xlabel="Gap between an answer and the next question [s]", ylabel="Gaps that are no longer [%]")
    axes.set_title("How long caches lie idle", pad=66)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=2.4)
    axes.grid(True)


def _costs(axes: Axes, idle: Sequence[dict[str, Any]]) -> None:
    fates = [fate for fate in BARS if any(row[f"{fate} GPU s/session"] for row in idle)]
    height = 0.8 / len(fates)
    values = [row[f"{fate} GPU s/session"] for row in idle for fate in fates if row[f"{fate} GPU s/session"]]
    low, high = min(values) / 3, max(values)
    for place, fate in enumerate(fates):
        face, hatch = BARS[fate]
        at = [row + (place - (len(fates) - 1) / 2) * height for row in range(len(idle))]
        spent = [row[f"{fate} GPU s/session"] or 0.0 for row in idle]
        axes.barh(at, spent, height * 0.9, facecolor=face, edgecolor=INK, hatch=hatch, linewidth=0.7, label=SAID[fate])
        for where, value, row in zip(at, spent, idle, strict=True):
            usd = row[f"{fate} USD/session"]
            told = f"{number(value)} s" + (f", {_cents(usd)}" if usd is not None else "")
            axes.annotate(told, (max(value, low), where), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set(xscale="log", xlim=(low, high * (high / low) ** 0.35), xlabel="GPU time of a returning session's idle caches [s]")
    axes.set_yticks(range(len(idle)), [named(row["trace"]).replace(" ", "\n", 1) for row in idle])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("What they cost where HBM is full", pad=66)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.6)
    axes.grid(True, axis="x")


def _cents(usd: float) -> str:
    return f"{number(100 * usd)} ¢"
