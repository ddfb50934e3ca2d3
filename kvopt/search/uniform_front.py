"""A front of uniform plans that is handed over while it grows, without gradients: the values that are worth anything, and the schedules that suit them.

Of all deployable values only those count that no other one beats in loss and in what it costs at the prices; they are few, and lie on a line. The schedule of
some is searched in full, the others take those of their neighbours. Prices are then measured where schedules are known, and the line is drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kvopt.search.blocks.front import BlockPlans, BlockSearch
from kvopt.search.blocks.plan import lower_end
from kvopt.search.blocks.sequence import Prices, costs, losses_of
from kvopt.search.blocks.stream import along

FIRST = 9  # values along the line to begin with
MOST = 65
DENSE = 512  # values between them in one round
SLACK = (0.0, 0.01, 0.03, 0.1)  # relative cost above the line of values that are tried too, round by round


@dataclass(frozen=True)
class Line:
    """Values of which each loses less, or costs less, than every other one, by rising loss."""

    value: np.ndarray  # (values,)
    loss: np.ndarray  # (values,) log loss at the median


def uniform_stream(search: BlockSearch, floor: float) -> Iterator[BlockPlans]:
    """Uniform plans down to an accuracy of `floor` at the lower end, round by round, until all that is worth trying was tried."""
    found = search.values
    allowed = np.flatnonzero(lower_end(found.middle, found.edge) <= search.budget(floor))
    prices, anchors = search.prices(), FIRST
    for slack in SLACK:
        path = line(search, allowed, prices)
        fresh = _scheduled(search, path, anchors)
        yield fresh
        near = search.marginal(fresh, np.arange(len(fresh.lane)))
        tried = _between(search, allowed, fresh.budget, near, slack)
        for start in range(0, len(tried.value), DENSE):
            part = slice(start, start + DENSE)
            yield along(search, fresh, _alike(search, tried.value[part]), tried.loss[part])
        prices, anchors = near[len(near) // 2], min(2 * anchors - 1, MOST)


def line(search: BlockSearch, allowed: np.ndarray, prices: Prices, slack: float = 0.0) -> Line:
    """Of the values `allowed` those that no other one beats in both loss and cost, or that cost no more than `slack` above the one that does."""
    loss = losses_of(search.values, prices)[allowed]
    each = costs(search.values, prices)[allowed] - costs(search.values, prices)[:1]
    members = np.bincount(search.blocks.kind, minlength=search.blocks.cells[0])
    whole = float(np.einsum("khf,kf->", search.values.base, prices.parts))
    cost = whole + each @ members
    order = np.lexsort((cost, loss))
    least = np.concatenate([[np.inf], np.minimum.accumulate(cost[order])[:-1]])
    kept = order[cost[order] < least * (1 + slack) - 1e-12 * whole]
    return Line(allowed[kept], loss[kept])


def _alike(search: BlockSearch, value: np.ndarray) -> np.ndarray:
    """Plans of which all blocks have the same value: `(plans, blocks)`."""
    return np.repeat(value[:, None], len(search.blocks.row), axis=1)


def _scheduled(search: BlockSearch, path: Line, count: int) -> BlockPlans:
    """Some values, evenly along the line by the logarithm of their loss, with their best schedules."""
    size = np.log(np.maximum(path.loss, path.loss[path.loss > 0].min(initial=1.0)))
    aims = np.linspace(size[0], size[-1], count)
    rows = np.unique(np.concatenate([[0], np.abs(size[:, None] - aims[None]).argmin(axis=0)]))
    return search.scheduled(_alike(search, path.value[rows]), path.loss[rows], np.arange(len(rows)))


def _between(search: BlockSearch, allowed: np.ndarray, known: np.ndarray, prices: list[Prices], slack: float) -> Line:
    """The values along the lines of all prices, each near the loss where its prices were measured."""
    middle = (known[1:] + known[:-1]) / 2
    parts = [line(search, allowed, one, slack) for one in prices]
    rows = [np.flatnonzero(np.searchsorted(middle, part.loss, side="right") == place) for place, part in enumerate(parts)]
    value = np.concatenate([part.value[row] for part, row in zip(parts, rows, strict=True)])
    loss = np.concatenate([part.loss[row] for part, row in zip(parts, rows, strict=True)])
    value, first = np.unique(value, return_index=True)
    order = np.argsort(loss[first], kind="stable")
    return Line(value[order], loss[first][order])
