"""The share of shared-prefix tokens that a least-recently-used cache of a given size holds when they are asked for again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

_LEAST_CHUNK = 512


def reuse_curve(items: Sequence[Hashable], tokens: np.ndarray, scored: np.ndarray, points: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """LRU hit share against cache size: (sizes [tokens], rising from 0; shares of the scored tokens found, rising).

    `items` are accessed in order, each `tokens` long. An access hits where the distinct items since the last one to the same item, and the item
    itself, fit into the cache; the first access to an item never does. Hits count where `scored`, the other accesses only take up room.
    """
    total = float(np.sum(tokens[scored])) if len(items) else 0.0
    if total == 0:
        return np.array([0.0, 1.0]), np.zeros(2)
    distance = _reuse_distance(items, tokens)
    hit = scored & np.isfinite(distance)
    if not hit.any():
        return np.array([0.0, 1.0]), np.zeros(2)
    order = np.argsort(distance[hit], kind="stable")
    sizes, held = distance[hit][order], np.cumsum(tokens[hit][order]) / total
    grid = np.unique(np.geomspace(sizes[0], sizes[-1], points))
    grid[-1] = sizes[-1]  # geomspace may end a rounding error below
    found = np.concatenate([[0.0], held])[np.searchsorted(sizes, grid, side="right")]
    return np.concatenate([[0.0], grid]), np.minimum(np.concatenate([[0.0], found]), 1.0)


def _reuse_distance(items: Sequence[Hashable], tokens: np.ndarray) -> np.ndarray:
    """Tokens of the distinct items from the last access to the same item up to this one, it included; infinite at the first access.

    With p the previous access to what access i asks for, the distinct items between are the j in (p, i) whose own previous access is not after p.
    All j <= p have that too, so that the sum over them is the sum over all j < i with previous[j] <= p, less the running total up to p.
    """
    last: dict[Hashable, int] = {}
    previous = np.empty(len(items), np.int64)
    for index, item in enumerate(items):
        previous[index] = last.get(item, -1)
        last[item] = index
    running = np.cumsum(tokens)
    distance = np.full(len(items), np.inf)
    mass = np.zeros(len(items) + 1)  # tokens of the accesses before the chunk, by 1 + their previous access
    step = max(_LEAST_CHUNK, int(len(items) ** 0.5))  # accesses compared with each other at once: balances that with the running totals
    for start in range(0, len(items), step):
        chunk = slice(start, min(start + step, len(items)))
        before, size = previous[chunk], tokens[chunk]
        again = np.flatnonzero(before >= 0)
        upto = before[again]
        inside = (before[None, :] <= upto[:, None]) & (np.arange(len(before))[None, :] < again[:, None])
        distance[start + again] = np.cumsum(mass)[upto + 1] + inside @ size - running[upto] + size[again]
        np.add.at(mass, before + 1, size)
    return distance
