"""Local exchange: what a budget of loss leaves over is spent on single blocks, then one block is raised and another lowered as long as that saves anything."""

from __future__ import annotations

import numpy as np

from kvopt.search.blocks.layout import Layout
from kvopt.search.blocks.sequence import Prices, classes, costs, losses_of
from kvopt.search.blocks.values import Values

MOST_MOVES = 200


def exchange(blocks: Layout, found: Values, prices: Prices, picks: np.ndarray, budget: float, edges: int = 0) -> np.ndarray:
    """Values of all blocks `(blocks,)` that cost less than `picks` and lose no more than `budget`, until no exchange of two blocks helps."""
    value_cost, value_loss = costs(found, prices), losses_of(found, prices)
    picks = picks.copy()
    members, options = _options(blocks, found, edges, value_cost, value_loss)
    worth, share, kind = prices.heads[blocks.head[members]], blocks.share[members], blocks.kind[members]
    to_cost, to_loss = value_cost[options, kind] * worth, value_loss[options] * share
    slack = budget - float(np.sum(value_loss[picks] * blocks.share))
    for _ in range(MOST_MOVES):
        now = picks[members]
        saves, loses = value_cost[now, kind] * worth - to_cost, to_loss - value_loss[now] * share
        moves = _best_move(members, saves, loses, slack)
        if not len(moves):
            break
        picks[members[moves]] = options[moves]
        slack = budget - float(np.sum(value_loss[picks] * blocks.share))
    return picks


def _options(blocks: Layout, found: Values, edges: int, cost: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value that is worth trying in every block: (the blocks, the values). Values that another one beats in cost and loss are left out."""
    rows = []
    for members, allowed, kind in classes(blocks, found, edges):
        order = allowed[np.lexsort((cost[allowed, kind], loss[allowed]))]
        running = np.minimum.accumulate(cost[order, kind])
        worth_it = order[np.concatenate([[True], cost[order, kind][1:] < running[:-1] * (1 - 1e-12)])]
        rows.append((np.repeat(members, len(worth_it)), np.tile(worth_it, len(members))))
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def _best_move(block: np.ndarray, saves: np.ndarray, loses: np.ndarray, slack: float) -> np.ndarray:
    """The one or two moves, of different blocks, that save most within the slack; none where nothing is saved."""
    least = 1e-9 * max(float(np.abs(saves).max()), 1e-300)
    lower = np.flatnonzero(saves > least)
    if not len(lower):
        return np.zeros(0, int)
    single = lower[loses[lower] <= slack]
    best = single[saves[single].argmax()] if len(single) else -1
    gain, moves = (saves[best], np.array([best])) if best >= 0 else (0.0, np.zeros(0, int))
    raises = np.flatnonzero((loses < 0) & (saves <= least))
    if not len(raises):
        return moves
    order = lower[np.argsort(loses[lower], kind="stable")]
    most = np.maximum.accumulate(saves[order])
    at = np.searchsorted(loses[order], slack - loses[raises], side="right") - 1
    total = np.where(at >= 0, most[np.maximum(at, 0)] + saves[raises], -np.inf)
    for k in np.argsort(-total, kind="stable")[:16]:
        if total[k] <= max(gain, 0.0) + least:
            break
        fits = order[: at[k] + 1]
        other = fits[block[fits] != block[raises[k]]]
        if len(other) and (both := saves[other].max() + saves[raises[k]]) > gain + least:
            gain, moves = both, np.array([raises[k], other[saves[other].argmax()]])
    return moves
