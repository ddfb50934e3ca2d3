"""A plane of contexts and think times, evaluated cell by cell in a few batches: the best plan of every cell, and which constraints stand in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt import named
from kvopt.metrics import NEARLY
from kvopt.problem import Problem
from kvopt.search.batches import in_batches
from kvopt.search.evaluate import Given, State, saturated
from kvopt.search.ideal import column, free, ideal
from kvopt.search.lanes import FIELDS, Choice, stacked, take
from kvopt.search.pipeline import given
from kvopt.search.solve import vector
from objectives.goals import Targets
from objectives.limits import NAMES
from objectives.types import Workload, replace

BATCH = 1024  # points evaluated at once; the last batch is filled up
STEPS = 36  # of the bisection on the load
SHARES, REFINED, ROUNDS = 9, 9, 4  # shares of idle caches in HBM: tried at first, then between the neighbours of the best, so many times
ALIKE = 1e-3  # relative difference of rates that counts as none
BOTH = 2  # rounds in which every fate of idle caches is looked at; then only the better one
PREFIXES = 3  # amounts of shared prefix held, from none to all, where sessions share one
RESIDENT, PREFIX = FIELDS.index("idle_resident"), FIELDS.index("prefix_cache_tokens")
JUDGED = [place for place, name in enumerate(NAMES) if name != "accuracy"]


@dataclass(frozen=True)
class Plane:
    """Every cell `(kept, think, context)` at the largest load that its best plan carries."""

    contexts: np.ndarray  # [tokens]
    thinks: np.ndarray  # [s]
    kept: np.ndarray  # shares of the cache
    rate: np.ndarray  # sessions per GPU-hour, 0 where none is served
    slack: np.ndarray  # (kept, think, context, constraints) relative, in the order of `JUDGED`: negative where not even the least load holds
    ceiling: np.ndarray  # the rate over the prefill ceiling
    resident: np.ndarray  # share of idle caches that stays in HBM
    park: np.ndarray  # whether the others are parked

    @property
    def serves(self) -> np.ndarray:
        """Where some load holds every constraint."""
        return np.asarray(self.slack.min(axis=-1) >= 0)

    @property
    def binds(self) -> np.ndarray:
        """Which constraints bind, as `kvopt.metrics.bottleneck` has it: all with next to no slack, or, where a cell serves nobody, all that fail."""
        return np.where(self.serves[..., None], self.slack < NEARLY, self.slack < 0)


class Points(NamedTuple):
    """Points on their way through the program, leading axis the points."""

    cell: np.ndarray  # place in the flattened plane
    fate: np.ndarray  # which of the groupings
    x: np.ndarray


def _carried(shared: tuple[Given, Any, Targets], sessions: Workload, ttft_s: Array, fate: Array, x: Array) -> tuple[Array, Array, Array]:
    own, lanes, target = shared

    def one(workload: Workload, limit: Array, row: Array, settings: Array) -> tuple[Array, Array, Array]:
        mine = own._replace(system=replace(own.system, workload=workload))
        lane, asked = jax.tree.map(lambda leaf: leaf[row], lanes), replace(target, ttft_s=limit)

        def judged(state: State) -> tuple[Array, Array, Array]:
            ceiling = state.service.sessions_per_gpu_s / state.service.ceiling_per_gpu_s
            return state.values["sessions_per_gpu_hour"], state.broken[jnp.array(JUDGED)], ceiling

        return saturated(mine, lane, asked, settings, STEPS, judged)[1]

    return jax.vmap(one)(sessions, ttft_s, fate, x)


_compiled = jax.jit(_carried)


class Evaluator:
    """The cells of one plane. `problems`: one a context, alike but for it."""

    def __init__(self, problems: Sequence[Problem], thinks: np.ndarray, kept: np.ndarray) -> None:
        first = problems[0]
        self.problems, self.shape = problems, (len(kept), len(thinks), len(problems))
        chosen, self.fixed = named.methods(first)
        self.grouped = named.groupings(first)
        along = free(chosen)
        lanes = ideal(stacked(first, [Choice(deployment, first.checkpoints[0], chosen) for deployment in self.grouped]), along)
        self.shared = (given(first, ()), lanes, first.targets)
        k, t, c = (axis.ravel() for axis in np.indices(self.shape))
        # sessions of every context, then of every cell with its own think time
        sessions = jax.tree.map(lambda *leaves: np.stack(leaves), *(problem.sessions for problem in problems))
        self.sessions = replace(take(sessions, c), think_s=np.broadcast_to(thinks[t][:, None], sessions.think_s[c].shape))
        self.ttft = np.array([float(problem.targets.ttft_s) for problem in problems])[c]
        self.settings = np.array([vector(problem, self.fixed) for problem in problems])[c]
        self.settings[:, column(along)] = kept[k]
        self.prefix = np.array([float(problem.sessions.reuse_tokens[-1]) for problem in problems])[c] if first.keeps_prefixes else None

    def at(self, points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sessions per GPU-hour, violations, share of the prefill ceiling) of every point."""
        with jax.enable_x64(True):
            rate, broken, ceiling = in_batches(
                _compiled, self.shared, (take(self.sessions, points.cell), self.ttft[points.cell], points.fate, points.x), BATCH
            )
        return rate, broken, ceiling

    def begin(self) -> Points:
        """Every fate, some shares of resident idle caches and amounts of prefix, of every cell."""
        cells = int(np.prod(self.shape))
        shares = np.linspace(0, 1, SHARES) if self.problems[0].keeps_idle_caches else np.zeros(1)
        held = np.linspace(0, 1, PREFIXES) if self.prefix is not None else np.zeros(1)
        cell, fate, share, prefix = (
            axis.ravel() for axis in np.meshgrid(np.arange(cells), np.arange(len(self.grouped)), shares, held, indexing="ij")
        )
        x = self.settings[cell]
        x[:, RESIDENT] = share
        if self.prefix is not None:
            x[:, PREFIX] = prefix * self.prefix[cell]
        return Points(cell, fate, x)

    def refined(self, best: Points, width: float) -> Points:
        """More shares of resident idle caches within `width` of the best of every cell and fate."""
        steps = np.linspace(-width, width, REFINED)
        x = np.repeat(best.x, REFINED, axis=0)
        x[:, RESIDENT] = np.clip(x[:, RESIDENT] + np.tile(steps, len(best.x)), 0, 1)
        return Points(np.repeat(best.cell, REFINED), np.repeat(best.fate, REFINED), x)


