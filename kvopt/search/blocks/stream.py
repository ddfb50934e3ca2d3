"""A front of plans by block that is handed over while it grows: coarse at once, then finer and finer, for as long as whoever asks has time.

The first plans are those of the first prices, every grouping and chunk size tried. From then on each round measures prices where the front has none near by,
takes plans of single steps between them (each is an optimum of its Lagrangian relaxation), and tries for each the schedules that its neighbours have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kvopt.search.blocks.front import BlockPlans, BlockSearch, levels
from kvopt.search.blocks.sequence import Prices, sequence
from kvopt.search.schedules import CHUNK, PREFIX, RESIDENT

LEAST_LOSS = 1e-4  # of the levels of loss
FIRST = 9  # levels of loss to begin with
NOTHING, ROOM = 1e-4, 1.5  # gain of the log goal that is none; how far beyond the last gain levels still go
FACTOR = 4  # as many plans between the anchors in the next round
MOST = 2048  # plans of a round
MOST_ANCHORS = 129
NEIGHBOURS = (-1, 0, 1)  # anchors whose schedules are tried
NUDGES = (0.0, -1 / 16, 1 / 16, -1 / 128, 1 / 128, -1 / 512, 1 / 512)  # of the share of idle caches that stays in HBM


def stream(search: BlockSearch, floor: float) -> Iterator[BlockPlans]:
    """Plans down to an accuracy of `floor` at the lower end, round by round, without end; each round has the anchors, then what lies between them."""
    most = search.most_loss(floor)
    if most <= 0:
        return
    anchors, between = FIRST, 4 * FIRST
    prices, known = [search.prices()], np.zeros(1)
    while True:
        budgets = levels(most, anchors, LEAST_LOSS)
        picks = _picked(search, prices, known, budgets)
        fresh = search.scheduled(picks, budgets, np.arange(anchors))
        yield fresh
        most = _useful(fresh, search.schedules.goal, most)
        prices, known = search.marginal(fresh, np.arange(anchors)), budgets
        most = max(most, search.most_loss(floor, prices[-1]))
        dense = levels(most, between, LEAST_LOSS)
        yield along(search, fresh, _picked(search, prices, known, dense), dense)
        anchors, between = min(2 * anchors - 1, MOST_ANCHORS), min(between * FACTOR, MOST)


def _useful(front: BlockPlans, goal: int, most: float) -> float:
    """The log loss beyond which nothing more is gained, with some room: the levels of the next round are spread below it."""
    serves = np.where((front.broken > 0).any(axis=1), np.inf, front.logs[:, goal])
    if np.isinf(serves).all():
        return most
    enough = np.flatnonzero(serves <= serves.min() + NOTHING)
    return min(most, ROOM * float(front.budget[enough[0]]))


def _picked(search: BlockSearch, prices: list[Prices], known: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """The plan of each budget `(budgets, blocks)` at the prices known nearest to it, `known` being theirs."""
    near = np.abs(budgets[:, None] - known[None]).argmin(axis=1)
    picks = np.zeros((len(budgets), len(search.blocks.row)), int)
    for place in np.unique(near):
        steps = sequence(search.blocks, search.values, prices[place], search.edges)
        rows = np.flatnonzero(near == place)
        picks[rows] = [steps.picks(step) for step in steps.within(budgets[rows])]
    return picks


def along(search: BlockSearch, anchors: BlockPlans, picks: np.ndarray, budgets: np.ndarray) -> BlockPlans:
    """Plans with the best of the schedules that the anchors next to them have, the share of idle caches moved a little."""
    near = np.searchsorted(anchors.budget, budgets)
    tried = np.clip(near[:, None] + np.array(NEIGHBOURS), 0, len(anchors.lane) - 1)
    plans, schedules = search.plans(picks), search.schedules
    able = schedules.lanes.high[:, RESIDENT].max() > 0
    nudges = np.array(NUDGES if able else (0.0,))
    plan = np.repeat(np.arange(len(picks)), tried.shape[1] * len(nudges))
    like = np.repeat(tried.ravel(), len(nudges))
    lane, x = anchors.lane[like], plans.x[plan]
    for column in (CHUNK, RESIDENT, PREFIX):
        x[:, column] = anchors.x[like, column]
    x[:, RESIDENT] = np.clip(x[:, RESIDENT] + np.tile(nudges, tried.size), 0, schedules.lanes.high[lane, RESIDENT])
    points = schedules.measure(plans, plan, lane, x)
    score = schedules.score(points).reshape(len(picks), -1)
    best = np.arange(len(picks)) * score.shape[1] + score.argmin(axis=1)
    return BlockPlans(picks, lane[best], points.x[best], points.logs[best], points.broken[best], budgets)
