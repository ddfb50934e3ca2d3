"""What one vector of settings on one lane gives, and the largest load that it can carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from kvopt.search.lanes import BATCH, Lane, lane_sums, lane_system, plan_losses, settings
from objectives import goals
from objectives.accuracy.composition import retained, retained_at
from objectives.goals import Targets
from objectives.limits import constraints, violations
from objectives.serving.session import Service, serve_sums
from objectives.types import Plan, Schedule, System

GOALS = {
    "sessions_per_gpu_hour": -1,
    "users_per_gpu": -1,
    "output_tokens_per_gpu_s": -1,
    "accuracy_retained": -1,
    "cost_per_session_usd": 1,
    "energy_per_session_j": 1,
    "ttft_s": 1,
    "tpot_s": 1,
}
"""What can be optimised, with its sign: -1 is maximised, 1 minimised. Everything is searched on a log scale."""

UNCONSTRAINED_BY = {"ttft_s": "ttft_s", "tpot_s": "tpot_s"}
"""A latency that is an objective is not a constraint as well. Accuracy keeps a floor: a front of accuracy lowers it instead (`kvopt.api.FRONT_FLOOR`)."""


T = TypeVar("T")


class Given(NamedTuple):
    """What all lanes share."""

    system: System
    cap: Any  # most requests in flight, a scalar array
    active: Any  # (constraints,) 1 where the constraint holds, 0 where its quantity is an objective


class State(NamedTuple):
    """One evaluated point."""

    plan: Plan
    schedule: Schedule
    service: Service
    retained: Array
    lower: Array
    values: dict[str, Array]  # by the names of GOALS
    found: dict[str, tuple[Array, Array]]  # constraints: value, limit
    broken: Array  # (constraints,) violations, positive where broken


@jax.jit
def evaluate(given: Given, lane: Lane, targets: Targets, x: Array) -> State:
    """The state at one vector of settings `(fields,)` on one lane.

    Jitted on its own so that the programs around it trace it once: batching and differentiating the traced equations is much faster than the functions.
    """
    plan, schedule = settings(lane, x, given.cap)
    system = lane_system(given.system, lane)
    service = serve_sums(system, lane_sums(system, lane, plan, schedule), lane.effects, schedule, lane.charged)
    if lane.by_block is None:
        loss, edge = plan_losses(lane, plan), plan_losses(lane, plan, targets.z)
    else:
        loss, edge = lane.by_block.middle, lane.by_block.edge
    kept = retained(loss, system.checkpoint.retained)
    least = retained_at(loss, edge, system.checkpoint.retained)
    values = {
        "sessions_per_gpu_hour": goals.sessions_per_gpu_hour(service),
        "users_per_gpu": goals.users_per_gpu(service, system.workload, targets),
        "output_tokens_per_gpu_s": goals.output_tokens_per_gpu_s(service, system.workload),
        "accuracy_retained": kept,
        "cost_per_session_usd": goals.cost_per_session_usd(service, system.accelerator),
        "energy_per_session_j": goals.energy_per_session_j(service, system.accelerator),
        "ttft_s": goals.ttft_s(service, system.workload, targets),
        "tpot_s": goals.tpot_s(service, targets),
    }
    found = dict(constraints(service, system, schedule, targets, least))
    return State(plan, schedule, service, kept, least, values, found, violations(found))


def log_goal(name: str, state: State) -> Array:
    """A goal as it is minimised: ln of the value, signed. Accuracy as the log loss itself, which is finer near 1 than any grid of accuracies."""
    if name == "accuracy_retained":
        return -jnp.log(state.values[name])
    return GOALS[name] * jnp.log(state.values[name])


def feasible(given: Given, state: State) -> Array:
    """Whether every active constraint holds."""
    return jnp.all(given.active * state.broken <= 0)


def saturated(given: Given, lane: Lane, targets: Targets, x: Array, steps: int, of: Callable[[State], T]) -> tuple[Array, T]:
    """The same settings at the largest number of decodes in flight that breaks no constraint `(fields,)`, and what is wanted of the state there.

    By bisection on its logarithm: memory, latency and utilisation only grow with the load. Where even the least load breaks one, the least load is returned.
    The last turn of the loop evaluates the answer: the model stands in the program once, and compiles in half the time.
    """

    def at(log_batch: Array) -> Array:
        return x.at[BATCH].set(jnp.exp(log_batch))

    def turn(count: Array, carry: tuple[Array, Array, T]) -> tuple[Array, Array, T]:
        low, high, _ = carry
        middle = jnp.where(count < steps, (low + high) / 2, low)
        state = evaluate(given, lane, targets, at(middle))
        # accuracy does not depend on the load: a plan below the floor is still saturated, and found infeasible afterwards
        holds = jnp.all((given.active * state.broken)[:-1] <= 0)
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle), of(state)

    shapes = jax.eval_shape(lambda: of(evaluate(given, lane, targets, x)))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    best, _, found = jax.lax.fori_loop(0, steps + 1, turn, (jnp.log(lane.low[BATCH]), jnp.log(lane.high[BATCH]), nothing))
    return at(best), found
