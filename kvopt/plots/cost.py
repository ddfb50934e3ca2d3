"""What one session takes of the GPUs, stage by stage."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from kvopt import wording
from kvopt.plots.frame import empty, headed
from kvopt.plots.rows import named, with_arithmetic
from kvopt.plots.style import BLUE, GREEN, INK, ORANGE, SKY, VERMILLION, YELLOW, styled
from kvopt.results import Result

HEIGHT = 0.58  # of a bar, in rows
LEAST = 0.075  # share of the axis that a part needs to hold its number
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": ("prefill: prompt", {"facecolor": BLUE}),
    "follow_up": ("prefill: follow-ups", {"facecolor": SKY, "hatch": "////"}),
    "recompute": ("prefill: recomputed", {"facecolor": "white", "hatch": "xxxx"}),
    "decode_weights": ("decode: weights", {"facecolor": VERMILLION, "hatch": "\\\\\\\\"}),
    "decode_kv": ("decode: KV cache", {"facecolor": ORANGE}),
    "decode_overhead": ("decode: overhead", {"facecolor": YELLOW, "hatch": "...."}),
    "switching": ("context switching", {"facecolor": GREEN, "hatch": "++++"}),
    "idle": ("idle", {"facecolor": "#e8e8e8"}),
}
"""Name and look of each stage: told apart by lightness and hatch, without colour."""
WHITE_ON = ("prompt",)


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    return bool(with_arithmetic(result))


def session_cost(result: Result, axes: Axes | None = None) -> Axes:
    """GPU-seconds of one session as stacked bars by stage, of the uncompressed, today's and the research plan, with the price where it is known.

    Returns the axes, of a new figure where none are given.
    """
    rows, title = with_arithmetic(result), wording.question(result.data["scenario"])
    with styled(axes, (7.2, 1.75 + 0.6 * max(len(rows), 1))) as axes:
        if not rows:
            return empty(axes, title, "The cost of a session is not known.")
        spent = {name: {stage: max(found["session"]["gpu_seconds"].get(stage) or 0.0, 0.0) for stage in STAGES} for name, (_, found) in rows.items()}
        whole = max(sum(parts.values()) for parts in spent.values()) or 1.0
        used = [stage for stage in STAGES if any(parts[stage] > 1e-3 * whole for parts in spent.values())]
        for row, parts in enumerate(spent.values()):
            _bar(axes, row, {stage: parts[stage] for stage in used}, whole)
        axes.set_yticks(range(len(rows)), [named(name, point) for name, (point, _) in rows.items()])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="One session [GPU-seconds]")
        _totals(axes, [(sum(spent[name].values()), found["session"]) for name, (_, found) in rows.items()], whole)
        headed(axes, title, [Patch(edgecolor=INK, linewidth=0.6, label=STAGES[stage][0], **STAGES[stage][1]) for stage in used])
        return axes


def _bar(axes: Axes, row: int, parts: dict[str, float], whole: float) -> None:
    """The stages of one plan one after the other, each with its seconds where there is room."""
    start = 0.0
    for stage, seconds in parts.items():
        label, face = STAGES[stage]
        axes.barh(row, seconds, HEIGHT, left=start, linewidth=0.6, edgecolor=INK, label=label if row == 0 else "_", **face)
        if seconds > LEAST * whole:
            box = None if stage in (*WHITE_ON, "decode_kv", "idle") else {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            color = "white" if stage in WHITE_ON else "black"
            axes.text(start + seconds / 2, row, wording.number(seconds), ha="center", va="center", color=color, fontsize=8, bbox=box)
        start += seconds


def _totals(axes: Axes, totals: list[tuple[float, dict[str, Any]]], whole: float) -> None:
    """The sum of every bar beside it, in GPU-seconds and, where known, dollars; the axis has room for them."""
    drawn = []
    for row, (seconds, session) in enumerate(totals):
        price = session.get("usd_per_gpu_s")
        said = f"{wording.number(seconds)} GPU-s" + (f"\n{wording.dollars(seconds * price)}" if price is not None else "")
        drawn.append(axes.annotate(said, (seconds, row), (5, 0), textcoords="offset points", va="center", fontsize=8))
    figure = axes.get_figure(root=True)
    assert figure is not None
    axes.set_xlim(0, whole)
    figure.draw_without_rendering()
    widest = max(text.get_window_extent().width for text in drawn) + 10 * figure.dpi / 72
    axes.set_xlim(0, whole / (1 - min(widest / axes.bbox.width, 0.6)))
