"""The fit of all profiles at once: effects on the logarithms of the parameters, pulled to 0 by their priors, found with Optax.

Errors are those of logarithms, with Student's t in place of a normal: a row that nothing explains does not bend the others. Spreads are Laplace's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kvopt.calibration.cases import READ, Cases, predicted, stack
from kvopt.calibration.measurement import Measurement
from kvopt.errors import BadInput
from kvopt.inputs.hierarchy import FACTORS, PARAMETERS, levels, natural
from objectives.serving.benchmark import Times

NOISE = {"ttft_s": 0.08}
OTHER_NOISE = 0.05  # scale of ln(measured / predicted) that counts as noise; time to first token varies more between runs
DEGREES = 3.0  # of freedom of Student's t
STEPS, RATE = 700, 0.05
REFIT_STEPS, REFIT_RATE = 250, 0.03  # from the fit of all rows, some of them left out

Effects = dict[str, Array]  # factor: (parameters, levels), in units of the prior's standard deviation; "start": (parameters,)


@dataclass(frozen=True)
class Readings:
    """What was measured, one entry a quantity: `(readings,)` each."""

    case: np.ndarray  # index of its measurement
    reading: np.ndarray  # index in `Times`
    log_value: np.ndarray
    quantity: np.ndarray  # column of the file
    noise: np.ndarray  # scale of ln(measured / predicted) that counts as noise


@dataclass(frozen=True)
class Design:
    """The rows of a fit: what was measured, and at which level of each factor each row is."""

    measurements: tuple[Measurement, ...]
    cases: Cases
    readings: Readings
    names: dict[str, list[str]]  # factor: its levels
    index: dict[str, np.ndarray]  # factor: (rows,) index of the level


def _arrays(data: Design) -> tuple[Any, None]:
    read = data.readings
    return (data.cases, (read.case, read.reading, read.log_value, read.noise), data.index), None


def _of_arrays(_: None, arrays: Any) -> Design:
    cases, (case, reading, log_value, noise), index = arrays
    return Design((), cases, Readings(case, reading, log_value, np.array([]), noise), {}, index)


# what a compiled program takes of the rows: their numbers, so that rows of the same kinds share one program
jax.tree_util.register_pytree_node(Design, _arrays, _of_arrays)


def readings(measurements: Sequence[Measurement]) -> Readings:
    """All measured quantities that a reading of their benchmark stands for. Raises `BadInput` where there are none."""
    found = [
        (row, Times._fields.index(READ[one.experiment, name]), math.log(value * (1e-3 if name == "tpot_ms" else 1.0)), name)
        for row, one in enumerate(measurements)
        for name, value in one.measured.items()
        if (one.experiment, name) in READ
    ]
    if not found:
        raise BadInput("measurements", f"{len(measurements)} rows", "must hold a time or a maximum load that a fit can use")
    case, reading, value, name = (np.array(column) for column in zip(*found, strict=True))
    return Readings(case, reading, value, name, noise_of(name))


def design(measurements: Sequence[Measurement]) -> Design:
    """The rows of a fit."""
    at = [levels(one.accelerator, one.engine, one.weights, one.model.routed) for one in measurements]
    names = {factor: sorted({row[factor] for row in at}) for factor in FACTORS}
    index = {factor: np.array([names[factor].index(row[factor]) for row in at]) for factor in FACTORS}
    return Design(tuple(measurements), stack(measurements), readings(measurements), names, index)


def no_effects(data: Design) -> Effects:
    """Where a fit begins."""
    return {"start": jnp.zeros(len(PARAMETERS)), **{factor: jnp.zeros((len(PARAMETERS), len(names))) for factor, names in data.names.items()}}


def log_parameters(effects: Effects, data: Design) -> list[Array]:
    """Logarithm of each parameter, `(rows,)` each, in the order of `PARAMETERS`."""
    found = []
    for number, parameter in enumerate(PARAMETERS.values()):
        value = math.log(parameter.start) + parameter.start_spread * effects["start"][number]
        for factor, spread in zip(FACTORS, parameter.spread, strict=True):
            value = value + spread * effects[factor][number][data.index[factor]]
        found.append(value)
    return found


def residuals(logs: Sequence[Array], data: Design) -> Array:
    """ln(predicted / measured), `(readings,)`, of parameters' logarithms `(rows,)` each."""
    values = {name: natural(name, log_value, jnp) for name, log_value in zip(PARAMETERS, logs, strict=True)}
    table = jnp.log(jnp.stack(predicted(data.cases, values)))
    return table[data.readings.reading, data.readings.case] - data.readings.log_value


