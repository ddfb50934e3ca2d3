"""The augmented Lagrangian: Adam on an unconstrained parameterisation, with multipliers that rise where a constraint stays broken.

One lane is one start of one scalarisation on one categorical choice; all lanes are one vmapped program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from kvopt.search.evaluate import GOALS, Given, evaluate, log_goal
from kvopt.search.gradients import value_and_gradient
from kvopt.search.lanes import LOGARITHMIC, Lane
from objectives.goals import Targets
from objectives.limits import NAMES

STEPS, ROUND = 240, 20  # Adam steps in all, and between two updates of the multipliers
LEARNING_RATE = 0.08
PENALTY, GROWTH, MOST_PENALTY = 2.0, 1.6, 200.0
SHARPNESS = 0.02  # mu of the smooth Tchebycheff scalarisation


class Scalarisation(NamedTuple):
    """How several goals become one, in the order of `GOALS`: weights `(goals,)`, 0 for those that do not count, and the best log value known of each."""

    weights: Any
    ideal: Any
    ceiling: Any  # the log value that each goal must not exceed; inf where it is free (epsilon-constraint)


def excess(logs: Any, ceiling: Any) -> Any:
    """How far goals lie above their ceilings, relative; negative below, and far below where there is none. NumPy or JAX arrays alike."""
    return (logs - ceiling) / (abs(ceiling) + 0.05)


def to_settings(lane: Lane, z: Array) -> Array:
    """Settings in the lane's box from unbounded variables `(fields,)`: a sigmoid between the bounds, on a log scale where the setting is a ratio."""
    share = jax.nn.sigmoid(z)
    linear = lane.low + (lane.high - lane.low) * share
    low, high = jnp.log(jnp.maximum(lane.low, 1e-12)), jnp.log(jnp.maximum(lane.high, 1e-12))
    return jnp.where(LOGARITHMIC, jnp.exp(low + (high - low) * share), linear)


def from_settings(lane: Lane, x: Array) -> Array:
    """The unbounded variables of settings, kept a hundredth off the bounds, where the sigmoid is flat."""
    low, high = (jnp.where(LOGARITHMIC, jnp.log(jnp.maximum(bound, 1e-12)), bound) for bound in (lane.low, lane.high))
    value = jnp.where(LOGARITHMIC, jnp.log(jnp.maximum(x, 1e-12)), x)
    share = jnp.clip((value - low) / jnp.maximum(high - low, 1e-9), 0.01, 0.99)
    return jnp.log(share) - jnp.log1p(-share)


def tchebycheff(logs: Array, scalarisation: Scalarisation) -> Array:
    """Smooth Tchebycheff: mu * logsumexp(w (f - ideal) / mu), which reaches the non-convex parts of a front (Lin et al., ICML 2024)."""
    gaps = jnp.where(scalarisation.weights > 0, scalarisation.weights * (logs - scalarisation.ideal), -1e3)
    return SHARPNESS * jax.nn.logsumexp(gaps / SHARPNESS)


def improve(given: Given, lane: Lane, targets: Targets, scalarisation: Scalarisation, x: Array) -> Array:
    """Settings `(fields,)` that improve on `x` under the constraints; one lane."""
    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS, alpha=0.05), b2=0.99)

    def lagrangian(z: Array, multipliers: Array, penalty: Array) -> tuple[Array, Array]:
        state = evaluate(given, lane, targets, to_settings(lane, z))
        logs = jnp.stack([log_goal(name, state) for name in GOALS])
        goal = tchebycheff(logs, scalarisation)
        above = jnp.where(jnp.isfinite(scalarisation.ceiling), excess(logs, jnp.nan_to_num(scalarisation.ceiling, posinf=0.0)), -1.0)
        broken = jnp.concatenate([given.active * state.broken, above])
        charged = jnp.maximum(multipliers + penalty * broken, 0.0)
        return goal + jnp.sum(charged**2 - multipliers**2) / (2 * penalty), broken

    gradient_of = value_and_gradient(lagrangian, has_aux=True)

    def step(carry: Any, count: Array) -> tuple[Any, None]:
        z, state, multipliers, penalty = carry
        (_, broken), gradient = gradient_of(z, multipliers, penalty)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        updates, state = optimiser.update(gradient, state)
        ends_round = (count + 1) % ROUND == 0
        multipliers = jnp.where(ends_round, jnp.maximum(multipliers + penalty * broken, 0.0), multipliers)
        penalty = jnp.where(ends_round, jnp.minimum(penalty * GROWTH, MOST_PENALTY), penalty)
        return (optax.apply_updates(z, updates), state, multipliers, penalty), None

    z = from_settings(lane, x)
    start: Any = (z, optimiser.init(z), jnp.zeros(len(NAMES) + len(GOALS), z.dtype), jnp.asarray(PENALTY, z.dtype))
    final, _ = jax.lax.scan(step, start, jnp.arange(STEPS))
    return to_settings(lane, final[0])
