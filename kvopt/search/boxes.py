"""A bound on the rate: the schedule covered by boxes, each bounded at its favourable corner, the best ones split until what is left is close to what was found.

A box is a grouping, a chunk size, and intervals of what stays in HBM of idle caches and of shared prefixes. At its favourable corner the work is that of the
upper ends (nothing is recomputed or fetched that need not be) and memory that of the lower ends: no schedule in the box serves more (`session.Charged`).
Plans come as rows: deployable ones themselves, or corners that no plan within a loss lies below (`kvopt.search.blocks.bound`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvopt.search import programs
from kvopt.search.evaluate import GOALS, Given, log_goal
from kvopt.search.lanes import Lane, take
from kvopt.search.schedules import CHUNK, PREFIX, RESIDENT, Plans
from objectives.goals import Targets
from objectives.serving.session import Charged
from objectives.types import replace

CLOSE = 1e-3  # relative gap at which a box is not split any more
SINGLE = 2e-4  # relative error that single precision may have made: a box is left out only where it is further below
ROUNDS = 14
MOST = 60_000  # boxes evaluated; what is then left is bounded as it is


@dataclass(frozen=True)
class Boxes:
    """Boxes, one row each."""

    plan: np.ndarray  # (boxes,) row of the plans
    lane: np.ndarray  # (boxes,)
    chunk: np.ndarray  # (boxes,) [tokens]
    low: np.ndarray  # (boxes, 2) least share of what may stay: idle caches, shared prefixes; of the lanes' highest
    high: np.ndarray  # (boxes, 2)

    def rows(self, index: np.ndarray) -> Boxes:
        """Some of the boxes."""
        return Boxes(*(getattr(self, name)[index] for name in ("plan", "lane", "chunk", "low", "high")))

    def split(self) -> Boxes:
        """Each box halved along its wider side; boxes without extent stay as they are."""
        width = self.high - self.low
        axis = width.argmax(axis=1)
        rows = np.arange(len(axis))
        middle = (self.low[rows, axis] + self.high[rows, axis]) / 2
        below, above = self.high.copy(), self.low.copy()
        below[rows, axis], above[rows, axis] = middle, middle
        wide = width[rows, axis] > 0
        upper = self.rows(np.flatnonzero(wide))
        ends = [(self.low, below), (above[wide], upper.high)]
        parts = [Boxes(one.plan, one.lane, one.chunk, low, high) for one, (low, high) in zip((self, upper), ends, strict=True)]
        return self.joined(parts)

    @staticmethod
    def joined(parts: Sequence[Boxes]) -> Boxes:
        """Several sets of boxes as one."""
        return Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("plan", "lane", "chunk", "low", "high")))


def cover(plans: np.ndarray, lanes: Lane, allowed: np.ndarray, chunks: np.ndarray) -> Boxes:
    """Boxes that hold every schedule of the plans: `allowed` `(plans, lanes)` says which groupings each may have."""
    row, lane = np.nonzero(allowed)
    count = len(chunks)
    lane = np.repeat(lane, count)
    able = (np.asarray(lanes.high)[lane][:, [RESIDENT, PREFIX]] > 0).astype(float)
    return Boxes(np.repeat(plans[row], count), lane, np.tile(chunks, len(row)), np.zeros((len(lane), 2)), able)


def optimistic(lanes: Lane, plans: Plans, boxes: Boxes) -> tuple[Lane, np.ndarray]:
    """Lanes and settings whose value no schedule in a box exceeds."""
    most = lanes.high[boxes.lane][:, [RESIDENT, PREFIX]]
    x = plans.x[boxes.plan].copy()
    x[:, CHUNK] = boxes.chunk
    x[:, [RESIDENT, PREFIX]] = boxes.high * most
    least = boxes.low * most
    charged = Charged(least[:, 0], least[:, 1])
    block = None if plans.by_block is None else take(plans.by_block, boxes.plan)
    return replace(take(lanes, boxes.lane), by_block=block, charged=charged), x


class Covered:
    """The boxes of one problem, evaluated at their favourable corners."""

    def __init__(self, given: Given, lanes: Lane, targets: Targets, plans: Plans, goal: int) -> None:
        self.given, self.lanes, self.targets, self.plans, self.goal = given, lanes, targets, plans, goal
        self.evaluations = 0

    def values(self, boxes: Boxes) -> np.ndarray:
        """The goal of every box in single precision, inf where even its favourable corner breaks a target."""
        lanes, x = optimistic(self.lanes, self.plans, boxes)
        points = programs.measure(self.given, lanes, programs.repeat(self.targets, len(x)), x)
        self.evaluations += 25 * len(x)
        return _judged(points.logs[:, self.goal], points.broken, SINGLE)

    def exactly(self, boxes: Boxes) -> np.ndarray:
        """The same in double precision."""
        lanes, x = optimistic(self.lanes, self.plans, boxes)
        _, states = programs.exact([self.given] * len(x), lanes, programs.repeat(self.targets, len(x)), x)
        self.evaluations += 51 * len(x)
        logs = np.array([float(log_goal(list(GOALS)[self.goal], state)) for state in states])
        return _judged(logs, np.array([np.asarray(state.broken) for state in states]), 0.0)


def _judged(logs: np.ndarray, broken: np.ndarray, slack: float) -> np.ndarray:
    fails = (broken[:, :-1] > slack).any(axis=1)  # the last constraint is accuracy: the plan's, and not judged here
    return np.where(fails, np.inf, np.nan_to_num(logs, nan=-np.inf, posinf=np.inf))


def bound(covered: Covered, boxes: Boxes, incumbent: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each group of plans the least log goal that any schedule in the boxes can have, in double precision: never above `incumbent` `(groups,)`.

    `group` `(plans,)` says which incumbent, the best known, a plan has to beat. Boxes that cannot are dropped; those that could by more than `CLOSE` are
    halved, as long as `MOST` allows.
    """

    def known(part: Boxes) -> np.ndarray:
        return incumbent[group[part.plan]]

    value = covered.values(boxes)
    kept: list[tuple[Boxes, np.ndarray]] = []
    for _ in range(ROUNDS):
        boxes, value = _chosen(boxes, value, value < known(boxes) + SINGLE)
        pointlike = (boxes.high - boxes.low).max(axis=1, initial=0) <= 0
        close = (value > known(boxes) - CLOSE) | pointlike
        kept.append(_chosen(boxes, value, close))
        boxes, value = _chosen(boxes, value, ~close)
        if not len(value) or covered.evaluations > 25 * MOST:
            break
        boxes = boxes.split()
        value = covered.values(boxes)
    kept.append((boxes, value))
    boxes, value = boxes.joined([part for part, _ in kept]), np.concatenate([part for _, part in kept])
    least = np.full(len(incumbent), np.inf)
    np.minimum.at(least, group[boxes.plan], value)
    boxes, _ = _chosen(boxes, value, value <= least[group[boxes.plan]] + 2 * SINGLE)  # single precision can have mistaken only these for each other
    found = incumbent.copy()
    if len(boxes.plan):
        np.minimum.at(found, group[boxes.plan], covered.exactly(boxes))
    return found


def _chosen(boxes: Boxes, value: np.ndarray, which: np.ndarray) -> tuple[Boxes, np.ndarray]:
    return boxes.rows(np.flatnonzero(which)), value[which]
