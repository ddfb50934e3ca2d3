"""Labels that lie on nothing: each is put where it covers least of what is drawn, within the axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

DISTANCES = (9, 14, 20, 28, 38, 50, 64, 80, 100, 125, 150)  # [points] from what a label names to its nearest edge
ANGLES = np.deg2rad(np.arange(0, 360, 15))
CLEAR = 3  # [points] kept free around a label
RING = 6.5  # [points] from what a label names to the line that leads there
LEADER = 14  # [points] beyond this distance such a line is drawn
TAKEN, OUTSIDE = 50.0, 1000.0  # what a point of area costs where another label lies, and where the axes end


class Ground:
    """A map of the figure, one cell per typographic point: what it costs to put a label there. The limits of the axes must be final."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes without a figure have no size"
        figure.draw_without_rendering()  # the layout must be settled before a place on paper means anything
        self.pixels = figure.dpi / 72  # in one point
        width, height = np.ceil(figure.get_size_inches() * 72).astype(int)
        self.cost = np.full((height, width), OUTSIDE)
        (left, low), (right, high) = np.asarray(axes.bbox.get_points()) / self.pixels
        self.cost[int(np.ceil(low)) : int(high), int(np.ceil(left)) : int(right)] = 0

    def add_points(self, at: np.ndarray, radius: float = 4.0) -> None:
        """Markers of a radius [points] at `at` `(n, 2)` in data units."""
        for x, y in self._on_paper(at):
            self._raise(np.array([x, y]) - radius, np.array([x, y]) + radius, 1.0)

    def add_line(self, at: np.ndarray, weight: float = 1.0) -> None:
        """A line through `at` `(n, 2)` in data units; `weight`: how much it matters that no label lies on it."""
        paper = self._on_paper(at)
        for start, end in pairwise(paper):
            rows, columns = self._cells(start, end)
            self.cost[rows, columns] = np.maximum(self.cost[rows, columns], weight)

    def name(self, label: str, at: tuple[float, float], **style: Any) -> Annotation:
        """Names what lies `at`, in data units, with a thin line to it where the label is far off."""
        placed = self.axes.annotate(label, at, (0, 0), textcoords="offset points", ha="left", va="bottom", **style)
        placed.set_in_layout(False)
        size, centre = self._size(placed), self._on_paper(np.array([at]))[0]
        tried = []
        for distance in DISTANCES:
            for angle in ANGLES:
                out = np.array([np.cos(angle), np.sin(angle)])
                middle = distance * out + size / 2 * np.clip(2 * out, -1, 1)
                corner = middle - size / 2
                near = np.clip(0, corner, corner + size)  # where the line from what is named meets the label
                crossed = float(self.cost[self._cells(centre + near * min(1, LEADER / distance), centre + near)].sum()) if distance > LEADER else 0.0
                tried.append((self._covered(centre + corner, size) + 0.5 * crossed + 0.05 * distance, distance, tuple(corner), tuple(near)))
        _, distance, corner, near = min(tried)
        placed.set_position(corner)
        self._take(centre + corner, size)
        if distance > LEADER:
            reach = max(float(np.hypot(*near)), 1e-9)
            ends = self.axes.transData.inverted().transform((centre + np.outer([min(RING / reach, 1), 1], near)) * self.pixels)
            self.axes.plot(*ends.T, color="#555555", linewidth=0.6, zorder=4, scalex=False, scaley=False)
        return placed

    def caption(self, label: str, spots: Sequence[tuple[float, float, str, str]], **style: Any) -> Annotation:
        """Puts a line's caption at the best of some spots: (x and y as shares of the axes, sides as `ha` and `va`)."""
        tried = []
        for x, y, ha, va in spots:
            shift = ({"left": 4, "right": -4, "center": 0}[ha], 3 if va == "bottom" else -3)
            placed = self.axes.annotate(label, (x, y), shift, xycoords="axes fraction", textcoords="offset points", ha=ha, va=va, **style)
            placed.set_in_layout(False)
            tried.append((self._covered(self._corner(placed), self._size(placed)), placed))
        best = min(range(len(tried)), key=lambda index: tried[index][0])
        for index, (_, placed) in enumerate(tried):
            if index != best:
                placed.remove()
        chosen = tried[best][1]
        self._take(self._corner(chosen), self._size(chosen))
        return chosen

    def _on_paper(self, at: np.ndarray) -> np.ndarray:
        """[points] from the lower left corner of the figure."""
        return np.asarray(self.axes.transData.transform(at)) / self.pixels

    def _corner(self, placed: Annotation) -> np.ndarray:
        return np.asarray(placed.get_window_extent().min) / self.pixels

    def _size(self, placed: Annotation) -> np.ndarray:
        return np.asarray(placed.get_window_extent().size) / self.pixels

    def _cells(self, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cells that a line goes through, those off the figure at its edge."""
        steps = max(2, int(np.hypot(*(end - start))) + 1)
        columns, rows = np.round(start[:, None] + np.linspace(0, 1, steps) * (end - start)[:, None]).astype(int)
        return np.clip(rows, 0, self.cost.shape[0] - 1), np.clip(columns, 0, self.cost.shape[1] - 1)

    def _covered(self, corner: np.ndarray, size: np.ndarray) -> float:
        """What a box costs with its clear margin; only the box itself must lie within the axes."""
        low, high = np.floor(corner - CLEAR).astype(int), np.ceil(corner + size + CLEAR).astype(int)
        if low.min() < 0 or high[0] > self.cost.shape[1] or high[1] > self.cost.shape[0]:
            return np.inf
        around = self.cost[low[1] : high[1], low[0] : high[0]]
        inner = around[CLEAR:-CLEAR, CLEAR:-CLEAR]
        return float(around[around < OUTSIDE].sum() + inner[inner >= OUTSIDE].sum())

    def _take(self, corner: np.ndarray, size: np.ndarray) -> None:
        self._raise(corner, corner + size, TAKEN)

    def _raise(self, corner: np.ndarray, opposite: np.ndarray, cost: float) -> None:
        (left, low), (right, high) = np.maximum(np.floor(corner), 0).astype(int), np.maximum(np.ceil(opposite), 0).astype(int)
        some = self.cost[low:high, left:right]
        np.maximum(some, cost, out=some)
