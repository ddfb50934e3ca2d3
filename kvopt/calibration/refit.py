"""The profile of one's own machine: the catalog's, moved by one's own measurements as far as its spread allows."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.calibration.cases import predicted, stack
from kvopt.calibration.fit import DEGREES, descended, readings
from kvopt.calibration.measurement import Measurement
from kvopt.errors import BadInput
from kvopt.inputs import profile
from kvopt.inputs.hierarchy import PARAMETERS, group, narrowing, natural
from kvopt.inputs.profile import BENCHMARK_ONLY

STEPS, RATE = 400, 0.05
LEAST_SD = 0.05  # one's own machine may always differ by so much from the catalog's
UNITS = {"prefill_layer_s": ("prefill_layer_us", 1e6), "decode_layer_s": ("decode_layer_us", 1e6), "parallel_layer_s": ("parallel_layer_us", 1e6)}
UNITS |= {"sequence_s": ("sequence_us", 1e6), "server_s": ("server_ms", 1e3)}
LEFT = ("unhidden", *BENCHMARK_ONLY)  # not what a person states of a machine


def refit(measurements: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """(value, standard deviation of its logarithm) of each field of `EfficiencySpec` that these rows of one accelerator, engine and weight format tell.

    Each parameter's logarithm is normal about the catalog's with the catalog's spread; the rows move it (maximum a posteriori, Adam; spread by Laplace).
    Raises `BadInput` where the rows are of several groups or hold nothing that can be predicted.
    """
    groups = sorted({group(one.accelerator.id, one.engine, one.weights) for one in measurements})
    if len(groups) != 1:
        raise BadInput("measurements", ", ".join(groups) or "none", "must be of one accelerator, engine and weight format; calibrate each by itself")
    read = readings(measurements)
    first = measurements[0]
    known = profile.closest(first.accelerator, first.engine, first.weights, first.model.id, any(one.model.routed for one in measurements))
    names = list(PARAMETERS)
    middle = np.array([_log(name, known.figures[name].value) for name in names])
    sd = np.array([max(known.figures[name].log_sd, LEAST_SD) for name in names])
    cases = stack(measurements)

    def errors(moved: Array) -> Array:
        logs = jnp.asarray(middle) + sd * moved
        values = {name: jnp.full(len(measurements), natural(name, logs[number], jnp)) for number, name in enumerate(names)}
        return (jnp.log(jnp.stack(predicted(cases, values)))[read.reading, read.case] - read.log_value) / read.noise

    def objective(moved: Array) -> Array:
        return jnp.sum((DEGREES + 1) / 2 * jnp.log1p(errors(moved) ** 2 / DEGREES)) + jnp.sum(moved**2) / 2

    moved = jax.jit(lambda start: descended(objective, start, STEPS, RATE))(jnp.zeros(len(names)))
    slopes = np.asarray(jax.jacfwd(errors)(moved), float)
    weight = (DEGREES + 1) / (DEGREES + np.asarray(errors(moved), float) ** 2)
    spread = sd * np.sqrt(np.diag(np.linalg.inv(slopes.T @ (weight[:, None] * slopes) + np.eye(len(names)))))
    found = {}
    for number, name in enumerate(names):
        if name not in LEFT and spread[number] < 0.95 * sd[number]:  # the rows tell something of it
            field, unit = UNITS.get(name, (name, 1.0))
            value = float(natural(name, middle[number] + sd[number] * float(moved[number])))
            found[field] = (value * unit, float(spread[number]) * narrowing(name, value))
    return found


def _log(name: str, value: float) -> float:
    """The inverse of `natural`."""
    if not PARAMETERS[name].share:
        return float(np.log(value))
    tries = np.linspace(-8, 4, 4001)
    return float(np.interp(value, natural(name, tries), tries))
