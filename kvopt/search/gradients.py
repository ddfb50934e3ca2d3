"""Gradients of programs that are compiled into a few loops over many points: nothing is computed twice.

XLA fuses elementwise operations into loops, each with one result, and computes again in every loop what several of them need. In a value that costs little. In
reverse mode nearly every intermediate is needed several times, and most of the time and of the compilation goes into repetition. So here equal operations are
merged before and after differentiation, and what several operations need is set down once, behind an `optimization_barrier`. On CPU, XLA drops such barriers
before it fuses, unless it is compiled with `KEEP_BARRIERS`; the results are then the same, and take longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
WORTH_SETTING_DOWN = 40  # operations repeated: fewer are as fast as memory; 3 to 20 compile longer and run no faster
FREE = frozenset(("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy", "neg", "select_n", "eq", "ne", "lt", "le", "gt", "ge"))
INLINED = ("jit", "pjit")


def value_and_gradient(function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """`jax.value_and_grad` in the first argument, for one point; `jax.vmap` makes it many.

    Where the two sides of a maximum or minimum are equal, the slope is that of the first one, not half of each.
    """

    def both(x: Any, *others: Any) -> Any:
        return jax.value_and_grad(once(function, _bind_simply), has_aux=has_aux)(x, *others)

    return once(both, _bind, WORTH_SETTING_DOWN)


def once(function: Callable[..., Any], bind: Callable[..., list[Any]], worth: float = float("inf")) -> Callable[..., Any]:
    """The same function with equal operations merged, and with what depends on an argument set down where it would take `worth` operations to repeat it."""

    def run(*arguments: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        operations, results = _merged(closed, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluated(operations, results, bind, worth))

    return run


class Known(NamedTuple):
    """A number, a constant or an argument."""

    value: Any
    varies: bool  # whether it is an argument


class Found(NamedTuple):
    """A result of an operation."""

    operation: int
    place: int


class Operation(NamedTuple):
    """An equation whose operands are known or found before."""

    equation: Any
    operands: list[Known | Found]


def _merged(closed: ClosedJaxpr, arguments: Sequence[Any]) -> tuple[list[Operation], list[Known | Found]]:
    """All operations that the results need, calls inlined and equal ones merged, in order; and the results."""
    operations: list[Operation] = []
    seen: dict[Hashable, int] = {}

    def walk(jaxpr: Jaxpr, constants: Sequence[Known | Found], given: Sequence[Known | Found]) -> list[Known | Found]:
        named = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *given), strict=True))

        def read(name: Any) -> Known | Found:
            return Known(name.val, False) if isinstance(name, Literal) else named[name]

        for equation in jaxpr.eqns:
            operands = [read(name) for name in equation.invars]
            if equation.primitive.name in INLINED:
                inner = equation.params["jaxpr"]
                found = walk(inner.jaxpr, [Known(value, False) for value in inner.consts], operands)
            else:
                place = seen.setdefault(_key(equation, operands, len(operations)), len(operations))
                if place == len(operations):
                    operations.append(Operation(equation, operands))
                found = [Found(place, i) for i in range(len(equation.outvars))]
            named.update(zip(equation.outvars, found, strict=True))
        return [read(name) for name in jaxpr.outvars]

    return operations, walk(closed.jaxpr, [Known(value, False) for value in closed.consts], [Known(value, True) for value in arguments])


def _key(equation: Any, operands: Sequence[Known | Found], unique: int) -> Hashable:
    """Equal for equal operations; `unique` where that cannot be told."""
    names = tuple(operand if isinstance(operand, Found) else _same(operand.value) for operand in operands)
    key = (equation.primitive.name, tuple(sorted(equation.params.items())), tuple(str(out.aval) for out in equation.outvars), names)
    try:
        hash(key)
    except TypeError:
        return unique
    return key


def _same(value: Any) -> Hashable:
    """Equal for equal numbers, and for one and the same array."""
    if isinstance(value, jax.Array) or np.ndim(value) > 0:
        return id(value)
    number = np.asarray(value)
    return number.dtype.str, number.tobytes()


def _evaluated(operations: Sequence[Operation], results: Sequence[Known | Found], bind: Callable[..., list[Any]], worth: float) -> list[Any]:
    """The results, of the operations that they need."""
    uses: Counter[Found] = Counter(result for result in results if isinstance(result, Found))
    needed = {result.operation for result in uses}
    for place in range(len(operations) - 1, -1, -1):
        if place in needed:
            taken = {operand for operand in operations[place].operands if isinstance(operand, Found)}
            uses.update(taken)
            needed |= {operand.operation for operand in taken}
    values: dict[Found, Any] = {}
    varies: dict[Found, bool] = {}
    costs: dict[Found, float] = {}

    def read(operand: Known | Found) -> Any:
        return values[operand] if isinstance(operand, Found) else operand.value

    for place in sorted(needed):
        equation, operands = operations[place]
        found = [operand for operand in operands if isinstance(operand, Found)]
        moves = any(operand.varies if isinstance(operand, Known) else varies[operand] for operand in operands)
        cost = sum(costs[operand] for operand in set(found)) + (equation.primitive.name not in FREE) if moves else 0
        for i, value in enumerate(bind(equation, [read(operand) for operand in operands])):
            name = Found(place, i)
            set_down = uses[name] > 1 and (uses[name] - 1) * cost >= worth and jnp.issubdtype(value.dtype, jnp.floating)
            values[name] = jax.lax.optimization_barrier(value) if set_down else value
            varies[name], costs[name] = moves, 0 if set_down else cost
    return [read(result) for result in results]


def _bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of one equation."""
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a tuple in older versions of JAX
    found = equation.primitive.bind(*functions, *operands, **params)
    return list(found) if equation.primitive.multiple_results else [found]


