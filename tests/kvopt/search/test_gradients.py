"""Gradients in which nothing is computed twice: the same numbers as JAX's own, with fewer operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from kvopt.search.gradients import KEEP_BARRIERS, once, total, value_and_gradient
from kvopt.search.gradients import _bind as bind


def curved(x: Any, scale: Any) -> Any:
    """Shares work, calls a jitted function twice, and bends."""
    inner = jax.jit(lambda y: jnp.log1p(jnp.exp(y)) * scale + norm.cdf(y))
    a, b = inner(x["a"]) * jnp.maximum(x["b"], 0.3), inner(x["a"]) / jnp.minimum(x["b"], 2.0)
    return jnp.sum(a * b + jnp.sqrt(a**2 + 1)) + jax.nn.logsumexp(b)


def points(count: int = 7) -> Any:
    rng = np.random.default_rng(3)
    return {"a": jnp.asarray(rng.normal(size=(count, 4)), jnp.float32), "b": jnp.asarray(rng.uniform(0.1, 3, (count, 4)), jnp.float32)}


def primitives(function: Any, *given: Any) -> Counter[str]:
    """How often each operation stands in a program, calls included."""

    def count(jaxpr: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        for equation in jaxpr.eqns:
            inner = [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
            found += sum((count(one) for one in inner), Counter()) if inner else Counter([equation.primitive.name])
        return found

    return count(jax.make_jaxpr(function)(*given).jaxpr)


@pytest.mark.parametrize("options", [{}, KEEP_BARRIERS])
def test_the_same_as_jax(options: dict[str, str]) -> None:
    x, scale = points(), jnp.float32(1.7)
    mine, theirs = (
        jax.jit(jax.vmap(f(curved), in_axes=(0, None)), compiler_options=options)(x, scale) for f in (value_and_gradient, jax.value_and_grad)
    )
    for found, expected in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_what_comes_along() -> None:
    def with_more(x: Any) -> Any:
        return jnp.sum(x**3), {"cubes": x**3}

    (value, more), gradient = value_and_gradient(with_more, has_aux=True)(jnp.arange(3.0))
    assert float(value) == 9
    assert more["cubes"].tolist() == [0, 1, 8]
    assert gradient.tolist() == [0, 3, 12]


def test_equal_operations_are_merged() -> None:
    def twice(x: Any) -> Any:
        return jnp.exp(x) * jnp.log(x + 0.1) + jnp.exp(x) * jnp.log(x + 0.2)

    found = primitives(once(twice, bind), jnp.ones(3))
    assert found["exp"] == 1
    assert found["log"] == 2  # numbers that are not equal are not taken for each other


def test_what_is_not_needed_is_left_out() -> None:
    def unused(x: Any) -> Any:
        return (jnp.exp(x), x + 1)[1]

    assert "exp" not in primitives(once(unused, bind), jnp.ones(3))


def test_only_what_is_needed_again_is_set_down() -> None:
    def chain(x: Any) -> Any:
        y = jnp.exp(jnp.sin(x) * 2 + 1)
        return y * y + jnp.cos(y)

    assert primitives(once(chain, bind, worth=3), jnp.ones(3))["optimization_barrier"] == 1
    assert primitives(once(chain, bind, worth=30), jnp.ones(3))["optimization_barrier"] == 0


def test_a_maximum_of_equals() -> None:
    """The slope is that of the first side, and of a minimum alike; away from there they are JAX's."""
    slopes = jax.vmap(lambda x: value_and_gradient(lambda y: jnp.maximum(y, 1.0) + 10 * jnp.minimum(3.0, y))(x)[1])(
        jnp.array([0.5, 1.0, 2.0, 3.0, 4.0])
    )
    assert slopes.tolist() == [10, 11, 11, 1, 1]


def test_a_total_over_rows() -> None:
    def part(row: Any, shared: Any) -> Any:
        return {"sum": jnp.exp(-row) * shared, "bend": jnp.maximum(row, 0.5) ** 2}

    def looped(rows: Any, shared: Any) -> Any:
        found = total(part)(rows, shared)
        return found["sum"] * jnp.log(found["bend"])

    def whole(rows: Any, shared: Any) -> Any:
        found = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(part, in_axes=(0, None))(rows, shared))
        return found["sum"] * jnp.log(found["bend"])

    rows = jnp.asarray(np.random.default_rng(5).uniform(0, 2, (6, 9)), jnp.float32)  # 9 points, their axis last
    (value, slopes), (expected, expected_slopes) = (
        jax.vmap(f, in_axes=(-1, None), out_axes=(0, -1))(rows, 2.0) for f in (value_and_gradient(looped), jax.value_and_grad(whole))
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-4, atol=1e-5)
