"""A deployed plan solved again where its inputs have moved: its load, the share of idle caches that stays in HBM, and the room for shared prefixes.

The plan and its grouping stay. The load is the largest that holds (`kvopt.search.evaluate.saturated`). The shares are found by steps: where every constraint is
taken as linear, the best load at any shares near by is known at once; of the best of three distances the one is kept that truly serves most. All moved settings
take their steps together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kvopt.search import programs
from kvopt.search.evaluate import State
from kvopt.search.lanes import BATCH, FIELDS, take
from kvopt.search.moves import Setting, together
from objectives.types import replace

SHARES = ("idle_resident", "prefix_cache_tokens")  # outcomes rather than settings: whoever operates the engine does not choose them
FIRST = {1: 17, 2: 9}  # points per share of the grid that a search from nowhere begins with, by how many shares are free
DISTANCES = (1.0, 0.25, 0.0625)  # of the reach, tried at each step
MOST_STEPS = 24
LEAST_GAIN = 1e-3  # of how closely shares are found: what a step must gain of the rate
MOST_FALL = 3.0  # of ln load in one step
DIFFERENCE = 1e-5  # relative, of central differences: in double precision they agree with JAX's derivatives to six digits


@dataclass(frozen=True)
class Solution:
    """The best that one setting allows."""

    x: np.ndarray  # (fields,)
    state: State

    @property
    def feasible(self) -> bool:
        """Whether any load holds."""
        return bool(np.all(np.asarray(self.state.broken) <= 0))

    @property
    def rate(self) -> float:
        """[1/h] sessions per GPU; 0 where no load holds."""
        return float(self.state.values["sessions_per_gpu_hour"]) if self.feasible else 0.0

    @property
    def users(self) -> float:
        """Users per GPU; 0 where no load holds."""
        return float(self.state.values["users_per_gpu"]) if self.feasible else 0.0


class Linear(NamedTuple):
    """The first derivatives of one setting at one point, in y = (ln load, free shares over their range)."""

    rate: np.ndarray  # (y,) of ln rate
    broken: np.ndarray  # (y, constraints)


def free_shares(at: Setting) -> list[int]:
    """Which of `SHARES` the lane leaves open, as indices into the settings."""
    columns = [FIELDS.index(name) for name in SHARES]
    return [column for column in columns if at.lane.high[column] > at.lane.low[column]]


def shares_of(at: Setting, x: np.ndarray) -> np.ndarray:
    """The free shares over their range `(shares,)`, 0 to 1."""
    free = free_shares(at)
    return np.asarray((x[free] - at.lane.low[free]) / (at.lane.high - at.lane.low)[free])


def resolved(settings: Sequence[Setting], x: np.ndarray, finest: float = 1e-4, near: float | None = None) -> list[Solution]:
    """The best solution of every setting, from the same settings `x` `(fields,)`; all have the lane of one plan, with the same shares free.

    `finest`: of the shares' range, how closely they are found. `near`: of it, how far from `x` the best may lie at first; without it a grid over all of it
    comes first.
    """
    free = free_shares(settings[0])
    low, span = settings[0].lane.low[free], (settings[0].lane.high - settings[0].lane.low)[free]

    def at(share: np.ndarray, like: np.ndarray) -> np.ndarray:
        rows = np.repeat(like[None], len(share), axis=0)
        rows[:, free] = low + np.clip(share, 0.0, 1.0) * span
        return rows

    tried = np.asarray(x, np.float64)[None]
    if free and near is None:
        tried = np.concatenate([tried, at(_grid(0.0, 1.0, FIRST[len(free)], len(free)), tried[0])])
    best = _best_of(settings, [tried] * len(settings))
    reach = np.full(len(settings), near or 2 / FIRST.get(len(free), 1))
    for _ in range(MOST_STEPS if free else 0):
        moving = [row for row in range(len(settings)) if reach[row] > finest]
        if not moving:
            break
        linear = derivatives([settings[row] for row in moving], [best[row].x for row in moving])
        aims = {row: _aims(settings[row], best[row], slopes, reach[row], LEAST_GAIN * finest) for row, slopes in zip(moving, linear, strict=True)}
        tries = {row: np.concatenate([best[row].x[None], at(aim, best[row].x)]) for row, aim in aims.items() if aim is not None}
        found = dict(zip(tries, _best_of([settings[row] for row in tries], list(tries.values())), strict=True)) if tries else {}
        for row in moving:
            one = found.get(row, best[row])
            if one.rate > best[row].rate * (1 + LEAST_GAIN * finest):
                reach[row] = min(1.0, 2 * float(np.abs(shares_of(settings[row], one.x) - shares_of(settings[row], best[row].x)).max()))
                best[row] = one
            else:
                reach[row] *= DISTANCES[-1] / 2 if row in found else 0.0
    return best


def _grid(low: float, high: float, count: int, width: int) -> np.ndarray:
    """All points of a grid with `count` values a share `(points, shares)`."""
    return np.array(list(itertools.product(np.linspace(low, high, count), repeat=width)))


def _aims(at: Setting, one: Solution, linear: Linear, reach: float, least: float) -> np.ndarray | None:
    """Shares `(distances, shares)` at which most is served within each distance, were all linear; None where that is no more than `least` better."""
    share = shares_of(at, one.x)
    unit = np.eye(1 + len(share))
    more_load = max(math.log(at.lane.high[BATCH] / one.x[BATCH]), 0.0)
    aims, gains = [], []
    for distance in DISTANCES:
        up, down = np.minimum(distance * reach, 1 - share), np.minimum(distance * reach, share)
        rows = np.concatenate([linear.broken.T, unit[:1], unit[1:], -unit])
        room = np.concatenate([-np.asarray(one.state.broken), [more_load], up, [MOST_FALL], down])
        best = highest_vertex(linear.rate, rows, room)
        if best is not None:
            aims.append(share + best[1:])
            gains.append(float(linear.rate @ best))
    return np.array(aims) if gains and max(gains) > least else None


def highest_vertex(goal: np.ndarray, rows: np.ndarray, room: np.ndarray) -> np.ndarray | None:
    """The v `(n,)` that maximises goal . v under rows v <= room, `(constraints, n)` and `(constraints,)`: the best of all vertices, n being 3 at most.

    Constraints that no v moves are left out. None where there is no vertex.
    """
    size = np.linalg.norm(rows, axis=1)
    rows, room = rows[size > 1e-12] / size[size > 1e-12, None], room[size > 1e-12] / size[size > 1e-12]
    picks = np.array(list(itertools.combinations(range(len(rows)), len(goal))))
    regular = picks[np.abs(np.linalg.det(rows[picks])) > 1e-10]
    if not len(regular):
        return None
    found = np.linalg.solve(rows[regular], room[regular][:, :, None])[:, :, 0]
    inside = found[np.all(found @ rows.T <= room + 1e-10, axis=1)]
    return None if not len(inside) else np.asarray(inside[int(np.argmax(inside @ goal))])


def derivatives(settings: Sequence[Setting], x: Sequence[np.ndarray]) -> list[Linear]:
    """Central differences at the loads stated, one point a setting; shares at a bound differ to the inside."""
    cases: list[tuple[Setting, np.ndarray]] = []
    runs = []
    free = free_shares(settings[0])
    for at, here in zip(settings, x, strict=True):
        for sign in (-1, 1):
            to = here.copy()
            to[BATCH] *= math.exp(sign * DIFFERENCE)
            cases.append((at, to))
            runs.append(sign * DIFFERENCE)
        for share, column in zip(shares_of(at, here), free, strict=True):
            for sign in (-1, 1):
                to, moved = here.copy(), float(np.clip(share + sign * DIFFERENCE, 0.0, 1.0))
                to[column] = at.lane.low[column] + moved * (at.lane.high - at.lane.low)[column]
                cases.append((at, to))
                runs.append(moved - share)
    rows = stated([case[0] for case in cases], np.array([case[1] for case in cases]))
    run = np.array(runs)
    slope = ((rows[1::2] - rows[::2]) / (run[1::2] - run[::2])[:, None]).reshape(len(settings), 1 + len(free), -1)
    return [Linear(one[:, 0], one[:, 2:]) for one in slope]


def stated(settings: Sequence[Setting], x: np.ndarray) -> np.ndarray:
    """ln rate, ln users and the violations `(points, 2 + constraints)` at the loads stated: the program that solves for the load, with no room to move it."""
    given, lanes, targets = together(list(settings))
    _, states = programs.exact(given, replace(lanes, low=_pinned(lanes.low, x), high=_pinned(lanes.high, x)), targets, x)
    logs = [[math.log(float(state.values[name])) for name in ("sessions_per_gpu_hour", "users_per_gpu")] for state in states]
    return np.array([[*log, *np.asarray(state.broken)] for log, state in zip(logs, states, strict=True)])


def _pinned(bound: Any, x: np.ndarray) -> np.ndarray:
    changed = np.array(bound)
    changed[:, BATCH] = x[:, BATCH]
    return changed


def _best_of(settings: Sequence[Setting], tried: Sequence[np.ndarray]) -> list[Solution]:
    """The best of the settings `(points, fields)` tried with each, at its largest load; the first of equals."""
    owner = np.repeat(np.arange(len(settings)), [len(rows) for rows in tried])
    given, lanes, targets = together(list(settings))
    x, states = programs.exact([given[i] for i in owner], take(lanes, owner), take(targets, owner), np.concatenate(tried))
    found = [Solution(row, state) for row, state in zip(x, states, strict=True)]
    starts = np.cumsum([0, *(len(rows) for rows in tried)])
    return [max(found[a:b], key=lambda one: one.rate) for a, b in itertools.pairwise(starts)]
