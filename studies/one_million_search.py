"""The combination of methods that loses least and cuts some costs to a target, and the one that comes closest above an accuracy floor.

Two steps. First a bound on every combination: were the methods' cuts to multiply and their losses to add, the Lagrangian dual of the choice of ratios bounds
what the combination can reach. Then the most promising combinations of each size are searched ratio by ratio with the model itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import DIMENSIONS, MethodSpec
from kvopt.problem import Problem
from kvopt.search.deployments import Deployment
from kvopt.search.grid import Grid, grid
from kvopt.search.lanes import FIELDS, Choice
from objectives.types import Plan
from studies import combinations
from studies.best_of_each import INFEASIBLE, descend
from studies.one_million_meter import Meter

PRICES = np.geomspace(1e-3, 1e2, 60)  # log loss per unit of ln cut, of the dual
EACH = 4  # methods of a dimension that stay in the running at one price
SEARCHED = 96  # combinations of each size that are searched with the model
AROUND = 2  # every so many prices the search starts from what the dual chooses there
BAND = 1e-9  # relative: what double precision leaves of a target that is met
UNMEASURED = 1e6  # score of a ratio that was not measured, where it must be
MEASURED_AT = 4096.0  # [tokens] a context that every measurement covers: whether a ratio was measured is asked there


@dataclass(frozen=True)
class Goal:
    """What is asked: metrics (columns of `METRICS`) that come down to targets. `budget`: log loss at most, and as near as it allows; none: the least loss."""

    columns: tuple[int, ...]
    budget: float | None = None
    measured_only: bool = False


@dataclass(frozen=True)
class Answer:
    """One combination: the choice, its settings, its costs; `remains` [times the target] by metric."""

    choice: Choice
    x: np.ndarray
    metrics: np.ndarray  # (metrics,)
    loss: float
    worst: float
    remains: np.ndarray  # (metrics,)
    searched: int  # combinations searched with the model
    possible: int  # of so many


class Levers:
    """The methods alone: every setting of each, what it cuts of the metrics, and what it loses."""

    def __init__(self, problem: Problem, methods: Sequence[MethodSpec], deployment: Deployment, context: float, target: np.ndarray) -> None:
        self.problem, self.methods, self.deployment, self.context, self.target = problem, list(methods), deployment, context, target
        sets = [MethodChoice(), *(MethodChoice.of(method) for method in methods)]
        self.choices = [Choice(deployment, problem.checkpoints[0], chosen) for chosen in sets]
        self.grid: Grid = grid(problem, self.choices)
        indices = [self._indices(place) for place in range(len(self.choices))]
        choice = np.repeat(np.arange(len(self.choices)), [len(some) for some in indices])
        self.x = self.grid.settings(choice, np.concatenate(indices), np.ones(len(choice)))
        costs = Meter(problem, self.choices, context).costs(choice, self.x)
        self.base = costs.metrics[0]
        self.of = choice - 1  # the method of each setting; -1: none
        self.cut = np.log(self.base / costs.metrics)  # (settings, metrics)
        self.worst = costs.worst
        self.measured = np.array([place < 0 or measured(problem, self.choices[place + 1], x) for place, x in zip(self.of, self.x, strict=True)])

    def _indices(self, place: int) -> np.ndarray:
        """Every setting of one method on the grid; what is no setting of it stays at its last, uncompressed value."""
        counts = self.grid.counts[self.grid.of[place]]
        scheduled = len(counts) - 3  # chunk, resident, prefix: not settings of a method
        axes = [np.arange(count) if d < scheduled else np.array([count - 1]) for d, count in enumerate(counts)]
        return np.array(list(itertools.product(*axes)))

    @cached_property
    def needed(self) -> np.ndarray:
        """ln of how many times the uncompressed costs exceed the target, by metric."""
        return np.log(self.base / self.target)

    def search(self, goal: Goal) -> Answer:
        """The best combination for a goal."""
        columns = list(goal.columns)
        useful = (self.of >= 0) & (self.cut[:, columns].max(axis=1) > 1e-9) & (self.measured | (not goal.measured_only))
        cut, need = self.cut[:, columns].mean(axis=1), float(self.needed[columns].mean())
        priced = np.where(useful[:, None], self.worst[:, None] - np.outer(cut, PRICES), np.inf)  # (settings, prices)
        best = np.array([np.append(priced[self.of == place], [np.zeros(len(PRICES))], axis=0).min(axis=0) for place in range(len(self.methods))])
        sets, possible = self._ranked(best.reshape(len(self.methods), len(PRICES)), goal, need)
        answers = self._searched(sets, goal, priced)
        return Answer(*answers, searched=len(sets), possible=possible)

    def _ranked(self, best: np.ndarray, goal: Goal, need: float) -> tuple[list[MethodChoice], int]:
        """The most promising combinations of each size, and how many there are. `best` `(methods, prices)`: each method's least priced loss."""
        pools = []
        for dimension in DIMENSIONS:
            rows = np.array([place for place, method in enumerate(self.methods) if method.dimension == dimension], int)
            near = {
                int(row) for price in range(len(PRICES)) for row in rows[np.argsort(best[rows, price], kind="stable")[:EACH]] if best[row, price] < 0
            }
            pools.append([-1, *sorted(near)])
        possible = int(np.prod([1 + sum(method.dimension == d for method in self.methods) for d in DIMENSIONS]))
        sets = np.array(list(itertools.product(*pools)), int)
        total = sum(np.where(column[:, None] >= 0, best[column], 0.0) for column in sets.T)  # (combinations, prices)
        least_loss, deepest_cut = (PRICES * need + total).max(axis=1), ((goal.budget or 0.0) - total) / PRICES
        bound = least_loss if goal.budget is None else -deepest_cut.min(axis=1)
        size = (sets >= 0).sum(axis=1)
        found: list[MethodChoice] = [MethodChoice()]
        for count in range(1, len(DIMENSIONS) + 1):
            rows = np.flatnonzero(size == count)
            ordered = rows[np.argsort(bound[rows], kind="stable")]
            able = (combinations.joined([self.methods[place] for place in sets[row] if place >= 0]) for row in ordered)
            found += itertools.islice((chosen for chosen in able if chosen is not None), SEARCHED)
        return found, possible

    def _searched(
        self, sets: Sequence[MethodChoice], goal: Goal, priced: np.ndarray
    ) -> tuple[Choice, np.ndarray, np.ndarray, float, float, np.ndarray]:
        choices = [Choice(self.deployment, self.problem.checkpoints[0], chosen) for chosen in sets]
        meter, cells = Meter(self.problem, choices, self.context), grid(self.problem, choices)
        starts = [self._starts(choice.methods, priced) for choice in choices]
        every = np.repeat(np.arange(len(choices)), [len(some) for some in starts])
        index = cells.nearest(every, np.concatenate(starts))

        def score(choice: np.ndarray, at: np.ndarray) -> np.ndarray:
            x = cells.settings(choice, at, np.ones(len(choice)))
            costs = meter.costs(choice, x)
            found = scored(goal, np.log(costs.metrics / self.target), costs.worst)
            if goal.measured_only:
                found = found + UNMEASURED * np.array(
                    [not measured(self.problem, choices[row], vector) for row, vector in zip(choice, x, strict=True)]
                )
            return np.asarray(found)

        best = descend(cells.counts[cells.of], score, every, index)
        row = int(best.score.argmin())
        x = cells.settings(np.array([row]), best.index[[row]], np.ones(1))
        costs = meter.costs(np.array([row]), x)
        return choices[row], x[0], costs.metrics[0], float(costs.loss[0]), float(costs.worst[0]), costs.metrics[0] / self.target

    def _starts(self, chosen: MethodChoice, priced: np.ndarray) -> np.ndarray:
        """Settings that some prices choose for each method, and none at all `(starts, fields)`."""
        places = [next(place for place, method in enumerate(self.methods) if method.id == member.id) for member in chosen.methods]
        found = [self.x[0]]
        for price in range(0, len(PRICES), AROUND):
            x = self.x[0].copy()
            for place in places:
                rows = np.flatnonzero(self.of == place)
                own = self.x[rows[priced[rows, price].argmin()]]
                used = own != self.x[0]
                x[used] = own[used]
            found.append(x)
        return np.unique(np.array(found), axis=0)


def scored(goal: Goal, above: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """One number a plan, less is better. `above` `(plans, METRICS)`: ln of the costs over their targets; `worst`: log loss at the confidence asked for."""
    missing = np.maximum(above[:, list(goal.columns)] - BAND, 0).sum(axis=1)
    if goal.budget is None:
        return np.where(missing > 0, INFEASIBLE + missing + 1e-6 * np.minimum(worst, 1e3), worst)
    over = np.maximum(worst - goal.budget, 0)
    return np.where(over > 0, INFEASIBLE + over, missing + 1e-3 * worst)


def measured(problem: Problem, choice: Choice, x: np.ndarray, context: float = MEASURED_AT) -> bool:
    """Whether every ratio of a plan lies in the range that was measured of its method on this task near `context`, whatever the combination."""
    values = dict(zip(FIELDS, x, strict=True))
    plan = Plan(**{name: values[name] for name in Plan.__dataclass_fields__})
    alone = (MethodChoice.of(method) for method in choice.methods.methods)
    return all(one.evidence(plan, replace(problem.asked, context=MEASURED_AT)) == "interpolated" for one in alone)