def _bind_simply(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The same, with maxima and minima whose derivative is a choice: JAX's own, which shares it between equal sides, takes three operations more for each."""
    chosen = {"max": _maximum, "min": _minimum}.get(equation.primitive.name)
    return _bind(equation, operands) if chosen is None else [chosen(*operands)]


@jax.custom_jvp
def _maximum(x: Array, y: Array) -> Array:
    return jax.lax.max(x, y)


@jax.custom_jvp
def _minimum(x: Array, y: Array) -> Array:
    return jax.lax.min(x, y)


@_maximum.defjvp
def _slope_of_maximum(sides: tuple[Array, Array], slopes: tuple[Array, Array]) -> tuple[Array, Array]:
    return _maximum(*sides), jnp.where(sides[0] >= sides[1], *slopes)


@_minimum.defjvp
def _slope_of_minimum(sides: tuple[Array, Array], slopes: tuple[Array, Array]) -> tuple[Array, Array]:
    return _minimum(*sides), jnp.where(sides[0] <= sides[1], *slopes)


def total(part: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The sum of `part(row, shared)` over the rows of a pytree with a leading axis, one row after the other: `(rows, shared) -> sum`.

    Its derivative goes over the rows once more and keeps nothing but them, so that under `jax.vmap` all intermediates are one number a point and stay in a
    processor's cache. Differentiated in the rows only: `shared` counts as constant.
    """

    @jax.custom_vjp
    def added(rows: Any, shared: Any) -> Any:
        once_each = once(lambda row: part(row, shared), _bind, WORTH_SETTING_DOWN)
        shapes = jax.eval_shape(once_each, jax.tree.map(lambda leaf: leaf[0], rows))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(lambda so_far, row: (jax.tree.map(jnp.add, so_far, once_each(row)), None), nothing, rows)[0]

    def pulled(rows_and_shared: tuple[Any, Any], slope: Any) -> tuple[Any, Any]:
        rows, shared = rows_and_shared

        def weighted(row: Any) -> Array:
            terms = jax.tree.map(lambda one, by: jnp.sum(one * by), part(row, shared), slope)
            return sum(jax.tree.leaves(terms), jnp.zeros(()))

        slopes = jax.lax.map(lambda row: value_and_gradient(weighted)(row)[1], rows)
        return slopes, jax.tree.map(jnp.zeros_like, shared)

    added.defvjp(lambda rows, shared: (added(rows, shared), (rows, shared)), pulled)
    return added
