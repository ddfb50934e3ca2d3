"""What a plan's cache and prompt cost at one context, and what it loses: the paper's metrics as one compiled program over many plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.evaluate import Given
from kvopt.search.lanes import Choice, Lane, lane_system, plan_losses, settings, stacked, take
from kvopt.search.pipeline import given
from objectives.accuracy.composition import retained, retained_at
from objectives.serving import decode, switching
from objectives.serving.group import step_costs
from objectives.serving.kv_cache import cache, session_bytes
from objectives.serving.prefill import Chunk, mixed_step_s, prefill_s, prompt_flop, prompt_shares

BATCH = 1024  # plans evaluated at once; the last batch is filled up
METRICS = ("stored", "read", "moved", "prefill")
"""[bytes] held; [s] that a decoded token takes for the cache; [s] of a context switch; [s] of prefill."""


class Costs(NamedTuple):
    """Plans at one context, leading axis the plans: the metrics in the order of `METRICS`, and log losses in the middle and at the confidence asked for."""

    metrics: np.ndarray  # (plans, metrics)
    loss: np.ndarray  # (plans,)
    worst: np.ndarray  # (plans,)


@jax.jit
def _measured(own: Given, lanes: Lane, x: Array, context: Array, new_tokens: Array, z: Array) -> tuple[Array, Array, Array]:
    def one(lane: Lane, vector: Array) -> tuple[Array, Array, Array]:
        plan, schedule = settings(lane, vector, own.cap)
        system = lane_system(own.system, lane)
        arch, effects = system.architecture, lane.effects
        stored = session_bytes(arch, effects, cache(arch, plan, effects, "stored"), context)
        read = decode.kv_step_s(arch, plan, effects, schedule, step_costs(system, schedule), context)
        moved = switching.switch_s(system, effects, cache(arch, plan, effects, "moved"), schedule, context, new_tokens)[1]
        found = jnp.stack([stored, read, moved, prefill_s(system, plan, effects, schedule, context)])
        loss = plan_losses(lane, plan)
        return found, -jnp.log(retained(loss)), -jnp.log(retained_at(loss, plan_losses(lane, plan, z)))

    return jax.vmap(one)(lanes, x)


class Meter:
    """Plans of some choices at one context [tokens], in double precision."""

    def __init__(self, problem: Problem, choices: Sequence[Choice], context: float) -> None:
        self.own, self.lanes = given(problem, ()), stacked(problem, list(choices))
        self.context, self.z = np.float64(context), np.float64(problem.targets.z)
        sessions = problem.sessions
        new = float(np.sum(sessions.weight * (sessions.question + sessions.answer)))
        self.new_tokens = np.float64(min(new, context))

    def costs(self, choice: np.ndarray, x: np.ndarray) -> Costs:
        """The costs of plans `(plans, fields)` of the choices `(plans,)`."""
        parts: list[Any] = []
        lanes = take(self.lanes, choice)
        with jax.enable_x64(True):
            for start in range(0, len(x), BATCH):
                batch = programs.rows((lanes, x), start, len(x), BATCH)
                found = jax.device_get(_measured(self.own, *batch, self.context, self.new_tokens, self.z))
                parts.append([leaf[: len(x) - start] for leaf in found])
        return Costs(*(np.concatenate([part[i] for part in parts]) for i in range(3)))


@jax.jit
def _reused(own: Given, lanes: Lane, x: Array, context: Array, new: Array) -> Array:
    lane = jax.tree.map(lambda leaf: leaf[0], lanes)
    plan, schedule = settings(lane, x, own.cap)
    system = lane_system(own.system, lane)
    arch, effects = system.architecture, lane.effects
    linear, attention = prompt_flop(arch, prompt_shares(arch, plan, effects), context - new, new)
    before = session_bytes(arch, effects, cache(arch, plan, effects, "read", schedule), context - new)
    return mixed_step_s(arch, step_costs(system, schedule), Chunk(new, linear, attention, before), jnp.zeros_like(new), jnp.zeros_like(new))


def reused_prefill_s(problem: Problem, choice: Choice, x: np.ndarray, context: float, new: float) -> float:
    """[s] to prefill the last `new` of `context` tokens, the cache of all others found."""
    with jax.enable_x64(True):
        return float(_reused(given(problem, ()), stacked(problem, [choice]), x, np.float64(context), np.float64(new)))


def tokens_that_take(problem: Problem, choice: Choice, x: np.ndarray, context: float, seconds: float) -> float | None:
    """[tokens] at the end of the prompt that can be new for its prefill to take so many seconds; none where not even one can."""
    low, high = 1.0, context
    if reused_prefill_s(problem, choice, x, context, low) > seconds:
        return None
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if reused_prefill_s(problem, choice, x, context, middle) <= seconds else (low, middle)
    return low
