"""A bound on uniform plans: every deployable plan that no other one undercuts within the accuracy floor, on every grouping, its schedules covered by boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import moocore
import numpy as np

from kvopt.problem import Problem
from kvopt.search.blocks.plan import lower_end
from kvopt.search.boxes import Covered, bound, cover
from kvopt.search.evaluate import GOALS
from kvopt.search.grid import DIMENSIONS, Grid
from kvopt.search.lanes import chunk_sizes
from kvopt.search.pipeline import Space, given, known
from kvopt.search.schedules import Plans
from kvopt.search.starts import SPENT, loss_tables

RATES = ("sessions_per_gpu_hour", "users_per_gpu", "output_tokens_per_gpu_s", "cost_per_session_usd", "energy_per_session_j")
"""Objectives that are one rate under other names: the bound of any of them is that of the rate."""


@dataclass(frozen=True)
class Bound:
    """The most that any plan of a search space can give."""

    sessions_per_gpu_hour: float
    gap_percent: float  # 100 * (bound / value - 1), never below 0
    evaluations: int


def uniform_bound(problem: Problem, searched: Space, value: float) -> Bound:
    """The bound on sessions per GPU-hour over all uniform plans of the space; `value` is the best that was found [1/h]."""
    plans, of = minimal_plans(problem, searched)
    own = known(given(problem, ()))
    covered = Covered(own, searched.lanes, problem.targets, Plans(plans), list(GOALS).index("sessions_per_gpu_hour"))
    allowed = of[:, None] == searched.grid.of[None, :]
    boxes = cover(np.arange(len(plans)), searched.lanes, allowed, chunk_sizes(problem))
    found = bound(covered, boxes, np.full(1, -math.log(value)), np.zeros(len(plans), int))
    most = math.exp(-float(found[0]))
    return Bound(most, 100 * (most / value - 1), covered.evaluations)


def minimal_plans(problem: Problem, searched: Space) -> tuple[np.ndarray, np.ndarray]:
    """Plans within the floor of which no setting can be lowered alone: settings `(plans, fields)`, and whose methods they are of (row of the grid).

    Every other plan within the floor keeps at least as much of everything as one of these. What two dimensions lose beyond their sum is left out, which
    only adds plans.
    """
    tables = [loss_tables(searched.grid, searched.lanes, z) for z in (0.0, float(problem.targets.z))]
    retained = max(weights.retained for weights in problem.checkpoints)
    budget = -math.log(float(problem.targets.accuracy_floor)) + math.log(retained)
    found = [_of_methods(searched.grid, row, tables, budget) for row in range(len(searched.grid.counts))]
    first = [int(np.flatnonzero(searched.grid.of == row)[0]) for row in range(len(found))]
    rows = np.concatenate([np.full(len(index), row) for row, index in enumerate(found)])
    choice = np.array(first)[rows]
    index = np.concatenate(found)
    return searched.grid.settings(choice, index, np.ones(len(index))), rows


def _of_methods(grid: Grid, row: int, tables: list[np.ndarray], budget: float) -> np.ndarray:
    """Indices `(plans, DIMENSIONS)` of the minimal plans of one choice of methods."""
    counts = grid.counts[row, : len(SPENT)]
    index = np.stack(np.meshgrid(*(np.arange(count) for count in counts), indexing="ij"), axis=-1).reshape(-1, len(SPENT))
    middle, edge = (np.stack([table[row, d][index[:, d]] for d in range(len(SPENT))], axis=-1) for table in tables)
    holds = lower_end(_by_dimension(middle), _by_dimension(edge)) <= budget + 1e-9
    index = index[holds]
    if not len(index):
        return np.zeros((0, len(DIMENSIONS)), int)
    bits = grid.formats[row][index[:, SPENT.index("format")]]
    kept = np.concatenate([np.delete(index, SPENT.index("format"), axis=1), bits], axis=1).astype(float)
    full = np.stack([index[:, SPENT.index(name)] == counts[SPENT.index(name)] - 1 for name in ("token", "key_rank", "value_rank")], axis=1)
    full = np.concatenate([full, bits >= 16], axis=1)  # a method costs something of its own as soon as it is used
    chosen = []
    for group in np.unique(full, axis=0):
        rows = np.flatnonzero((full == group).all(axis=1))
        chosen.append(rows[moocore.is_nondominated(kept[rows], keep_weakly=False)])
    rows = np.concatenate(chosen)
    return np.concatenate([index[rows], np.zeros((len(rows), len(DIMENSIONS) - len(SPENT)), int)], axis=1)


def _by_dimension(losses: np.ndarray) -> np.ndarray:
    """Losses `(plans, SPENT)` with the ranks of K and V as the one dimension that they are."""
    ranks = [SPENT.index("key_rank"), SPENT.index("value_rank")]
    return np.concatenate([np.delete(losses, ranks, axis=1), losses[:, ranks].sum(axis=1, keepdims=True)], axis=1)
