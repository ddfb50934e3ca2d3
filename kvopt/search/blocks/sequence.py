"""The order in which blocks give up accuracy for bytes: the multiple-choice knapsack, solved for every budget at once.

For given prices a block's values have a lower convex hull in (log loss, cost); the steps along it, of all blocks together, by what they save per loss, are
the optima of the Lagrangian relaxation for every multiplier (Sinha and Zoltners, Operations Research 27, 1979). Each prefix of the steps is a plan that can
be deployed; between two of them lies the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt.search.blocks.layout import Layout
from kvopt.search.blocks.values import Values


@dataclass(frozen=True)
class Prices:
    """What is minimised and what is given up for it."""

    parts: np.ndarray  # (kinds, Folded) cost of each sum
    heads: np.ndarray  # (head columns,) times this for a head's column; 1 unless ranks are unequally full
    middle: np.ndarray  # (PARTS,) weight of each part of the loss at the median
    edge: np.ndarray  # (PARTS,) the same at the confidence


@dataclass(frozen=True)
class Sequence:
    """Steps from no compression to the least cost, what saves most per loss first."""

    start: np.ndarray  # (blocks,) the values before any step: what loses least
    block: np.ndarray  # (steps,)
    to: np.ndarray  # (steps,) the value that the block takes
    cost: np.ndarray  # (steps + 1,) at the prices, after so many steps
    loss: np.ndarray  # (steps + 1,) weighted
    middle: np.ndarray  # (steps + 1, PARTS) log loss
    edge: np.ndarray

    def picks(self, steps: int) -> np.ndarray:
        """The values of all blocks after so many steps `(blocks,)`."""
        found = self.start.copy()
        found[self.block[:steps]] = self.to[:steps]  # of several steps of one block the last one counts
        return found

    def within(self, budget: np.ndarray | float) -> Any:
        """How many steps a weighted loss of `budget` allows, of its shape."""
        return np.maximum(np.searchsorted(self.loss, np.asarray(budget) * (1 + 1e-12), side="right") - 1, 0)

    def least_cost(self, budget: np.ndarray | float) -> np.ndarray:
        """The least cost that any plan of these values has at a weighted loss of at most `budget`, by the Lagrangian relaxation: never above the optimum."""
        return np.interp(budget, self.loss, self.cost)


def costs(found: Values, prices: Prices) -> np.ndarray:
    """Cost of each value per kind `(values, kinds)`, head prices left out."""
    return np.einsum("vkf,kf->vk", found.parts, prices.parts)


def losses_of(found: Values, prices: Prices) -> np.ndarray:
    """Weighted log loss of each value if all blocks had it `(values,)`."""
    return found.middle @ prices.middle + found.edge @ prices.edge


def classes(blocks: Layout, found: Values, edges: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Blocks that have the same choice: (the blocks, the values they may take, their kind). `edges`: first and last layers that stay in 16 bits."""
    spared = blocks.edge < edges
    all_values = np.arange(len(found.settings))
    kept = [(spared == flag, all_values[~found.bits_of] if flag else all_values) for flag in (False, True)]
    sets = [(np.flatnonzero(mask & (blocks.kind == kind)), allowed, kind) for mask, allowed in kept for kind in range(blocks.cells[0])]
    return [one for one in sets if len(one[0])]


def hull(loss: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The lower convex hull of points from the first one, which loses nothing, to the least cost: their places, loss rising."""
    order = np.lexsort((cost, loss))
    order = order[loss[order] >= loss[0]]
    running = np.minimum.accumulate(cost[order])
    better = np.concatenate([[True], cost[order][1:] < running[:-1] * (1 - 1e-12)])
    path: list[int] = []
    for point in order[better]:
        while path and loss[point] <= loss[path[-1]] + 1e-15:
            path.pop()  # as good a loss at a lower cost
        while len(path) > 1:
            a, b = path[-2], path[-1]
            if (cost[b] - cost[a]) * (loss[point] - loss[a]) >= (cost[point] - cost[a]) * (loss[b] - loss[a]):
                path.pop()
            else:
                break
        path.append(int(point))
    return np.array(path)


def sequence(blocks: Layout, found: Values, prices: Prices, edges: int = 0) -> Sequence:
    """All steps of all blocks in the order of what they save per loss."""
    cost, loss = costs(found, prices), losses_of(found, prices)
    rows = []
    start = np.zeros(len(blocks.row), int)
    for members, allowed, kind in classes(blocks, found, edges):
        path = allowed[hull(loss[allowed], cost[allowed, kind])]
        start[members] = path[0]
        saved, lost = -np.diff(cost[path, kind]), np.diff(loss[path])
        worth = prices.heads[blocks.head[members]]
        ratio = (saved / np.maximum(lost, 1e-300))[None] * (worth / blocks.share[members])[:, None]
        step = np.broadcast_to(np.arange(len(saved)), ratio.shape)
        rows.append([part.ravel() for part in (ratio, np.broadcast_to(members[:, None], ratio.shape), path[1:][step], path[:-1][step], step)])
    ratio, block, to, before, step = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.lexsort((step, block, -ratio))
    block, to, before = (part[order].astype(int) for part in (block, to, before))
    worth, share, kind = prices.heads[blocks.head[block]], blocks.share[block], blocks.kind[block]
    saved = (cost[to, kind] - cost[before, kind]) * worth
    first = float(np.sum(cost[start, blocks.kind] * prices.heads[blocks.head]))
    return Sequence(
        start=start,
        block=block,
        to=to,
        cost=first + _sum(saved),
        loss=float(np.sum(loss[start] * blocks.share)) + _sum((loss[to] - loss[before]) * share),
        middle=blocks.share @ found.middle[start] + _sum((found.middle[to] - found.middle[before]) * share[:, None]),
        edge=blocks.share @ found.edge[start] + _sum((found.edge[to] - found.edge[before]) * share[:, None]),
    )


def _sum(steps: np.ndarray) -> np.ndarray:
    """Running totals, beginning with nothing."""
    return np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
