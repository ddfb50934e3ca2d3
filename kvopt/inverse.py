"""Inverse questions: the least memory, bandwidth, FLOP/s or compression with which a deployment serves so many users at its targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt import named
from kvopt.errors import BadInput, unknown
from kvopt.inputs import method as methods
from kvopt.inputs.choice import FIELDS_OF, MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.evaluate import Given
from kvopt.search.ideal import column, free, ideal
from kvopt.search.lanes import FIELDS, Choice, Lane, stacked
from kvopt.search.moves import moved
from kvopt.search.pipeline import given
from objectives.goals import Targets
from objectives.limits import NAMES

HARDWARE = {
    "hbm_bytes": "memory_bytes",
    "hbm_bandwidth": "memory_bandwidth",
    "flops": "peak_flops_16bit",
    "host_bandwidth": "host_bandwidth",
    "host_memory": "host_memory_bytes",
    "scaleup_bandwidth": "scaleup_bandwidth",
}
"""What can be asked of the accelerator, per GPU in SI units: its field of `objectives.types.Accelerator`. FLOP/s: the 16-bit peak, others in proportion."""
KEPT = "kept"
WIDEST = 4096.0  # times the accelerator's own number, either way; shares kept go down to its inverse
AT_ONCE, ROUNDS = 17, 4  # candidates evaluated together, and how often the interval between two of them is divided again: to 0.03 %
ACCURACY = NAMES.index("accuracy")

Candidates = tuple[list[Given], Lane, Targets, np.ndarray]
Serve = Callable[[np.ndarray], list[Point]]


@dataclass(frozen=True)
class Values:
    """What may be tried, from what serves least to what serves most: two ends of a range, or all values there are."""

    listed: np.ndarray
    ranged: bool = True

    def spread(self) -> np.ndarray:
        """The values to begin with."""
        return np.geomspace(self.listed[0], self.listed[-1], AT_ONCE) if self.ranged else self.listed


@dataclass(frozen=True)
class Least:
    """The answer: the least `value` that serves, or, where none does, the constraint that stands in the way.

    Users are those of the whole deployment: sessions in progress when every answer just meets its targets (`objectives.goals.users_per_gpu`).
    """

    quantity: str  # one of HARDWARE, or `kept`
    method: str | None  # the method that keeps the share; none: an ideal one
    users: float  # asked for
    feasible: bool
    value: float | None  # [bytes, bytes/s, FLOP/s] per GPU, or the largest share of the cache that may be kept; None where infeasible
    at_hand: float  # the same of the accelerator as it is; 1 for a share
    served: float  # users at `value`; where infeasible, the most that any value tried serves
    served_at_hand: float
    constraint: str  # what binds at the answer, or cannot be met: one of `objectives.limits.NAMES`
    found: float  # its value there, SI units
    limit: float
    at_edge: bool  # `value` is the easiest to do without that was tried: less would do as well
    point: Point  # the plan there: the better fate of idle caches and share of them that stays in HBM

    @property
    def times(self) -> float | None:
        """The answer over what is at hand; of a share kept its inverse, the compression ratio."""
        if self.value is None:
            return None
        return 1 / self.value if self.quantity == KEPT else self.value / self.at_hand


def least(quantity: str, users: float, scenario: Scenario | None = None, method: str | None = None, **fields: Any) -> Least:
    """The least of one quantity with which the scenario's deployment serves `users`, all else as it is.

    `quantity`: one of `HARDWARE`, per GPU; or `kept`, the largest share of the KV cache, stored, read and moved, that may be kept: of an ideal compression, or
    of `method`, whose accuracy must then stay above the floor (of a method of bits: the most bits, as a share of 16). The plan is the one that `kvopt.analyze`
    takes, with the scenario's `methods` and no others; its load, and what becomes of idle caches, are solved again for every value that is tried. The
    scheduler's defaults stay those of the accelerator as it is. Raises `BadInput`; infeasible is a value.
    """
    problem = _problem(quantity, users, scenario, method, fields)
    values, serve = _trial(problem, quantity, None if method is None else _loaded(method))
    value, point = first(serve, values, lambda found: served(problem, found) >= users)
    usual = serve(values.listed[:1] if quantity == KEPT else np.ones(1))[0]
    lower, floor = (float(entry) for entry in point.state.found["accuracy"])
    feasible = value is not None and not lower < floor
    broken = np.delete(np.asarray(point.state.broken), ACCURACY)
    worst = "accuracy" if value is not None and not feasible else NAMES[int(np.nanargmax(broken))]
    own = 1.0 if quantity == KEPT else float(getattr(problem.device(problem.checkpoints[0]), HARDWARE[quantity]))
    return Least(
        quantity=quantity,
        method=method,
        users=float(users),
        feasible=feasible,
        value=float(value * own) if value is not None and feasible else None,
        at_hand=own,
        served=served(problem, point) if feasible else _most(problem, serve, values, floor),
        served_at_hand=served(problem, usual) if float(usual.state.lower) >= floor else 0.0,
        constraint=worst,
        found=float(point.state.found[worst][0]),
        limit=float(point.state.found[worst][1]),
        at_edge=feasible and value == values.listed[0],
        point=point,
    )


def served(problem: Problem, point: Point) -> float:
    """Users of the whole deployment; none where a constraint other than accuracy is broken."""
    holds = np.all(np.delete(np.asarray(point.state.broken), ACCURACY) <= 0)
    return float(point.state.values["users_per_gpu"]) * problem.scenario.gpus if holds else 0.0


def first(serve: Serve, values: Values, enough: Callable[[Point], bool]) -> tuple[float | None, Point]:
    """The first value that is enough, refined between it and the one before where they are a range; none, and the easiest, where none is."""
    tried = values.spread()
    best: tuple[float | None, Point] | None = None
    for _ in range(ROUNDS if values.ranged else 1):
        found = serve(tried)
        place = next((place for place, point in enumerate(found) if enough(point)), None)
        if place is None:
            return best or (None, found[-1])
        best = float(tried[place]), found[place]
        if place == 0:
            break
        tried = np.geomspace(tried[place - 1], tried[place], AT_ONCE)[1:]
    assert best is not None
    return best


def best_of_cases(count: int, cases: Candidates, choices: list[Choice]) -> list[Point]:
    """The best plan of each of `count` candidates at the largest load it carries, or the one that breaks constraints least: accuracy set aside.

    `cases`: the candidates' own lists one after another, `choices` of one candidate.
    """
    x, states = programs.exact(*cases)
    own = len(choices)
    found = []
    for start in range(0, count * own, own):
        points = [Point(choice, x[start + row], states[start + row]) for row, choice in enumerate(choices)]
        worst = [float(np.nanmax(np.delete(np.asarray(point.state.broken), ACCURACY))) for point in points]
        serving = [point for point, excess in zip(points, worst, strict=True) if excess <= 0]
        rates = [float(point.state.values["sessions_per_gpu_hour"]) for point in serving]
        found.append(serving[int(np.argmax(rates))] if serving else points[int(np.argmin(worst))])
    return found


def _problem(quantity: str, users: float, scenario: Scenario | None, method: str | None, fields: dict[str, Any]) -> Problem:
    if quantity not in (*HARDWARE, KEPT):
        raise unknown("quantity", quantity, (*HARDWARE, KEPT))
    if not 0 < users < math.inf:
        raise BadInput("users", users, "must be a number above 0")
    if method is not None and quantity != KEPT:
        raise BadInput("method", method, f"only {KEPT} is asked of a method; name the plan's own in methods")
    asked = (scenario.model_dump(exclude_unset=True) if scenario is not None else {}) | fields
    problem = resolve(Scenario.of(**asked))
    problem.require_known()
    if problem.scenario.head_scores is not None:
        raise BadInput("head_scores", problem.scenario.head_scores, "analyze and simulate take it; no search does yet")
    if quantity in HARDWARE and math.isnan(float(getattr(problem.device(problem.checkpoints[0]), HARDWARE[quantity]))):
        raise BadInput("quantity", quantity, f"not known of {problem.accelerator.id}")
    return problem


def _loaded(name: str) -> MethodSpec:
    if name.removesuffix(methods.RESELECT) not in {method.id for method in methods.load_all()}:
        raise unknown("method", name, [method.id for method in methods.load_all()])
    return methods.load(name)


def _trial(problem: Problem, quantity: str, method: MethodSpec | None) -> tuple[Values, Serve]:
    """The values to try, and what serves them."""
    tried = named.cases(problem)
    chosen = tried[0][0].methods
    if method is not None:
        both = MethodChoice.of(*chosen.methods, method)
        tried = [(Choice(choice.deployment, choice.weights, both), x) for choice, x in tried]
    choices, x = [choice for choice, _ in tried], np.array([settings for _, settings in tried])
    lanes, own = stacked(problem, choices), given(problem, ())
    if quantity == KEPT and method is None:
        along = free(chosen)
        lanes, fields = ideal(lanes, along), [column(along)]
    elif method is not None:
        fields = [FIELDS.index(name) for name in FIELDS_OF[method.dimension]]

    def candidate(value: float) -> Candidates:
        if quantity != KEPT:
            one, target, lane = moved(quantity, own, problem.targets, lanes, value)
            return [one] * len(x), lane, programs.repeat(target, len(x)), x
        settings = x.copy()
        settings[:, fields] = _settings(method, value)
        return [own] * len(x), lanes, programs.repeat(problem.targets, len(x)), settings

    def serve(values: np.ndarray) -> list[Point]:
        owns, each, targets, settings = zip(*(candidate(float(value)) for value in values), strict=True)
        every = [one for some in owns for one in some]
        joined = every, programs.stack(each, axis=0), programs.stack(targets, axis=0), np.concatenate(settings)
        return best_of_cases(len(values), joined, choices)

    return _range(quantity, method), serve


def _range(quantity: str, method: MethodSpec | None) -> Values:
    if quantity != KEPT:
        return Values(np.array([1 / WIDEST, WIDEST]))
    if method is None:
        return Values(np.array([1.0, 1 / WIDEST]))
    if method.dimension == "bits":
        return Values(np.array(sorted({_share(pair) for pair in method.formats}, reverse=True)), ranged=False)
    assert method.allowed is not None
    if method.allowed.values:
        return Values(np.array(sorted(method.allowed.values, reverse=True)), ranged=False)
    low, high = method.allowed.bounds
    return Values(np.array([high, low]))


def _share(pair: Any) -> float:
    return float((pair.key_bits + pair.value_bits) / 32)


def _settings(method: MethodSpec | None, value: float) -> list[float] | float:
    """What the fields of a method are at one share."""
    if method is None or method.dimension != "bits":
        return value
    pair = next(pair for pair in method.formats if _share(pair) == value)
    return [pair.key_bits, pair.value_bits]


def _most(problem: Problem, serve: Serve, values: Values, floor: float) -> float:
    """The most users that any value serves with the accuracy that is asked for."""
    return max(served(problem, point) if float(point.state.lower) >= floor else 0.0 for point in serve(values.spread()))