def evaluated(problems: Sequence[Problem], thinks: np.ndarray, kept: np.ndarray) -> Plane:
    """The plane of `kept` shares x think times [s] x contexts (one problem each). What is kept is ideal: free of loss, stored, read and moved alike."""
    evaluator = Evaluator(problems, thinks, kept)
    points, width = evaluator.begin(), 1 / (SHARES - 1)
    parts = [(points, evaluator.at(points))]
    for turn in range(ROUNDS if problems[0].keeps_idle_caches else 0):
        every, found = _joined(parts)
        more = evaluator.refined(_taken(every, _best(every, found, by_fate=turn < BOTH)), width)
        parts.append((more, evaluator.at(more)))
        width *= 2 / (REFINED - 1)
    every, found = _joined(parts)
    rows = _best(every, found, by_fate=False, alike=ALIKE)
    best, (rate, broken, ceiling) = _taken(every, rows), tuple(leaf[rows] for leaf in found)
    slack = -broken.reshape(*evaluator.shape, -1)
    rate, ceiling, resident, fate = (part.reshape(evaluator.shape) for part in (rate, ceiling, best.x[:, RESIDENT], best.fate))
    park = np.array([deployment.park for deployment in evaluator.grouped])[fate]
    contexts = np.array([problem.context for problem in problems])
    return Plane(contexts, thinks, kept, np.where(slack.min(axis=-1) >= 0, rate, 0.0), slack, ceiling, resident, park)


def _joined(parts: Sequence[tuple[Points, tuple[np.ndarray, ...]]]) -> tuple[Points, tuple[np.ndarray, ...]]:
    points = Points(*(np.concatenate([getattr(part, name) for part, _ in parts]) for name in Points._fields))
    return points, tuple(np.concatenate(leaves) for leaves in zip(*(found for _, found in parts), strict=True))


def _taken(points: Points, rows: np.ndarray) -> Points:
    return Points(*(leaf[rows] for leaf in points))


def _best(points: Points, found: tuple[np.ndarray, ...], by_fate: bool, alike: float = 0.0) -> np.ndarray:
    """The row of the best point of every cell, or of every cell and fate: the highest rate, or the least violation where none holds.

    Among rates within `alike` of the best, the one that keeps the fewest idle caches in HBM: memory that gains nothing is not used.
    """
    rate, broken, _ = found
    worst = broken.max(axis=1)
    score = np.where(worst <= 0, np.log(np.maximum(rate, 1e-300)), -1e6 - worst)
    group = points.cell * (1 + points.fate.max()) + points.fate if by_fate else points.cell
    _, place = np.unique(group, return_inverse=True)
    top = np.full(place.max() + 1, -np.inf)
    np.maximum.at(top, place, score)
    order = np.lexsort((-score, points.x[:, RESIDENT], score < top[place] - alike, place))
    return np.asarray(order[np.unique(place[order], return_index=True)[1]])