def noise_of(quantity: np.ndarray) -> np.ndarray:
    """The scale of each reading's noise, `(readings,)`, by its column."""
    return np.array([NOISE.get(name, OTHER_NOISE) for name in quantity])


def loss(effects: Effects, weight: Array, data: Design) -> Array:
    """Negative log posterior, up to a constant. `weight`: `(readings,)` 1 for a row that counts, 0 for one left out."""
    scaled = residuals(log_parameters(effects, data), data) / data.readings.noise
    likelihood = jnp.sum(weight * (DEGREES + 1) / 2 * jnp.log1p(scaled**2 / DEGREES))
    return likelihood + sum(jnp.sum(part**2) for part in effects.values()) / 2


def descended(objective: Callable[[Any], Array], start: Any, steps: int, rate: float) -> Any:
    """Where Adam comes to from `start`."""
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    gradient = jax.grad(objective)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        x, state = carry
        updates, state = optimiser.update(gradient(x), state)
        return (optax.apply_updates(x, updates), state), None

    (x, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)
    return x


@partial(jax.jit, static_argnames=("steps", "rate"))
def _fitted(data: Design, start: Effects, weight: Array, steps: int, rate: float) -> Effects:
    return descended(lambda x: loss(x, weight, data), start, steps, rate)  # type: ignore[no-any-return]


@jax.jit
def errors(data: Design, effects: Effects) -> Array:
    """ln(predicted / measured), `(readings,)`, of a fit."""
    return residuals(log_parameters(effects, data), data)


def fit(data: Design) -> Effects:
    """The effects that explain all rows best."""
    return _fitted(data, no_effects(data), jnp.ones(len(data.readings.case)), STEPS, RATE)  # type: ignore[no-any-return]


def left_out(data: Design, effects: Effects, folds: np.ndarray) -> np.ndarray:
    """ln(predicted / measured) of every reading by a fit that has not seen its fold, `(readings,)`. `folds`: `(rows,)` number of each row's fold."""
    of_reading = folds[data.readings.case]
    found = np.zeros(len(of_reading))
    for fold in np.unique(of_reading):
        out = of_reading == fold
        refitted = _fitted(data, effects, jnp.asarray(~out, jnp.float32), REFIT_STEPS, REFIT_RATE)
        found[out] = np.asarray(errors(data, refitted))[out]
    return found


def covariance(data: Design, effects: Effects) -> np.ndarray:
    """Laplace's covariance of all effects, `(effects, effects)`, in units of their priors, in the order of `flat`."""
    logs = log_parameters(effects, data)
    slopes = []
    for number in range(len(PARAMETERS)):  # a row depends on its own parameters alone: one forward pass each
        tangent = [jnp.ones_like(value) if place == number else jnp.zeros_like(value) for place, value in enumerate(logs)]
        slopes.append(np.asarray(jax.jvp(lambda *values: residuals(values, data), tuple(logs), tuple(tangent))[1], float))
    scaled = np.asarray(residuals(logs, data), float) / data.readings.noise
    weight = (DEGREES + 1) / (DEGREES + scaled**2) / data.readings.noise**2
    jacobian = np.concatenate([slope[:, None] * one_hot(data, number)[data.readings.case] for number, slope in enumerate(slopes)], axis=1)
    return np.asarray(np.linalg.inv(jacobian.T @ (weight[:, None] * jacobian) + np.eye(jacobian.shape[1])))


def one_hot(data: Design, number: int) -> np.ndarray:
    """How parameter `number` of each row depends on its effects: `(rows, 1 + levels of all factors)`, scaled by the priors."""
    parts = [np.full((len(data.measurements), 1), list(PARAMETERS.values())[number].start_spread)]
    for factor, spread in zip(FACTORS, list(PARAMETERS.values())[number].spread, strict=True):
        parts.append(spread * np.eye(len(data.names[factor]))[data.index[factor]])
    return np.concatenate(parts, axis=1)
