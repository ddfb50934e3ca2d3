"""Hardware numbers as variables: an accelerator scaled number by number, what an hour of it costs, and how a rate answers where a limit holds the load."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from objectives.types import Accelerator, Scalar, pytree, replace

QUANTITIES = ("memory_bytes", "memory_bandwidth", "peak_flops_16bit", "scaleup_bandwidth", "host_bandwidth")
"""The numbers that are varied, per accelerator in SI units, in the order of every vector below.

The peak of the weights' precision moves with the 16-bit one."""


@pytree
class LinearCost:
    """What an accelerator costs an hour or draws, in [USD/h] or [W]: base + sum of `per_unit` times its numbers. Every part is non-negative."""

    base: Scalar
    per_unit: Array  # (quantities,) per byte, byte/s, FLOP/s, byte/s, byte/s


def numbers(accelerator: Accelerator) -> Array:
    """The numbers of an accelerator `(quantities,)`, 0 where unknown: what is not known is not paid for."""
    return jnp.stack([jnp.nan_to_num(jnp.asarray(getattr(accelerator, name))) for name in QUANTITIES])


def cost(model: LinearCost, accelerator: Accelerator) -> Array:
    """[USD/h] or [W] of one accelerator."""
    return model.base + jnp.sum(model.per_unit * numbers(accelerator))


def shares(model: LinearCost, accelerator: Accelerator) -> Array:
    """What share of the cost each number has `(quantities,)`: the elasticity of the cost in it. The rest is the base's."""
    return model.per_unit * numbers(accelerator) / cost(model, accelerator)


def scaled(accelerator: Accelerator, factors: Array) -> Accelerator:
    """The accelerator with each of its numbers times a factor `(quantities,)`."""
    changed = {name: getattr(accelerator, name) * factors[place] for place, name in enumerate(QUANTITIES)}
    return replace(accelerator, **changed, peak_flops=accelerator.peak_flops * factors[QUANTITIES.index("peak_flops_16bit")])


def anchored(model: LinearCost, accelerator: Accelerator, value: Any) -> LinearCost:
    """The model in proportion, so that this accelerator costs `value`: the error of a fit then moves no ratio between it and its variants."""
    factor = value / cost(model, accelerator)
    return LinearCost(base=model.base * factor, per_unit=model.per_unit * factor)


def at_the_limit(direct: Array, by_load: Array, excess: Array, excess_by_load: Array, binds: Array) -> Array:
    """The derivative of a rate in the hardware `(numbers,)` where a constraint holds the load, by the implicit function theorem.

    The constraint's excess g(load, h) stays 0, so that d load / dh = -(dg/dh) / (dg/d load), and d rate / dh = `direct` + `by_load` * d load / dh. `direct`,
    `excess`: derivatives of the rate and of g in the hardware at a constant load; `by_load`, `excess_by_load`: in the load. Where nothing binds the load is
    the largest that is allowed, and stays.
    """
    return direct - jnp.where(binds, by_load / jnp.where(binds, excess_by_load, 1.0), 0.0) * excess
