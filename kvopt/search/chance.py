"""Chance constraints: the load at which memory, TTFT, TPOT and the accuracy floor hold all together with the asked confidence.

Elsewhere each limit has the asked confidence by itself (`objectives.limits`), and all of them hold together with less. Here every plan is held against the
same draws of the fitted quantities (`kvopt.search.draws`); its load is lowered until the share of draws in which everything holds is the confidence.
As there, spreads are of what was measured over what was predicted: they multiply TTFT and TPOT and take from the pool, and leave the rate as predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import moocore
import numpy as np
from jax import Array

from kvopt.errors import BadInput
from kvopt.metrics import plain
from kvopt.problem import Problem
from kvopt.search.batches import in_batches
from kvopt.search.best import Point
from kvopt.search.draws import Draws, draws
from kvopt.search.evaluate import GOALS, Given, State, evaluate
from kvopt.search.lanes import BATCH, Lane, lane_system, plan_losses, settings, stacked
from kvopt.search.pipeline import given
from kvopt.search.programs import EXACT, repeat
from objectives.accuracy.composition import Losses, retained
from objectives.goals import Targets
from objectives.limits import NAMES, constraints, violations
from objectives.types import Plan, System, replace

HALVINGS = 40
FEWEST, MOST = 16, 100_000  # draws
ON_DRAWS = ("hbm", "hbm_peak", "ttft_s", "tpot_s", "accuracy")  # the other constraints rest on nothing that was fitted with a spread


class Held(NamedTuple):
    """One plan against all draws, scalars."""

    load: Any  # decodes in flight at which the confidence holds; the least load where it holds at none
    at_load: Any  # share of draws in which everything holds there
    asked: Any  # the same at the plan's own load
    goals: Any  # (goals,) at `load`, order of GOALS
    each: Any  # (constraints,) share of draws in which each limit holds at the plan's own load


@dataclass(frozen=True)
class Chance:
    """What one plan gives where everything must hold together."""

    confidence: float  # share of draws in which everything holds at the plan's own load
    holds: bool  # whether any load holds with the asked confidence
    joint_confidence: float  # at the load found: the asked one or a little more; below it where no load holds
    load: float  # decodes in flight
    values: dict[str, float]  # goals at that load
    each: dict[str, float]  # share of draws in which each limit that was drawn holds at the plan's own load


def require_draws(count: int) -> None:
    """Raises `BadInput` for a number of draws that says nothing, or that no memory holds."""
    if not FEWEST <= count <= MOST:
        raise BadInput("chance", count, f"must be {FEWEST} to {MOST:,} draws")


def joint(problem: Problem, points: Sequence[Point], count: int, confidence: float | None = None) -> list[Chance]:
    """Every plan at the load that its limits carry together. `count` draws, from the scenario's seed; its confidence unless another is given.

    The accuracy floor is the problem's own. Raises `BadInput`, see `require_draws`.
    """
    require_draws(count)
    if not points:
        return []
    wanted = np.float64(problem.scenario.confidence if confidence is None else confidence)
    lanes = stacked(problem, [point.choice for point in points])
    targets = repeat(replace(problem.targets, z=np.float64(0.0)), len(points))  # the draws take the place of z
    own = repeat(given(problem, ()), len(points))
    with jax.enable_x64(True):
        found = in_batches(
            _held, (draws(problem.scenario.seed, count), wanted), (own, lanes, targets, np.array([point.x for point in points], np.float64)), EXACT
        )
    return [_chance(Held(*(leaf[row] for leaf in found)), float(wanted)) for row in range(len(points))]


def _chance(held: Held, wanted: float) -> Chance:
    logs = dict(zip(GOALS, held.goals.tolist(), strict=True))
    each = {name: float(held.each[NAMES.index(name)]) for name in ON_DRAWS}
    return Chance(float(held.asked), bool(held.at_load >= wanted), float(held.at_load), float(held.load), logs, each)


def described(found: Chance) -> dict[str, Any]:
    """As `--json` prints it beside a plan: null where no load holds."""
    then = {name: found.values[name] for name in ("sessions_per_gpu_hour", "users_per_gpu", "ttft_s", "tpot_s")} | {"decodes_in_flight": found.load}
    return {
        "joint_confidence": found.confidence,
        "each": found.each,
        "holds": found.holds,
        **{name: plain(value) if found.holds else None for name, value in then.items()},
        "confidence_at_load": found.joint_confidence,
    }


def front(found: Sequence[Chance]) -> list[int]:
    """The plans that hold and that no other beats in sessions per GPU-hour and accuracy kept, the most sessions first."""
    holding = [row for row, one in enumerate(found) if one.holds]
    if not holding:
        return []
    values = -np.array([[found[row].values[name] for name in ("sessions_per_gpu_hour", "accuracy_retained")] for row in holding])
    kept = np.flatnonzero(moocore.is_nondominated(values, keep_weakly=False))
    return [holding[row] for row in kept[np.argsort(values[kept, 0], kind="stable")]]


@jax.jit
def _held(shared: tuple[Draws, Array], own: Given, lanes: Lane, targets: Targets, x: Array) -> Held:
    return jax.vmap(partial(_one, *shared))(own, lanes, targets, x)


def _one(drawn: Draws, confidence: Array, own: Given, lane: Lane, targets: Targets, x: Array) -> Held:
    """One plan: at its own load, then by halving the largest load up to it that holds in enough draws, then there. One loop, so that it is compiled once."""
    own_load = jnp.log(x[BATCH])
    system = lane_system(own.system, lane)
    plan, _ = settings(lane, x, own.cap)
    kept = kept_in(lane, plan, drawn.losses, jnp.asarray(system.checkpoint.retained))

    def step(bounds: tuple[Array, Array], count: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        low, high = bounds
        load = jnp.where(count == 0, own_load, jnp.where(count == HALVINGS + 1, low, (low + high) / 2))
        state = evaluate(own, lane, targets, x.at[BATCH].set(jnp.exp(load)))
        hold = jax.vmap(partial(holding, state, system, targets))(drawn.prefill, drawn.decode, drawn.memory, kept)
        together = jnp.mean(jnp.all(hold, axis=1))
        goals = jnp.stack([state.values[name] for name in GOALS])
        # where its own load holds, the first step closes in on it: the load is lowered, never raised
        halved = (jnp.where(together >= confidence, load, low), jnp.where((together >= confidence) & (count > 0), high, load))
        return halved, (together, goals, jnp.mean(hold, axis=0))

    (best, _), (together, goals, each) = jax.lax.scan(step, (jnp.minimum(jnp.log(lane.low[BATCH]), own_load), own_load), jnp.arange(HALVINGS + 2))
    return Held(jnp.exp(best), together[-1], together[0], goals[-1], each[0])


def kept_in(lane: Lane, plan: Plan, drawn: Losses, checkpoint: Array) -> Array:
    """Accuracy kept in every draw `(draws,)`: each dimension loses what it does so many deviations from its middle."""

    def of(name: str) -> Array:
        return jax.vmap(lambda z: getattr(plan_losses(lane, plan, z), name))(getattr(drawn, name))

    return retained(Losses(**{name: of(name) for name in Losses.__dataclass_fields__}), checkpoint)


def holding(state: State, system: System, targets: Targets, prefill: Array, decode: Array, memory: Array, kept: Array) -> Array:
    """Which constraints hold `(constraints,)` in one draw: each at its own deviation."""

    def at(z: Array) -> Any:
        return constraints(state.service, system, state.schedule, replace(targets, z=z), kept)

    found = {**at(memory), "ttft_s": at(prefill)["ttft_s"], "tpot_s": at(decode)["tpot_s"]}
    return violations(found) <= 0
