"""The best settings of every one of many choices: what a search for the one best plan leaves unexplored.

The exchange of `kvopt.search.pipeline`, with a best point for each choice instead of a few for all. Everything is measured in the batches of one compiled
program, so that thousands of choices cost seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kvopt.metrics import assess
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import FIELDS, Choice
from kvopt.search.pipeline import INFEASIBLE, Search, Space, space
from kvopt.search.starts import sample

STARTS = 12  # of each choice: uncompressed, and plans that spend the accuracy budget on random shares of its dimensions
ROUNDS = 10  # of exchange, at most
STEPS = (-16, -5, -2, -1, 1, 2, 5, 16)  # of one dimension
ROUNDING = 1e-5  # relative: what single precision cannot tell from a broken constraint is left out
LOSS_WEIGHT = 0.02  # of the log loss beside the log objective: among plans within 0.1 % of each other the one that keeps more accuracy is taken


Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of choices `(points,)` at grid indices `(points, dimensions)`: less is better


@dataclass
class Best:
    """The best point of each choice: grid indices `(choices, dimensions)` and scores `(choices,)`, less is better."""

    index: np.ndarray
    score: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Which choices have a point that breaks no constraint `(choices,)`."""
        return np.asarray(self.score < INFEASIBLE / 2)


def descend(counts: np.ndarray, score: Score, choice: np.ndarray, index: np.ndarray) -> Best:
    """From the best start of each choice, moves as long as one gains. `counts` `(choices, dimensions)`: values of each dimension."""
    many = len(counts)
    best = Best(np.zeros((many, counts.shape[1]), int), np.full(many, np.inf))
    moves = _moves(counts)
    gained = _take(best, score, choice, index)
    for _ in range(ROUNDS):
        if not len(gained):
            break
        choice, index = _neighbours(counts, best, gained, moves)
        gained = _take(best, score, choice, index)
    return best


def _take(best: Best, score: Score, choice: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Scores points and keeps those that are better than the best of their choice. Returns the choices that gained."""
    if not len(choice):
        return np.zeros(0, int)
    found = score(choice, index)
    order = np.lexsort((found, choice))
    places, first = np.unique(choice[order], return_index=True)
    rows = order[first]
    gained = found[rows] < best.score[places] - 1e-7
    places, rows = places[gained], rows[gained]
    best.index[places], best.score[places] = index[rows], found[rows]
    return np.asarray(places)


def _moves(counts: np.ndarray) -> np.ndarray:
    """Moves `(moves, dimensions)`: one dimension by one of `STEPS`, or two by one or four steps against each other."""
    unit = np.eye(counts.shape[1], dtype=int)
    movable = np.flatnonzero(counts.max(axis=0, initial=1) > 1)
    alone = [by * unit[d] for d in movable for by in STEPS]
    both = [by * (unit[a] - unit[b]) for a, b in itertools.permutations(movable, 2) for by in (1, 4)]
    return np.array([*alone, *both], int).reshape(-1, counts.shape[1])


def _neighbours(counts: np.ndarray, best: Best, some: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points one move away from the best of some choices, each once; a move of a dimension that a choice lacks is none."""
    able = np.all((moves[None] == 0) | (counts[some] > 1)[:, None], axis=2)
    row, move = np.nonzero(able)
    choice = some[row]
    index = np.clip(best.index[choice] + moves[move], 0, counts[choice] - 1)
    fresh = np.any(index != best.index[choice], axis=1)
    points = np.unique(np.column_stack([choice[fresh], index[fresh]]), axis=0)
    return points[:, 0], points[:, 1:]


class Each:
    """One problem and its choices, searched for the best settings of each of them."""

    def __init__(self, problem: Problem, choices: list[Choice], objective: str) -> None:
        self.problem, self.objective = problem, objective
        self.space: Space = space(problem, choices)
        self.search = Search(problem, self.space, [objective], problem.scenario.seed)

    def run(self, known: Mapping[int, np.ndarray] | None = None) -> Best:
        """The best point of each choice. `known`: settings `(points, fields)` that some choices start from as well, by the place of the choice."""
        grid = self.space.grid
        x = sample(self.problem, self.space.lanes, grid, STARTS, False, self.search.rng).reshape(-1, len(FIELDS))
        choice = np.repeat(np.arange(len(self.space.choices)), STARTS)
        if known:
            choice = np.concatenate([choice, *(np.full(len(points), place) for place, points in known.items())])
            x = np.concatenate([x, *known.values()])
        return descend(grid.counts[grid.of], self._score, choice, grid.nearest(choice, x))

    def settings(self, best: Best) -> np.ndarray:
        """Settings `(choices, fields)` of the best points, the load left open."""
        every = np.arange(len(self.space.choices))
        return self.space.grid.settings(every, best.index, np.ones(len(every)))

    def _score(self, choice: np.ndarray, index: np.ndarray) -> np.ndarray:
        found = self.search.measure(choice, self.space.grid.settings(choice, index, np.ones(len(choice))), relaxed=True)
        return scored(found.logs, found.broken, self.objective)


def scored(logs: np.ndarray, broken: np.ndarray, objective: str) -> np.ndarray:
    """One number a point, less is better: the log objective with a little of the log loss; a broken constraint is worse than any objective."""
    value = logs[:, list(GOALS).index(objective)] + LOSS_WEIGHT * logs[:, list(GOALS).index("accuracy_retained")]
    worst = np.maximum(broken[:, :-1], 0).sum(axis=1) + np.maximum(broken[:, -1] + ROUNDING, 0)  # accuracy comes last
    return np.where(worst > 0, INFEASIBLE + worst, np.nan_to_num(value, nan=2 * INFEASIBLE, posinf=2 * INFEASIBLE))


def exactly(problem: Problem, choices: list[Choice], x: np.ndarray) -> list[Point]:
    """The points in double precision, at the largest load that each carries."""
    if not choices:
        return []
    settings, states = assess(problem, choices, x)
    return [Point(choice, vector, state) for choice, vector, state in zip(choices, settings, states, strict=True)]
