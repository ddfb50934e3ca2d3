"""The best schedule of given compression plans: every grouping and chunk size tried, what stays in HBM of idle caches and shared prefixes refined.

A plan here is a vector of settings or, for layers and heads that differ, a folded sum; the load is always the largest that the targets allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.block_plan import ByBlock
from kvopt.search.evaluate import Given
from kvopt.search.lanes import FIELDS, Lane, chunk_sizes, take
from objectives.types import replace

RESIDENT, PREFIX = FIELDS.index("idle_resident"), FIELDS.index("prefix_cache_tokens")
CHUNK = FIELDS.index("chunk")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of idle caches and of shared prefixes that are tried first
LANES_KEPT = 6  # groupings with their chunk sizes that are refined, for each plan
HALVINGS = 7  # of the steps of the shares: to 1/512


@dataclass(frozen=True)
class Plans:
    """Compression plans to schedule: settings `(plans, fields)`, and the folded sums where layers and heads differ."""

    x: np.ndarray
    by_block: ByBlock | None = None

    def rows(self, index: np.ndarray) -> Plans:
        """Some of the plans."""
        return Plans(self.x[index], None if self.by_block is None else take(self.by_block, index))


@dataclass(frozen=True)
class Scheduled:
    """Plans with their best schedules, one row a plan."""

    lane: np.ndarray  # (plans,) which grouping
    x: np.ndarray  # (plans, fields)
    logs: np.ndarray  # (plans, goals)
    broken: np.ndarray  # (plans, constraints)
    evaluations: int


class Schedules:
    """All schedules of one problem and one choice of methods: its groupings are `lanes`."""

    def __init__(self, problem: Problem, given: Given, lanes: Lane, goal: int) -> None:
        self.given, self.lanes, self.goal = given, lanes, goal
        self.targets = problem.targets
        self.chunks = chunk_sizes(problem)
        self.evaluations = 0

    def measure(self, plans: Plans, plan: np.ndarray, lane: np.ndarray, x: np.ndarray) -> programs.Points:
        """Plans on groupings at settings, one row each, in single precision at the largest load."""
        lanes = replace(take(self.lanes, lane), by_block=None if plans.by_block is None else take(plans.by_block, plan))
        self.evaluations += 25 * len(x)
        return programs.measure(self.given, lanes, programs.repeat(self.targets, len(x)), x)

    def score(self, points: programs.Points) -> np.ndarray:
        """One number a point, less is better; accuracy is the plan's and not judged here."""
        worst = np.maximum(points.broken[:, :-1], 0).sum(axis=1)
        value = np.nan_to_num(points.logs[:, self.goal], nan=1e3, posinf=1e3)
        return np.where(worst > 0, 1e3 + worst, value)

    def grid(self) -> np.ndarray:
        """Every grouping with every chunk size and the first shares: (grouping, chunk, resident share, prefix share) `(combinations, 4)`."""
        able = [self.lanes.high[:, field].max() > 0 for field in (RESIDENT, PREFIX)]
        axes = [np.array(SHARES if can else (0.0,)) for can in able]
        groups = np.arange(len(self.lanes.low), dtype=float)
        return np.stack(np.meshgrid(groups, self.chunks, *axes, indexing="ij"), axis=-1).reshape(-1, 4)

    def settings(self, x: np.ndarray, combos: np.ndarray) -> np.ndarray:
        """Plans' settings with the schedules `(points, 4)` filled in."""
        x = x.copy()
        lane = combos[:, 0].astype(int)
        x[:, CHUNK] = combos[:, 1]
        x[:, RESIDENT] = combos[:, 2] * self.lanes.high[lane, RESIDENT]
        x[:, PREFIX] = combos[:, 3] * self.lanes.high[lane, PREFIX]
        return x

    def try_all(self, plans: Plans, plan: np.ndarray, combos: np.ndarray) -> programs.Points:
        """Some plans at some schedules, one row each."""
        return self.measure(plans, plan, combos[:, 0].astype(int), self.settings(plans.x[plan], combos))

    def best(self, plans: Plans, anchors: np.ndarray | None = None) -> Scheduled:
        """The best schedule of each plan. Groupings and chunk sizes are tried on the `anchors` (all plans unless given); others take those of the two next."""
        count = len(plans.x)
        anchors = np.arange(count) if anchors is None else anchors
        combos = self.grid()
        kept = self._promising(plans, anchors, combos)
        distance = np.abs(np.arange(count)[:, None] - anchors[None])
        near = np.argsort(distance, axis=1, kind="stable")[:, : min(2, 1 + (len(anchors) < count))]
        plan = np.repeat(np.arange(count), kept.shape[1] * near.shape[1])
        tried = kept[near].reshape(-1, 4)
        points = self.try_all(plans, plan, tried)
        return self._refined(plans, plan, tried, points)

    def _promising(self, plans: Plans, anchors: np.ndarray, combos: np.ndarray) -> np.ndarray:
        """For each anchor its best schedules, each grouping and chunk size once: `(anchors, LANES_KEPT, 4)`."""
        plan = np.repeat(anchors, len(combos))
        score = self.score(self.try_all(plans, plan, np.tile(combos, (len(anchors), 1)))).reshape(len(anchors), -1)
        _, group = np.unique(combos[:, :2], axis=0, return_inverse=True)
        group = group.ravel()
        found = []
        for line in score:
            order = np.argsort(line, kind="stable")
            _, first = np.unique(group[order], return_index=True)
            best = order[np.sort(first)[:LANES_KEPT]]
            found.append(combos[np.resize(best, LANES_KEPT)])
        return np.array(found)

    def _refined(self, plans: Plans, plan: np.ndarray, combos: np.ndarray, points: programs.Points) -> Scheduled:
        """The shares moved by ever smaller steps, then the best schedule of each plan."""
        score = self.score(points)
        able = [k for k, field in ((2, RESIDENT), (3, PREFIX)) if self.lanes.high[:, field].max() > 0]
        step = SHARES[1]
        for _ in range(HALVINGS if able else 0):
            step /= 2
            moves = np.array([sign * step * np.eye(4)[k] for k in able for sign in (-1, 1)])
            tried = combos[:, None] + moves[None]
            tried[..., 2:] = np.clip(tried[..., 2:], 0, 1)
            flat = tried.reshape(-1, 4)
            got = self.try_all(plans, np.repeat(plan, len(moves)), flat)
            scores = np.concatenate([score[:, None], self.score(got).reshape(len(plan), -1)], axis=1)
            best = scores.argmin(axis=1)
            better = np.flatnonzero(best > 0)
            rows = better * len(moves) + best[better] - 1
            combos = combos.copy()
            combos[better], score = flat[rows], scores.min(axis=1)
            points = programs.Points(*(_put(old, better, new[rows]) for old, new in zip(points, got, strict=True)))
        order = np.lexsort((score, plan))
        _, first = np.unique(plan[order], return_index=True)
        rows = order[first]
        lane = combos[rows, 0].astype(int)
        return Scheduled(lane, points.x[rows], points.logs[rows], points.broken[rows], self.evaluations)


def _put(old: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    old = old.copy()
    old[rows] = new
    return old


def stacked_blocks(parts: Sequence[ByBlock]) -> Any:
    """Folded plans on a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
