"""What a little less or more of each input does to the sessions served: a tornado."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from kvopt import wording
from kvopt.plots.frame import empty, headed
from kvopt.plots.rows import answer_of
from kvopt.plots.style import BLUE, GREEN, INK, ORANGE, VERMILLION, styled
from kvopt.results import Result

HEIGHT = 0.36  # of a bar, in rows: two a row
INPUTS = {
    "hbm_bytes": ("HBM size", "hardware"),
    "hbm_bandwidth": ("HBM bandwidth", "hardware"),
    "flops": ("peak FLOP/s", "hardware"),
    "host_bandwidth": ("host link bandwidth", "hardware"),
    "host_memory": ("host memory", "hardware"),
    "scaleup_bandwidth": ("GPU-to-GPU bandwidth", "hardware"),
    "ttft_target": ("TTFT target", "target"),
    "tpot_target": ("TPOT target", "target"),
    "think_time": ("think time", "traffic"),
    "accuracy_floor": ("accuracy floor", "floor"),
}
"""Inputs by their name in a result: what they are called, and what sort they are."""
SORTS = {
    "hardware": ("hardware", BLUE),
    "target": ("latency targets", ORANGE),
    "traffic": ("traffic", GREEN),
    "floor": ("accuracy floor", VERMILLION),
}
LESS: dict[str, Any] = {"facecolor": "white", "hatch": "/////"}
MORE: dict[str, Any] = {"linewidth": 0.8}
NOUGHT = 5e-3  # [%] an effect that is none


@dataclass(frozen=True)
class Effect:
    """[%] of sessions per GPU-hour, for 1 % less or more of an input: the end that is sure, and where the step over a finite distance ends."""

    near: float
    far: float


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    return bool(_effects(result))


def elasticities(result: Result, axes: Axes | None = None) -> Axes:
    """Change of the sessions per GPU-hour [%] for 1 % less (hatched) and 1 % more (full) of each input, the largest first, as a tornado.

    A whisker leads to the other end where derivative and a step of 10 % differ. Colours tell hardware, latency targets, traffic and the accuracy floor apart.
    Returns the axes, of a new figure where none are given.
    """
    rows, title = _effects(result), wording.question(result.data["scenario"])
    with styled(axes, (7.2, 1.7 + 0.32 * max(len(rows), 2))) as axes:
        if not rows:
            return empty(axes, title, "No elasticities are known.")
        axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
        axes.grid(True, axis="x")
        for row, (name, sides) in enumerate(rows.items()):
            for shift, effect, look in zip((-0.5, 0.5), sides, (LESS, MORE), strict=True):
                _bar(axes, row + shift * HEIGHT, effect, {"edgecolor": _sort(name)[1], "facecolor": _sort(name)[1], **look})
        axes.set_yticks(range(len(rows)), [INPUTS.get(name, (name.replace("_", " "), ""))[0] for name in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="Change of sessions per GPU-hour [%] for 1 % less or more of an input")
        _room(axes)
        halves = [Patch(edgecolor=INK, label="1 % less", **LESS), Patch(facecolor=INK, edgecolor=INK, label="1 % more")]
        sorts = [Patch(facecolor=color, edgecolor=color, label=said) for said, color in dict.fromkeys(_sort(name) for name in rows)]
        headed(axes, title, halves, sorts)
        return axes


def _sort(name: str) -> tuple[str, str]:
    """Name and colour of an input's sort."""
    return SORTS[INPUTS[name][1]] if name in INPUTS else ("other", INK)


def _effects(result: Result) -> dict[str, tuple[Effect | None, Effect | None]]:
    """By input, the largest effect first: for one percent less and more. Inputs without any known effect are left out."""
    found = answer_of(result).get("elasticities") or result.data.get("elasticities") or {}
    both = {name: (_effect(entry, "left", -1.0), _effect(entry, "right", 1.0)) for name, entry in found.items()}
    known = {name: sides for name, sides in both.items() if any(sides)}
    return dict(sorted(known.items(), key=lambda entry: -max(max(abs(side.near), abs(side.far)) for side in entry[1] if side)))


def _effect(entry: dict[str, Any], side: str, sign: float) -> Effect | None:
    """One side's effect; None where it is not known."""
    ends = entry.get(f"{side}_interval") or ([entry[side]] if entry.get(side) is not None else [])
    if not ends:
        return None
    ordered = sorted((sign * end for end in ends), key=abs)
    return Effect(ordered[0], ordered[-1])


def _room(axes: Axes) -> None:
    """Sets the limits, alike on both sides, so that the numbers beyond the bars find room."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    reach = 1e-9
    for said in axes.texts:
        width = said.get_window_extent().width + 8 * figure.dpi / 72
        reach = max(reach, abs(said.xy[0]) / max(1 - 2 * width / axes.bbox.width, 0.2))  # type: ignore[attr-defined]
    axes.set_xlim(-1.02 * reach, 1.02 * reach)


def _bar(axes: Axes, at: float, effect: Effect | None, look: dict[str, Any]) -> None:
    """One half of a row with its number; `unknown` where there is none."""
    if effect is None:
        axes.annotate(wording.UNKNOWN, (0, at), (4, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
        return
    axes.barh(at, effect.near, HEIGHT, zorder=2, **{"linewidth": 0.8, **look})
    if abs(effect.far - effect.near) > NOUGHT:
        axes.plot([effect.near, effect.far], [at, at], color=INK, linewidth=0.9, marker="|", markersize=4, zorder=3)
    ends = [effect.near] if abs(effect.far - effect.near) <= NOUGHT else sorted((effect.near, effect.far))
    said = " to ".join(f"{end:+.2f}" if abs(end) > NOUGHT else "0" for end in ends)
    side = 1 if effect.far > 0 or (effect.far == 0 and effect.near >= 0) else -1
    axes.annotate(said, (effect.far, at), (4 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right", fontsize=7)
