"""What a little more of each input is worth to the deployed plan: elasticities and prices, from multipliers, checked by solving again.

At its best the plan serves lambda(y, p), y its load and the shares that are outcomes (`kvopt.search.resolved`), p the inputs, under constraints g(y, p) <= 0.
With multipliers mu >= 0 that balance lambda's slope in y against those of the binding constraints (Karush, Kuhn, Tucker), the whole derivative is

    d ln lambda / d ln p = slope of ln lambda in p  -  mu . slope of g in p                       (envelope theorem)

so that what only a constraint holds, as memory, has a price too. Where more constraints bind than y has directions, many mu balance: the least of the
derivatives over them holds to the right, the largest to the left (the directional derivatives of a linear programme's value), and they differ: a kink.

Slopes are central differences over 1e-5 in double precision: they agree with JAX's own derivatives to six digits, whose program takes ten seconds to compile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import numpy as np
from scipy.optimize import linprog, nnls

from kvopt.metrics import plain
from kvopt.problem import Problem
from kvopt.search import best as search
from kvopt.search.best import Point
from kvopt.search.lanes import BATCH
from kvopt.search.moves import INPUTS, Input, Setting, known, setting
from kvopt.search.pipeline import Space
from kvopt.search.resolved import DIFFERENCE, Solution, derivatives, resolved, shares_of, stated
from objectives.limits import NAMES

STEP = 0.1  # relative move of an input when it is solved again
SMALL = 1e-3  # relative move that stands for the derivative where no multipliers balance
BINDING = 1e-5  # slack below which a constraint binds at the solved point
UNBALANCED = 1e-3  # of the slopes, that multipliers may leave over
AGREES, LITTLE = 0.2, 0.01  # two elasticities agree within a fifth of the larger, or within so much
FINEST = 1e-7  # of a share's range, where derivatives are taken
NEAR = 0.1  # of a share's range, how far from the solved point a moved one is looked for at first
FLOOR_STEP = 0.01  # one point of accuracy


@dataclass(frozen=True)
class Slopes:
    """First derivatives at the solved point. y = (ln load, free shares over their range); inputs are ln p."""

    rate_y: np.ndarray  # (y,) of ln rate
    broken_y: np.ndarray  # (binding, y) of the binding constraints, bounds of y among them
    rate_p: np.ndarray  # (inputs,)
    users_p: np.ndarray  # (inputs,) of ln users
    broken_p: np.ndarray  # (binding, inputs)
    names: tuple[str, ...]  # (binding,)


@dataclass(frozen=True)
class Prices:
    """Derivatives of ln rate in ln input, `(inputs,)` each, and what the constraints are worth; `None` where no multipliers balance."""

    left: np.ndarray
    right: np.ndarray
    multipliers: dict[str, float]  # of one percent more room in the constraint, in percent of the rate
    users: np.ndarray  # (inputs,) of ln users beyond ln rate: targets say how long a session lasts


def elasticities(problem: Problem, point: Point) -> dict[str, dict[str, Any]]:
    """By input: `left` and `right`, percent of sessions per GPU-hour per percent of the input, for less and for more of it.

    The plan and its grouping stay, its load and what stays in HBM are solved again. `marginal` are the derivatives, `resolved` the same between now and 10 %
    less or more. Where they differ by more than a fifth, `left` or `right` is None and `left_interval` or `right_interval` holds both ends. `per_unit`: what
    one more unit buys, in the same way. None: unknown, or nothing is served 10 % away.
    """
    at = setting(problem, point)
    names = [name for name, entry in INPUTS.items() if known(entry, at)]
    base = resolved([at], point.x, FINEST)[0]
    if not base.feasible or base.rate <= 0:
        return {name: {"left": None, "right": None} for name in INPUTS}
    units = [INPUTS[name].amount / INPUTS[name].value(at) for name in names]
    moves = [(name, 1 + by) for name, unit in zip(names, units, strict=True) for by in (-STEP, STEP, unit)]
    again = iter(resolved([INPUTS[name].move(at, factor) for name, factor in moves], base.x, near=NEAR))
    found = marginal(at, base, names) or by_small_steps(at, base, names)
    out: dict[str, dict[str, Any]] = {name: {"left": None, "right": None} for name in INPUTS}
    for place, (name, unit) in enumerate(zip(names, units, strict=True)):
        less, more, one = next(again), next(again), next(again)
        slopes = {"left": plain(found.left[place]), "right": plain(found.right[place])}
        steps = {"left": _slope(base.rate, less.rate, 1 - STEP), "right": _slope(base.rate, more.rate, 1 + STEP)}
        out[name] = compared(slopes, steps) | {"marginal": slopes, "resolved": steps}
        out[name]["per_unit"] = _per_unit(INPUTS[name], unit, float(found.right[place]), float(found.users[place]), base, one)
    return out


def compared(slopes: Mapping[str, float | None], steps: Mapping[str, float | None]) -> dict[str, Any]:
    """The derivative where the step over a finite distance confirms it; both ends, and None, where it does not."""
    found: dict[str, Any] = {}
    for side, slope in slopes.items():
        step = steps[side]
        agree = slope is not None and step is not None and abs(slope - step) <= max(AGREES * max(abs(slope), abs(step)), LITTLE)
        found[side] = slope if agree else None
        if slope is not None and step is not None and not agree:
            found[f"{side}_interval"] = [min(slope, step), max(slope, step)]
    return found


def _per_unit(entry: Input, share: float, slope: float, users: float, base: Solution, one: Solution) -> dict[str, Any]:
    """What one more unit buys: by the derivative and by solving again with the unit added."""
    shown: dict[str, Any] = {"unit": entry.unit, "amount": entry.amount}
    for name, now, then, total in (
        ("sessions_per_gpu_hour", base.rate, one.rate, slope),
        ("users_per_gpu", base.users, one.users, slope + users),
    ):
        priced, bought = now * total * share, then - now
        agree = abs(priced - bought) <= max(AGREES * max(abs(priced), abs(bought)), LITTLE * share * now)
        shown[name] = priced if agree else None
        if not agree and math.isfinite(priced):
            shown[f"{name}_interval"] = [min(priced, bought), max(priced, bought)]
    return shown


def marginal(at: Setting, base: Solution, names: Sequence[str]) -> Prices | None:
    """Derivatives by the envelope theorem; None where no multipliers balance the slopes, as where a slope itself has a kink."""
    found = slopes(at, base, names)
    mu, left_over = nnls(found.broken_y.T, found.rate_y) if len(found.names) else (np.zeros(0), float(np.linalg.norm(found.rate_y)))
    if left_over > UNBALANCED * max(float(np.abs(found.rate_y).max()), 1e-3):
        return None
    sides = [one_sided(found, place, left_over) for place in range(len(names))]
    if any(side is None for side in sides):
        return None
    left, right = np.array(sides, float).reshape(len(names), 2).T
    return Prices(left, right, dict(zip(found.names, mu.tolist(), strict=True)), found.users_p - found.rate_p)


def one_sided(found: Slopes, place: int, left_over: float) -> tuple[float, float] | None:
    """(left, right) derivative in one input: over all multipliers that balance as well as the best do."""
    if not len(found.names):
        return float(found.rate_p[place]), float(found.rate_p[place])
    allowed = 1.01 * left_over + 1e-7 * float(np.abs(found.rate_y).max())
    balance, room = found.broken_y.T, np.concatenate([found.rate_y + allowed, allowed - found.rate_y])
    ends = []
    for sign in (1, -1):  # the largest mu . g_p makes the derivative least: that is the right one
        solved = linprog(-sign * found.broken_p[:, place], A_ub=np.concatenate([balance, -balance]), b_ub=room, method="highs")
        if solved.status != 0:
            return None
        ends.append(float(found.rate_p[place] + sign * solved.fun))
    return ends[1], ends[0]


def slopes(at: Setting, base: Solution, names: Sequence[str]) -> Slopes:
    """All first derivatives at a solved point."""
    (linear,) = derivatives([at], [base.x])
    moved = [INPUTS[name].move(at, math.exp(sign * DIFFERENCE)) for name in names for sign in (-1, 1)]
    rows = stated(moved, np.repeat(base.x[None], len(moved), axis=0))
    slope = (rows[1::2] - rows[::2]) / (2 * DIFFERENCE)
    binding = [place for place, name in enumerate(NAMES) if name != "accuracy" and float(base.state.broken[place]) >= -BINDING]
    bounds, bounded = _bounds(shares_of(at, base.x), base.x[BATCH], at)
    return Slopes(
        rate_y=linear.rate,
        broken_y=np.concatenate([linear.broken.T[binding], bounds]),
        rate_p=slope[:, 0],
        users_p=slope[:, 1],
        broken_p=np.concatenate([slope[:, 2:].T[binding], np.zeros((len(bounds), len(names)))]),
        names=(*(NAMES[place] for place in binding), *bounded),
    )


def _bounds(share: np.ndarray, load: float, at: Setting) -> tuple[np.ndarray, tuple[str, ...]]:
    """The bounds that y is at, as constraints `(bounds, y)`: they have slopes of one in y and none in the inputs."""
    width, rows, names = 1 + len(share), [], []
    if load >= at.lane.high[BATCH] * (1 - BINDING):
        rows.append(np.eye(width)[0])
        names.append("most decodes in flight")
    for place, value in enumerate(share, start=1):
        for reached, sign in ((value <= FINEST, -1), (value >= 1 - FINEST, 1)):
            if reached:
                rows.append(sign * np.eye(width)[place])
                names.append("least of a share" if sign < 0 else "all of a share")
    return np.array(rows).reshape(-1, width), tuple(names)


def by_small_steps(at: Setting, base: Solution, names: Sequence[str]) -> Prices:
    """Derivatives by solving again a thousandth away, left and right."""
    moved = [INPUTS[name].move(at, 1 + sign * SMALL) for name in names for sign in (-1, 1)]
    rates = np.array([[one.rate, one.users] for one in resolved(moved, base.x, FINEST, near=0.02)]).reshape(len(names), 2, 2)
    run = np.log([1 - SMALL, 1 + SMALL])
    with np.errstate(divide="ignore"):
        left, right = (np.log(rates[:, :, 0] / base.rate) / run).T
        users = np.log(rates[:, 1, 1] / base.users) / run[1] - right
    return Prices(left, right, {}, users)


def accuracy_floor(problem: Problem, point: Point, candidates: Space) -> dict[str, Any]:
    """The same of the accuracy floor, one point lower and higher: the deployable plans are searched again, as no derivative leads from plan to plan.

    `point`: the plan that a search of `candidates` found best. None where no plan keeps so much, or the floor would leave 0 to 1.
    """
    floor, base = problem.scenario.accuracy_floor, float(point.state.values["sessions_per_gpu_hour"])
    goal, found = "sessions_per_gpu_hour", {}
    for side, to in (("left", floor - FLOOR_STEP), ("right", floor + FLOOR_STEP)):
        if not 0 < to <= 1:
            continue
        moved = changed(problem, scenario=problem.scenario.model_copy(update={"accuracy_floor": to}))
        best = search.best(moved, candidates.choices, search.run(moved, candidates, [goal], problem.scenario.seed)[0], goal)
        if side == "left":  # what holds a higher floor holds a lower one
            best = max((one for one in (best, point) if one is not None), key=lambda one: float(one.state.values[goal]))
        if best is not None:
            found[side] = best
    steps = {
        side: _slope(base, float(found[side].state.values[goal]), (floor + by) / floor) if side in found else None
        for side, by in (("left", -FLOOR_STEP), ("right", FLOOR_STEP))
    }
    bought: dict[str, Any] = {"unit": "point of accuracy given up", "amount": -FLOOR_STEP}
    for name in ("sessions_per_gpu_hour", "users_per_gpu"):
        gained = float(found["left"].state.values[name]) - float(point.state.values[name]) if "left" in found else None
        bought[name] = gained
    return {**steps, "marginal": {"left": None, "right": None}, "resolved": steps, "per_unit": bought}


def _slope(base: float, moved: float, factor: float) -> float | None:
    """d ln rate / d ln input; None where the move makes the plan infeasible."""
    return math.log(moved / base) / math.log(factor) if base > 0 and moved > 0 else None
