"""The picture of the study `method_regret`: what every picker loses by family of methods, and what measurements save of kvopt's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from kvopt.plots.style import STYLE
from studies.spread_plot import Spread, handles, spreads

TITLES = {"its benchmark": "Left out: the cell's model on its benchmark", "all of its model": "Left out: all of the cell's model"}
Row = Mapping[str, Any]


def figure(rows: Sequence[Row], pickers: Sequence[str], asked: Sequence[str]) -> Figure:
    """One column a way of leaving out: above, the pickers in every family of cells; below, kvopt after measurements, `asked`, where there are any."""
    ways = list(dict.fromkeys(row["left out"] for row in rows))
    above = _groups(rows, pickers)
    below = {name: found for name, found in _groups(rows, asked).items() if any(found.values())}
    heights = [len(above) * 0.62 + 0.6, *([len(below) * 0.75 + 0.6] if below else [])]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(5.4 * len(ways), 1.0 + sum(heights)), layout="constrained")
        panels = drawing.subplots(len(heights), len(ways), squeeze=False, sharey="row", sharex=True, height_ratios=heights)
        for column, way in enumerate(ways):
            for line, (chosen, series) in enumerate(((above, pickers), (below, asked))[: len(heights)]):
                axes = panels[line][column]
                spreads(axes, {name: found[way] for name, found in chosen.items()}, series)
                if line == 0:
                    axes.set_title(TITLES.get(way, way), pad=34)
                if column == 0:
                    axes.set_ylabel("Cells (how many)")
            panels[-1][column].set_xlabel("Accuracy lost by the pick [points]\n(mark: median, lines: to the 75th and 90th percentile)")
        panels[0][0].set_xlim(-0.6, None)
        for line, series in enumerate((pickers, asked)[: len(heights)]):
            panels[line][0].legend(handles=handles(series), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, columnspacing=1.4)
    return drawing


def _groups(rows: Sequence[Row], pickers: Sequence[str]) -> dict[str, dict[str, dict[str, Spread]]]:
    """The spreads by family of cells, by way of leaving out, and by picker."""
    made: dict[str, dict[str, dict[str, Spread]]] = {}
    counts: dict[str, dict[str, int]] = {}
    ways = dict.fromkeys(row["left out"] for row in rows)
    for row in rows:
        if row["who picks"] in pickers:
            one = Spread(row["median"], row["median"], row["median"], row["75th pct"], row["90th pct"])
            made.setdefault(row["cells"], {way: {} for way in ways})[row["left out"]][row["who picks"]] = one
            counts.setdefault(row["cells"], {})[row["left out"]] = row["n"]
    return {f"{name} ({' and '.join(map(str, dict.fromkeys(counts[name].values())))})": found for name, found in made.items()}
