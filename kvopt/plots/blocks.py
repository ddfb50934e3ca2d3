"""Plans in which layers or KV heads are not alike, as heat maps."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kvopt import wording
from kvopt.plots.frame import empty, headed
from kvopt.plots.rows import answer_of, today
from kvopt.plots.style import styled
from kvopt.results import Result

FIELDS = {
    "head_keep": ("heads that keep the whole context", "%"),
    "token_keep": ("tokens kept", "%"),
    "key_rank": ("rank of K kept", "%"),
    "value_rank": ("rank of V kept", "%"),
    "key_bits": ("precision of K", "bits"),
    "value_bits": ("precision of V", "bits"),
    "layer_keep": ("own KV stored", "%"),
}
COLOURS = "cividis"  # lightness rises all along
LETTERS = 100  # of a line under the panels
LEAST = 1e-6  # by which blocks differ, in % or bits
FEW = 6  # different values up to which each has a colour of its own
GAP, STRIP, MAP = 0.42, 0.34, 1.05  # [inch] between panels; height of one row of layers; of a table of heads
BAR = 0.018  # of the width, the colourbar; twice that lies before it


@dataclass(frozen=True)
class Panel:
    """One setting of one plan: `table` (layers that store a cache, KV heads), or (layers, 1)."""

    plan: str
    what: str
    unit: str
    table: np.ndarray

    @property
    def title(self) -> str:
        """Plan and setting, with its unit."""
        return f"{self.plan}: {self.what} [{self.unit}]"

    @property
    def height(self) -> float:
        """[inch]"""
        return STRIP if self.table.shape[1] == 1 else MAP


def available(result: Result) -> bool:
    """Whether there is anything to draw."""
    return bool(panels(result))


def heat_map(result: Result, axes: Axes | None = None) -> Axes:
    """What every layer, or every KV head of every layer, keeps: a panel for each setting that differs, layers from left to right, heads from top to bottom.

    Draws the plans of `--per layer` and `--per head`, and those that `--head-scores` makes; panels lie within the axes. Returns the axes, of a new figure where
    none are given.
    """
    drawn, title = panels(result), wording.question(result.data["scenario"])
    inches = sum(panel.height + GAP for panel in drawn) - GAP * bool(drawn)
    with styled(axes, (7.2, 1.25 + max(inches, 1.0))) as axes:
        if not drawn:
            return empty(axes, title, "Every layer and head keeps the same.")
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
        axes.patch.set_visible(False)
        for side in axes.spines.values():
            side.set_visible(False)
        top = 1.0
        for index, panel in enumerate(drawn):
            height = panel.height / inches
            _draw(axes.inset_axes((0.0, top - height, 1 - 3 * BAR, height)), axes.inset_axes((1 - BAR, top - height, BAR, height)), panel)
            if index == len(drawn) - 1:
                alike = textwrap.wrap(_alike(result), LETTERS)
                axes.child_axes[-2].set_xlabel("\n".join(["Layer, of those that store a cache", *alike]))
            top -= height + GAP / inches
        headed(axes, title)
        axes.set_title(axes.get_title(loc="left"), pad=22)  # over the title of the first panel
        return axes


def _draw(axes: Axes, beside: Axes, panel: Panel) -> None:
    """One panel with its colourbar."""
    table = panel.table.T
    values = np.unique(np.round(table, 6))
    if len(values) <= FEW:
        edges = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
        colours: Any = ListedColormap(colormaps[COLOURS](np.linspace(0, 1, max(len(values), 2))[: len(values)]))
        norm: Any = BoundaryNorm(edges, len(values))
    else:
        colours, norm = colormaps[COLOURS], Normalize(float(values[0]), float(values[-1]))
    heads, layers = table.shape
    axes.imshow(table, aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    axes.set_title(panel.title, fontsize=8, fontweight="normal", pad=3)
    axes.set(xlim=(-0.5, layers - 0.5), ylim=(heads - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 4, 5, 10]))
    if heads == 1:
        axes.set_yticks([])
    else:
        axes.set_ylabel("KV head")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    _colourbar(beside, colours, norm, values)


def _colourbar(beside: Axes, colours: Any, norm: Any, values: np.ndarray) -> None:
    """What the colours mean; a box for each value where there are few."""
    figure = beside.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=beside, spacing="uniform")
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
    if len(values) <= FEW:
        edges = norm.boundaries
        bar.set_ticks((edges[1:] + edges[:-1]) / 2, labels=[f"{value:.3g}" for value in values])
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(3))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    bar.ax.tick_params(length=0, labelsize=7)


def panels(result: Result) -> list[Panel]:
    """The settings in which layers or heads differ, plan by plan."""
    return [panel for panel in _settings(result) if np.ptp(panel.table) > LEAST]


def _alike(result: Result) -> str:
    """In words, what the plans that are drawn have alike in all layers and heads."""
    settings = _settings(result)
    said = []
    for plan in dict.fromkeys(panel.plan for panel in settings if np.ptp(panel.table) > LEAST):
        same = [panel for panel in settings if panel.plan == plan and np.ptp(panel.table) <= LEAST]
        if same:
            said.append(f"{plan.partition(',')[0]}, alike in all: " + ", ".join(f"{one.what} {one.table.flat[0]:.3g} {one.unit}" for one in same))
    return "; ".join(said)


def _settings(result: Result) -> list[Panel]:
    """Every setting of every plan that is made of blocks."""
    found = []
    for title, tables in _plans(result).items():
        for name, (said, unit) in FIELDS.items():
            if name in tables:
                found.append(Panel(title, said, unit, np.asarray(tables[name], float) * (1 if unit == "bits" else 100)))
    return found


def _plans(result: Result) -> dict[str, dict[str, Any]]:
    """Tables by plan: of today's plan and the research optimum; where neither has any, of the best plans by block."""
    answer = answer_of(result)
    points = {today(result): answer, "research": answer.get("research") or {}}
    found = {name: point["plan"] for name, point in points.items() if point.get("plan")}
    tables = {f"{name}, {wording.methods(plan)}": plan.get("blocks") or {} for name, plan in found.items()}
    heads = answer.get("heads") or {}
    if heads.get("tables") and answer.get("plan"):
        which = "" if heads.get("exact", True) else " (a common profile: which heads is not known)"
        tables[f"{today(result)}, {wording.methods(answer['plan'])}{which}"] = heads["tables"]
    if not any(tables.values()):
        best = {"today" if name == "deployable" else name: one for name, one in (result.data.get("per") or {}).items() if one}
        tables = {f"{name}, {wording.methods(one)}{_against(one)}": one.get("blocks") or {} for name, one in best.items()}
    return tables


def _against(best: dict[str, Any]) -> str:
    """Why a plan by block is not the answer."""
    alike = best.get("uniform_sessions_per_gpu_hour")
    return "" if alike is None else f" ({wording.times(best['sessions_per_gpu_hour'], alike)} the best with one setting for all)"
