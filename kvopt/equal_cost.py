"""The compression at which a session of a long context costs what one of a short context does, by what is cut; and what no compression brings down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt import named
from kvopt.errors import BadInput
from kvopt.inputs.quantities import parse_tokens
from kvopt.inputs.scenario import Scenario
from kvopt.inverse import Values, best_of_cases, first
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.ideal import CACHE, SUMS, Along, column, ideal
from kvopt.search.lanes import Choice, Lane, settings, stacked
from kvopt.search.pipeline import given
from objectives.serving.kv_cache import cache, session_bytes
from objectives.types import Architecture

LEAST_KEPT = 2.0**-24  # beyond it a cache is nothing
SAME = 1e-9  # relative: what rounding leaves of an equal cost
NO_TARGET: dict[str, Any] = {"ttft": "30d", "tpot": "1h"}  # the question is what a context costs, not whether it is served in time
CUTS: Mapping[str, tuple[Along, tuple[str, ...]]] = {
    "stored and read": ("token", ("stored", "read")),
    "stored, read, moved": ("token", CACHE),
    "all four, along heads": ("head", SUMS),
    "all four, along layers": ("layer", SUMS),
    "all four, along tokens": ("token", SUMS),
}
"""Which of the four sums are cut, and along what. Only that of prefill depends on the dimension: heads save attention, layers the linear work as well,
tokens attention by the square of what is kept. Width and precision cut the first three alone."""


@dataclass(frozen=True)
class EqualCost:
    """One way of cutting. Ratios are over the uncompressed cache; `None` where no ratio makes the costs equal."""

    fidelity: str
    cut: str  # a name in CUTS
    bytes_ratio: float | None  # at which a session stores as many bytes of cache as the short one
    hours_ratio: float | None  # at which it takes as many GPU-hours
    before: float  # GPU-hours of the long session over the short one's, nothing cut; infinite where not one fits
    remains: float  # the same with the cache cut to nothing: 1 or less where a ratio helps
    prefill: float  # GPU-hours that are prefill and nothing else, over the short session's, the cache cut to nothing
    long_hours: float  # GPU-hours per long session at `hours_ratio`, or with the cache cut to nothing where there is none
    short_hours: float


def ratio_for_equal_cost(scenario: Scenario | None = None, long: str | int = "1M", short: str | int = "4K", **fields: Any) -> tuple[EqualCost, ...]:
    """The ratio for every way in `CUTS`, at `peak` and at `calibrated` fidelity. GPU-hours are those of the largest load that memory and utilisation allow.

    An ideal compression, free of loss. Latency targets are set aside unless the scenario names them. Fields of `Scenario` change the question. Raises
    `BadInput`, also where they name methods or a context.
    """
    asked = NO_TARGET | (scenario.model_dump(exclude_unset=True) if scenario is not None else {}) | fields
    for name in ("context", "methods", "head_scores"):
        if asked.get(name) is not None:
            raise BadInput(name, asked[name], "this question takes two contexts, long and short, and no methods")
    few, many = parse_tokens(short, "short"), parse_tokens(long, "long")
    if few >= many:
        raise BadInput("short", short, f"must be shorter than long, {long}")
    found: list[EqualCost] = []
    for fidelity in ("peak", "calibrated"):
        before, problem = (resolve(Scenario.of(**{**asked, "context": tokens, "fidelity": fidelity})) for tokens in (few, many))
        problem.require_known()
        found += _at_fidelity(before, problem)
    return tuple(found)


def _at_fidelity(before: Problem, problem: Problem) -> list[EqualCost]:
    base = _Long(before).serve(np.ones(1))[0]
    short_hours = _hours(base)
    found = []
    for name, (along, sums) in CUTS.items():
        trial = _Long(problem, along, sums)
        whole, nothing = trial.serve(np.array([1.0, LEAST_KEPT]))
        kept, point = first(trial.serve, Values(np.array([1.0, LEAST_KEPT])), lambda at: _hours(at) <= short_hours * (1 + SAME))
        found.append(
            EqualCost(
                fidelity=problem.scenario.fidelity,
                cut=name,
                bytes_ratio=_bytes_ratio(before, problem, along),
                hours_ratio=None if kept is None else 1 / kept,
                before=_hours(whole) / short_hours,
                remains=_hours(nothing) / short_hours,
                prefill=1 / float(nothing.state.service.ceiling_per_gpu_s) / 3600 / short_hours,
                long_hours=_hours(point if kept is not None else nothing),
                short_hours=short_hours,
            )
        )
    return found


def _hours(point: Point) -> float:
    """[GPU-hours] per session; infinite where none is served."""
    serves = np.all(np.asarray(point.state.broken) <= 0)
    return 1 / float(point.state.values["sessions_per_gpu_hour"]) if serves else np.inf


class _Long:
    """A problem of which an ideal compression keeps some share."""

    def __init__(self, problem: Problem, along: Along = "token", sums: tuple[str, ...] = CACHE) -> None:
        cases = named.cases(problem)
        self.problem, self.along = problem, along
        self.choices: list[Choice] = [choice for choice, _ in cases]
        self.x = np.array([x for _, x in cases])
        self.lanes = ideal(stacked(problem, self.choices), along, sums)

    def serve(self, shares: np.ndarray) -> list[Point]:
        """The best plan at every share kept `(shares,)`."""
        own, count = given(self.problem, ()), len(shares) * len(self.x)
        x = np.tile(self.x, (len(shares), 1))
        x[:, column(self.along)] = np.repeat(shares, len(self.x))
        lanes = programs.stack([self.lanes] * len(shares), axis=0)
        joined = [own] * count, lanes, programs.repeat(self.problem.targets, count), x
        return best_of_cases(len(shares), joined, self.choices)


@jax.jit
def _stored(arch: Architecture, lanes: Lane, x: Array, context: Array) -> Array:
    """[bytes] of one session, each once, `(points,)`."""

    def one(lane: Lane, vector: Array) -> Array:
        plan, _ = settings(lane, vector, jnp.inf)
        return session_bytes(arch, lane.effects, cache(arch, plan, lane.effects, "stored"), context)

    return jax.vmap(one)(lanes, x)


def _bytes_ratio(before: Problem, problem: Problem, along: Along) -> float | None:
    """The ratio at which the cache of the long context is as large as the short one's; none where what no method compresses is larger."""
    trial = _Long(problem, along)
    with jax.enable_x64(True):
        shares = np.append(np.geomspace(1.0, LEAST_KEPT, 999), 0.0)
        x = np.tile(trial.x[0], (len(shares), 1))
        lanes = jax.tree.map(lambda leaf: np.repeat(leaf[:1], len(shares), axis=0), trial.lanes)
        x[:, column(along)] = 1.0
        short = float(_stored(before.architecture, lanes, x, np.float64(before.context))[0])
        for _ in range(3):
            x[:, column(along)] = shares
            sizes = np.asarray(_stored(problem.architecture, lanes, x, np.float64(problem.context)))
            if sizes[-1] > short:
                return None
            place = int(np.argmax(sizes <= short * (1 + SAME)))
            shares = np.linspace(shares[max(place - 1, 0)], shares[place], len(shares))
    return 1 / float(shares[-1]) if shares[-1] > 0 else None
