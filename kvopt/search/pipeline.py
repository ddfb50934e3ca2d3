"""The search: screen every lane at random, climb from the best, repair to what can be deployed, exchange until nothing helps.

Everything that is ever evaluated at a deployable point is kept, so that a front is drawn from all of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.evaluate import GOALS, UNCONSTRAINED_BY, Given
from kvopt.search.grid import DIMENSIONS, RESIDENT_STEPS, Grid, grid
from kvopt.search.lagrangian import STEPS, Scalarisation, excess
from kvopt.search.lanes import BATCH, FIELDS, Choice, Lane, sequence_cap, stacked, take
from kvopt.search.starts import sample
from objectives.limits import NAMES
from objectives.types import replace

SCREENED = 16  # random points a lane
STARTS = 240  # lanes that are climbed from, shared out among the scalarisations
ROUNDS = 12  # of exchange, at most
POLISHED = 6  # halvings of the steps of outcomes
FINEST_LOSS = 3e-3  # the least log loss of accuracy that a front resolves
KEPT = 48  # points that one scalarisation exchanges from
INFEASIBLE = 1e3  # score of the least violation: above that of any feasible point

Progress = Callable[[str, float], None]


@dataclass
class Tally:
    """What a search cost."""

    started: float = field(default_factory=time.perf_counter)
    evaluations: int = 0

    @property
    def seconds(self) -> float:
        """[s] since the search began."""
        return time.perf_counter() - self.started


@dataclass(frozen=True)
class Found:
    """Deployable points: the choice and the settings of each, its goals on the log scale, and its violations."""

    choice: np.ndarray  # (points,) index into the choices
    x: np.ndarray  # (points, fields)
    logs: np.ndarray  # (points, goals), order of GOALS
    broken: np.ndarray  # (points, constraints)

    def best(self, rows: np.ndarray) -> Found:
        """Some of the points."""
        return Found(self.choice[rows], self.x[rows], self.logs[rows], self.broken[rows])

    @property
    def feasible(self) -> np.ndarray:
        """Which points break no constraint `(points,)`."""
        return np.asarray(np.all(self.broken <= 0, axis=1))


def given_active(objectives: Sequence[str]) -> np.ndarray:
    """Which constraints hold `(constraints,)`, 1 or 0: an objective takes the place of the limit on the same latency."""
    off = {UNCONSTRAINED_BY[name] for name in objectives if name in UNCONSTRAINED_BY}
    return np.array([float(name not in off) for name in NAMES])


def given(problem: Problem, objectives: Sequence[str]) -> Given:
    """What all lanes share."""
    return Given(problem.system(), np.asarray(sequence_cap(problem)), given_active(objectives))


def steering(problem: Problem, objectives: Sequence[str]) -> Given:
    """What steers a search: a few atoms of the sessions in the place of all, and every number known."""
    whole = known(given(problem, objectives))
    return whole._replace(system=replace(whole.system, workload=problem.few_sessions))


def known(whole: Given) -> Given:
    """The same with a number for an unknown price or link: it bears on no plan that is searched, and keeps every goal and gradient finite."""
    accelerator = jax.tree.map(lambda leaf: np.where(np.isnan(leaf), 1.0, leaf), whole.system.accelerator)
    return whole._replace(system=replace(whole.system, accelerator=accelerator))


def scores(logs: np.ndarray, broken: np.ndarray, scalarisation: Scalarisation) -> np.ndarray:
    """One number a point `(scalarisations, points)`, less is better; a broken constraint is worse than any goal."""
    used = scalarisation.weights.any(axis=0)
    gaps = scalarisation.weights[:, None, used] * (logs[None][:, :, used] - scalarisation.ideal[:, None, used])
    limited = np.isfinite(scalarisation.ceiling)
    above = np.where(limited[:, None], excess(logs[None], np.where(limited, scalarisation.ceiling, 0.0)[:, None]), -1.0)
    worst = np.maximum(broken, 0).sum(axis=1)[None] + np.maximum(above, 0).sum(axis=2)
    finite = np.nan_to_num(gaps.max(axis=2) + 1e-3 * gaps.sum(axis=2), nan=INFEASIBLE, posinf=INFEASIBLE)
    return np.where(worst > 0, INFEASIBLE + worst, finite)


def scalarise(objectives: Sequence[str], count: int, ideal: np.ndarray, worst: np.ndarray, rng: np.random.Generator) -> Scalarisation:
    """Ways to make one goal of several `(ways, goals)`: a single objective has one.

    Two have weights over a range of ratios, and levels of the second under which the first is optimised, from `ideal` to `worst` of what was screened; more
    have weights on a random simplex, and levels of all but the first.
    """
    columns = [list(GOALS).index(name) for name in objectives]
    if len(columns) == 1:
        rows = np.ones((1, 1))
    elif len(columns) == 2:
        ratio = np.logspace(-2, 2, count // 2)
        rows = np.stack([ratio, 1 / ratio], axis=1) / (ratio + 1 / ratio)[:, None]
    else:
        rows = rng.dirichlet(np.full(len(columns), 0.6), size=count // 2)
    weights = np.zeros((len(rows), len(GOALS)))
    weights[:, columns] = np.maximum(rows, 1e-3)
    ceiling = np.full_like(weights, np.inf)
    if len(columns) > 1:
        levels = np.full((count, len(GOALS)), np.inf)
        for column in columns[1:]:
            low, high = ideal[column], worst[column]
            at = np.linspace(0, 1, count) if len(columns) == 2 else rng.permuted(np.linspace(0, 1, count))
            accuracy = column == list(GOALS).index("accuracy_retained")  # a loss spans decades
            levels[:, column] = (
                np.exp(np.log(FINEST_LOSS) + (np.log(max(high, 2 * FINEST_LOSS)) - np.log(FINEST_LOSS)) * at) if accuracy else low + (high - low) * at
            )
        first = np.zeros((count, len(GOALS)))
        first[:, columns[0]] = 1.0
        first[:, columns[1:]] = 1e-3  # breaks ties towards the others
        weights, ceiling = np.concatenate([weights, first]), np.concatenate([ceiling, levels])
    return Scalarisation(weights, np.broadcast_to(ideal, weights.shape), ceiling)


@dataclass(frozen=True)
class Space:
    """What is searched: choices, their lanes, and the values that each can take."""

    choices: tuple[Choice, ...]
    lanes: Lane
    grid: Grid


def space(problem: Problem, choices: Sequence[Choice]) -> Space:
    """The search space of some choices."""
    return Space(tuple(choices), linked(stacked(problem, choices)), grid(problem, list(choices)))


def linked(lanes: Lane) -> Lane:
    """Lanes with a number for an unknown scale-up link: they have one rank each."""
    return replace(lanes, scaleup_bandwidth=np.where(np.isnan(lanes.scaleup_bandwidth), 1.0, lanes.scaleup_bandwidth))


class Search:
    """One problem, one space, any number of scalarisations over the same objectives."""

    def __init__(self, problem: Problem, searched: Space, objectives: Sequence[str], seed: int, progress: Progress | None = None) -> None:
        self.problem, self.choices, self.objectives = problem, searched.choices, tuple(objectives)
        self.load = not {"ttft_s", "tpot_s"} & set(objectives)  # a latency objective trades against load; otherwise the largest load is best
        self.given = steering(problem, objectives)
        self.lanes, self.grid = searched.lanes, searched.grid
        self.rng = np.random.default_rng(seed)
        self.tally = Tally()
        self.progress = progress or (lambda phase, share: None)
        self.archive: list[Found] = []

    def measure(self, choice: np.ndarray, x: np.ndarray, relaxed: bool = False) -> Found:
        """Points evaluated in single precision; deployable ones are kept in the archive."""
        made = programs.measure(self.given, take(self.lanes, choice), programs.repeat(self.problem.targets, len(x)), x, self.load)
        self.tally.evaluations += len(x) * (25 if self.load else 1)
        found = Found(choice, made.x, made.logs, made.broken)
        if not relaxed:
            self.archive.append(found.best(np.flatnonzero(found.feasible & np.isfinite(found.logs).all(axis=1))))
        return found

    def screen(self) -> Found:
        """Settings on every lane that spend a random loss on random shares of its dimensions."""
        x = sample(self.problem, self.lanes, self.grid, SCREENED, "accuracy_retained" in self.objectives, self.rng)
        choice = np.repeat(np.arange(len(self.choices)), SCREENED)
        return self.measure(choice, x.reshape(-1, len(FIELDS)), relaxed=True)

    def climb(self, start: Found, scalarisation: Scalarisation) -> Found:
        """Augmented Lagrangian: each scalarisation from its best screened point of each of its best lanes."""
        rank = scores(start.logs, start.broken, scalarisation)
        rows, which = [], []
        each = max(8, STARTS // len(rank))
        for k, line in enumerate(rank):
            order = np.argsort(line, kind="stable")
            _, first = np.unique(start.choice[order], return_index=True)
            best = order[np.sort(first)[:each]]
            rows.append(best)
            which.append(np.full(len(best), k))
        index, which_all = np.concatenate(rows), np.concatenate(which)
        lanes = take(self.lanes, start.choice[index])
        targets = programs.repeat(self.problem.targets, len(index))
        own = Scalarisation(*(part[which_all] for part in scalarisation))
        x = programs.climb(self.given, lanes, targets, own, start.x[index])
        self.tally.evaluations += len(index) * STEPS
        return Found(start.choice[index], x, start.logs[index], start.broken[index])

    def exchange(self, start: Found, scalarisation: Scalarisation) -> None:
        """Repair to the nearest deployable values, then move one setting, or one up and another down, as long as some scalarisation gains."""
        index = self.grid.nearest(start.choice, start.x)
        choice, batch = start.choice, start.x[:, BATCH]
        seen: set[bytes] = set()
        for count in range(ROUNDS):
            self.progress("exchange", count / ROUNDS)
            index, keep = _unseen(choice, index, batch if not self.load else None, seen)
            choice, batch = choice[keep], batch[keep]
            if not len(choice):
                return
            found = self.measure(choice, self.grid.settings(choice, index, batch))
            self._pool(choice, index, found)
            ranked = scores(self._logs, self._broken, scalarisation)
            best = np.unique(np.concatenate([np.argsort(line, kind="stable")[: max(2, KEPT // len(ranked))] for line in ranked]))
            fresh = [row for row in best if row not in self._expanded]
            if not fresh:
                return
            self._expanded.update(fresh)
            choice, index, batch = self._neighbours(np.array(fresh))

    _logs: np.ndarray
    _broken: np.ndarray

    def _pool(self, choice: np.ndarray, index: np.ndarray, found: Found) -> None:
        """Adds measured deployable points to those that exchange starts from."""
        if not hasattr(self, "_index"):
            self._choice, self._index, self._x, self._logs, self._broken = choice, index, found.x, found.logs, found.broken
            self._expanded: set[int] = set()
            return
        self._choice = np.concatenate([self._choice, choice])
        self._index = np.concatenate([self._index, index])
        self._x = np.concatenate([self._x, found.x])
        self._logs = np.concatenate([self._logs, found.logs])
        self._broken = np.concatenate([self._broken, found.broken])

    def _neighbours(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All points one move away: one dimension by one, two or five steps; two by one step each; without load saturation also another load."""
        moves = []
        dims = len(DIMENSIONS)
        movable = [d for d in range(dims) if self.grid.counts[self.grid.of[self._choice[rows]], d].max() > 1]
        for d in movable:
            for by in (-5, -2, -1, 1, 2, 5):
                move = np.zeros(dims, int)
                move[d] = by
                moves.append(move)
            for other in movable:
                for by, against in itertools.product((-1, 1), repeat=2) if other > d else ():
                    move = np.zeros(dims, int)
                    move[d], move[other] = by, against
                    moves.append(move)
        loads = (1.0,) if self.load else (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)
        steps = np.array([*moves, *([np.zeros(dims, int)] * (not self.load))]) if moves else np.zeros((1, dims), int)
        choice = np.repeat(self._choice[rows], len(steps) * len(loads))
        index = (self._index[rows][:, None, :] + steps[None]).reshape(-1, dims).repeat(len(loads), axis=0)
        index = np.clip(index, 0, self.grid.counts[self.grid.of[choice]] - 1)
        batch = np.repeat(self._x[rows, BATCH], len(steps) * len(loads)) * np.tile(loads, len(rows) * len(steps))
        low, high = self.lanes.low[choice, BATCH], self.lanes.high[choice, BATCH]
        return choice, index, np.clip(batch, low, high)

    def polish(self, scalarisation: Scalarisation) -> None:
        """Halves the steps of the shares that are outcomes rather than settings: what stays in HBM of idle caches and of shared prefixes."""
        dims = [FIELDS.index(name) for name in ("idle_resident", "prefix_cache_tokens") if np.any(self.lanes.high[:, FIELDS.index(name)] > 0)]
        ranked = scores(self._logs, self._broken, scalarisation)
        rows = np.unique(np.concatenate([np.argsort(line, kind="stable")[: max(2, KEPT // len(ranked))] for line in ranked]))
        choice, x = self._choice[rows], self._x[rows]
        low, high = self.lanes.low[choice], self.lanes.high[choice]
        step = (high - low)[:, dims] / (RESIDENT_STEPS - 1)
        moves = [np.zeros(len(dims)), *(sign * unit for unit in np.eye(len(dims)) for sign in (-1, 1))]
        for _ in range(POLISHED if dims else 0):
            step = step / 2
            tried = np.repeat(x[:, None], len(moves), axis=1)
            tried[:, :, dims] += np.stack(moves)[None] * step[:, None]
            tried = np.clip(tried, low[:, None], high[:, None])
            found = self.measure(np.repeat(choice, len(moves)), tried.reshape(-1, len(FIELDS)))
            gain = scores(found.logs, found.broken, scalarisation).min(axis=0).reshape(len(rows), len(moves))
            x = found.x.reshape(len(rows), len(moves), -1)[np.arange(len(rows)), gain.argmin(axis=1)]

    def run(self, fronts: int = 12) -> Found:
        """Every deployable, feasible point that the search has come across, unordered. `fronts`: scalarisations, where there are several objectives."""
        self.progress("screen", 0.0)
        screened = self.screen()
        feasible = screened.logs[screened.feasible]
        seen = np.where(np.isfinite(feasible), feasible, np.nan) if len(feasible) else np.zeros((1, len(GOALS)))
        ideal, worst = (np.nan_to_num(edge(seen, axis=0)) for edge in (np.nanmin, np.nanmax))
        scalarisation = scalarise(self.objectives, fronts, ideal, worst, self.rng)
        rank = scores(screened.logs, screened.broken, scalarisation)
        best = np.unique(np.concatenate([np.argsort(line, kind="stable")[: max(4, KEPT // len(rank))] for line in rank]))
        both = [screened.best(best)]
        if len(self.objectives) > 1:  # one objective: the exchange finds as much from what was screened
            self.progress("climb", 0.0)
            both.append(self.climb(screened, scalarisation))
        start = Found(*(np.concatenate([getattr(part, name) for part in both]) for name in ("choice", "x", "logs", "broken")))
        self.exchange(start, scalarisation)
        self.polish(scalarisation)
        parts = [found for found in self.archive if len(found.choice)]
        if not parts:
            return Found(np.zeros(0, int), np.zeros((0, len(FIELDS))), np.zeros((0, len(GOALS))), np.zeros((0, len(NAMES))))
        return Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("choice", "x", "logs", "broken")))


def _unseen(choice: np.ndarray, index: np.ndarray, batch: np.ndarray | None, seen: set[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The points not evaluated yet, each once: (their indices, their rows)."""
    keys = np.column_stack([choice, index]) if batch is None else np.column_stack([choice, index, np.round(np.log(batch) * 100).astype(int)])
    rows = []
    for row, line in enumerate(keys):
        mark = line.tobytes()
        if mark not in seen:
            seen.add(mark)
            rows.append(row)
    keep = np.array(rows, int)
    return index[keep], keep
