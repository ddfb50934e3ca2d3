"""The best deployable plan of a set of choices, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np

from kvopt.metrics import assess
from kvopt.plans import pruned
from kvopt.problem import Problem
from kvopt.search.evaluate import GOALS, State, log_goal
from kvopt.search.lanes import Choice
from kvopt.search.pipeline import Found, Progress, Search, Space, Tally, given_active

AS_GOOD = 1e-3  # relative: among plans this close to the best, the one that keeps the most accuracy is taken
EXACTLY = 24  # points of a search that are evaluated again in double precision


@dataclass(frozen=True)
class Point:
    """One deployable plan with all that is known of it."""

    choice: Choice
    x: np.ndarray
    state: State

    @property
    def feasible(self) -> bool:
        """Whether every constraint holds."""
        return bool(np.all(np.asarray(self.state.broken) <= 0))


def run(
    problem: Problem, searched: Space, objectives: Sequence[str], seed: int, progress: Progress | None = None, fronts: int = 12
) -> tuple[Found, Tally]:
    """Every deployable, feasible point that a search of this space comes across."""
    search = Search(problem, searched, objectives, seed, progress)
    return search.run(fronts), search.tally


def points(problem: Problem, choices: Sequence[Choice], found: Found, rows: np.ndarray, load: bool = True) -> list[Point]:
    """Some of the found points without the methods they do not use, evaluated in double precision."""
    if not len(rows):
        return []
    chosen = [pruned(choices[found.choice[row]], found.x[row]) for row in rows]
    x, states = assess(problem, chosen, found.x[rows], load)
    return [Point(choice, vector, state) for choice, vector, state in zip(chosen, x, states, strict=True)]


def best(problem: Problem, choices: Sequence[Choice], found: Found, objective: str) -> Point | None:
    """The best of the found points, or `None` where none is feasible. Near-ties go to the plan that keeps the most accuracy."""
    column = list(GOALS).index(objective)
    near = np.flatnonzero(found.logs[:, column] <= found.logs[:, column].min(initial=np.inf) + 2 * AS_GOOD)
    by_accuracy = near[np.lexsort((found.logs[near, column], found.logs[near, list(GOALS).index("accuracy_retained")]))][:EXACTLY]
    by_value = np.argsort(found.logs[:, column], kind="stable")[:EXACTLY]
    candidates = [point for point in points(problem, choices, found, np.unique([*by_accuracy, *by_value]).astype(int)) if point.feasible]
    if not candidates:
        return None
    values = np.array([float(log_goal(objective, point.state)) for point in candidates])
    loss = np.array([float(log_goal("accuracy_retained", point.state)) for point in candidates])
    good = np.flatnonzero(values <= values.min() + AS_GOOD)
    return candidates[good[np.lexsort((values[good], np.round(loss[good], 9)))[0]]]


def front(
    problem: Problem,
    choices: Sequence[Choice],
    found: Found,
    objectives: Sequence[str],
    most: int,
    load: bool,
    known: Sequence[Point | None] = (),
) -> list[Point]:
    """The non-dominated of the found points, at most `most`, spread along the front, and of points known otherwise; evaluated in double precision."""
    columns = [list(GOALS).index(name) for name in objectives]
    logs = found.logs[:, columns]
    rows = np.flatnonzero(moocore.is_nondominated(logs, keep_weakly=False)) if len(logs) else np.zeros(0, int)
    rows = rows[thinned(logs[rows], most)]
    exact = [point for point in points(problem, choices, found, rows, load) if _holds(point, objectives)]
    exact += [point for point in known if point is not None]
    if not exact:
        return []
    values = np.array([[float(log_goal(name, point.state)) for name in objectives] for point in exact])
    kept = np.flatnonzero(moocore.is_nondominated(values, keep_weakly=False))
    return [exact[row] for row in kept[np.argsort(values[kept, 0])]]


def _holds(point: Point, objectives: Sequence[str]) -> bool:
    return bool(np.all(given_active(objectives) * np.asarray(point.state.broken) <= 0))


def thinned(logs: np.ndarray, most: int) -> np.ndarray:
    """Rows of a front, at most `most`: its ends, then whichever is farthest from those taken."""
    if len(logs) <= most:
        return np.arange(len(logs))
    span = np.maximum(logs.max(axis=0) - logs.min(axis=0), 1e-12)
    scaled = (logs - logs.min(axis=0)) / span
    taken = list(dict.fromkeys(int(row) for row in scaled.argmin(axis=0)))
    distance = np.min([np.linalg.norm(scaled - scaled[row], axis=1) for row in taken], axis=0)
    while len(taken) < most:
        row = int(distance.argmax())
        taken.append(row)
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[row], axis=1))
    return np.array(taken)


def goal_values(point: Point) -> dict[str, Any]:
    """The goals of a point as plain numbers."""
    return {name: float(point.state.values[name]) for name in GOALS}
