"""Gradients of functions that are evaluated in great numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def value_and_grad(function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """`jax.value_and_grad` in the first argument, with a barrier between the forward and the backward pass.

    Without it XLA fuses the forward pass into each of the backward pass's fusions and computes it again in every one of them: on CPU the gradient of
    the serving model then costs twice as much.
    """

    def both(first: Any, *rest: Any) -> Any:
        def moved(argument: Any) -> Any:
            made = function(argument, *rest)
            return made if has_aux else (made, ())

        value, pull, extra = jax.vjp(moved, first, has_aux=True)
        (gradient,) = jax.lax.optimization_barrier(pull)(jnp.ones_like(value))
        return ((value, extra), gradient) if has_aux else (value, gradient)

    return both
