"""The fit of all profiles at once: effects on the logarithms of the parameters, pulled to 0 by their priors, found with Optax.

Errors are those of logarithms, with Student's t in place of a normal: a row that nothing explains does not bend the others. Spreads are Laplace's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kvopt.calibration.cases import READ, Cases, predicted, stack
from kvopt.calibration.measurement import Measurement
from kvopt.inputs.hierarchy import FACTORS, PARAMETERS, START_SPREAD, levels, natural
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


@dataclass(frozen=True)
class Design:
    """The rows of a fit: what was measured, and at which level of each factor each row is."""

    measurements: tuple[Measurement, ...]
    cases: Cases
    readings: Readings
    names: dict[str, list[str]]  # factor: its levels
    index: dict[str, np.ndarray]  # factor: (rows,) index of the level


def routed(one: Measurement) -> bool:
    """Whether its model has routed experts."""
    return (one.model.experts or 1) > 1


def readings(measurements: Sequence[Measurement]) -> Readings:
    """All measured quantities that a reading of their benchmark stands for."""
    found = [
        (row, Times._fields.index(READ[one.experiment, name]), math.log(value * (1e-3 if name == "tpot_ms" else 1.0)), name)
        for row, one in enumerate(measurements)
        for name, value in one.measured.items()
        if (one.experiment, name) in READ
    ]
    case, reading, value, name = zip(*found, strict=True)
    return Readings(np.array(case), np.array(reading), np.array(value), np.array(name))


def design(measurements: Sequence[Measurement]) -> Design:
    """The rows of a fit."""
    at = [levels(one.accelerator, one.engine, one.weights, routed(one)) for one in measurements]
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
        value = math.log(parameter.start) + START_SPREAD * effects["start"][number]
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
    scaled = residuals(log_parameters(effects, data), data) / noise_of(data.readings.quantity)
    likelihood = jnp.sum(weight * (DEGREES + 1) / 2 * jnp.log1p(scaled**2 / DEGREES))
    return likelihood + sum(jnp.sum(part**2) for part in effects.values()) / 2


def descend(objective: Callable[[Any, Any], Array], start: Any, steps: int, rate: float) -> Callable[[Any], Any]:
    """A compiled Adam descent from `start`, as a function of the objective's second argument."""
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    gradient = jax.grad(objective)

    @jax.jit
    def run(given: Any) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            x, state = carry
            updates, state = optimiser.update(gradient(x, given), state)
            return (optax.apply_updates(x, updates), state), None

        (x, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)
        return x

    return run


def fit(data: Design) -> Effects:
    """The effects that explain all rows best."""
    return descend(lambda x, weight: loss(x, weight, data), no_effects(data), STEPS, RATE)(jnp.ones(len(data.readings.case)))  # type: ignore[no-any-return]


def left_out(data: Design, effects: Effects, folds: np.ndarray) -> np.ndarray:
    """ln(predicted / measured) of every reading by a fit that has not seen its fold, `(readings,)`. `folds`: `(rows,)` number of each row's fold."""
    of_reading = folds[data.readings.case]
    refit = descend(lambda x, weight: loss(x, weight, data), effects, REFIT_STEPS, REFIT_RATE)
    errors = jax.jit(lambda x: residuals(log_parameters(x, data), data))
    found = np.zeros(len(of_reading))
    for fold in np.unique(of_reading):
        out = of_reading == fold
        found[out] = np.asarray(errors(refit(jnp.asarray(~out, jnp.float32))))[out]
    return found


def covariance(data: Design, effects: Effects) -> np.ndarray:
    """Laplace's covariance of all effects, `(effects, effects)`, in units of their priors, in the order of `flat`."""
    logs = log_parameters(effects, data)
    slopes = []
    for number in range(len(PARAMETERS)):  # a row depends on its own parameters alone: one forward pass each
        tangent = [jnp.ones_like(value) if place == number else jnp.zeros_like(value) for place, value in enumerate(logs)]
        slopes.append(np.asarray(jax.jvp(lambda *values: residuals(values, data), tuple(logs), tuple(tangent))[1], float))
    scaled = np.asarray(residuals(logs, data), float) / noise_of(data.readings.quantity)
    weight = (DEGREES + 1) / (DEGREES + scaled**2) / noise_of(data.readings.quantity) ** 2
    jacobian = np.concatenate([slope[:, None] * one_hot(data, number)[data.readings.case] for number, slope in enumerate(slopes)], axis=1)
    return np.asarray(np.linalg.inv(jacobian.T @ (weight[:, None] * jacobian) + np.eye(jacobian.shape[1])))


def one_hot(data: Design, number: int) -> np.ndarray:
    """How parameter `number` of each row depends on its effects: `(rows, 1 + levels of all factors)`, scaled by the priors."""
    parts = [np.full((len(data.measurements), 1), START_SPREAD)]
    for factor, spread in zip(FACTORS, list(PARAMETERS.values())[number].spread, strict=True):
        parts.append(spread * np.eye(len(data.names[factor]))[data.index[factor]])
    return np.concatenate(parts, axis=1)
