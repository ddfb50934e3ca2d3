"""The compiled programs: everything that is evaluated is evaluated in batches of a few fixed sizes, so that a second search compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.kept_programs import Program
from kvopt.search.batches import in_batches
from kvopt.search.batches import rows as rows
from kvopt.search.evaluate import GOALS, Given, State, evaluate, log_goal, saturated
from kvopt.search.gradients import KEEP_BARRIERS
from kvopt.search.lagrangian import Scalarisation, improve
from kvopt.search.lanes import Lane
from objectives.goals import Targets

EXACT, CLIMBED, MEASURED = 64, 256, 2048  # points per batch of each program; the last batch is filled up with copies


class Points(NamedTuple):
    """Evaluated points, NumPy arrays with a leading axis."""

    x: np.ndarray  # (points, fields)
    logs: np.ndarray  # (points, goals) ln of every goal in the order of GOALS, signed so that less is better
    broken: np.ndarray  # (points, constraints) violations of the active constraints, positive where broken


FAST_MATH = {"xla_cpu_enable_fast_math": True, "xla_cpu_fast_math_honor_infs": True, "xla_cpu_fast_math_honor_nans": True, **KEEP_BARRIERS}
"""What single-precision searches are compiled with on CPU: half the arithmetic and half the compile time, answers that differ in the last digits. Whatever
is returned is evaluated again in double precision, without."""


@cache
def _fast() -> dict[str, Any] | None:
    """The options above, where this JAX compiles for a CPU and knows them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=FAST_MATH)(np.float32(0))
    except jax.errors.JaxRuntimeError:
        return None
    return FAST_MATH


@cache
def compiled(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """The function as searches compile it; one program per function, whoever asks."""
    return Program(function, static, _fast)


def _measure(given: Given, lanes: Lane, targets: Targets, x: Any, load: bool) -> tuple[Any, Any, Any]:
    def one(lane: Lane, target: Targets, settings: Any) -> tuple[Any, Any, Any]:
        def judged(state: State) -> tuple[Any, Any]:
            return jnp.stack([log_goal(name, state) for name in GOALS]), given.active * state.broken

        if load:
            best, found = saturated(given, lane, target, settings, 24, judged)
            return best, *found
        return settings, *judged(evaluate(given, lane, target, settings))

    return jax.vmap(one)(lanes, targets, x)


def _improve(given: Given, lanes: Lane, targets: Targets, scalarisations: Scalarisation, x: Any) -> Any:
    return jax.vmap(partial(improve, given))(lanes, targets, scalarisations, x)


def _exact(_: None, given: Given, lanes: Lane, targets: Targets, x: Any, load: bool) -> tuple[Any, State]:
    def one(own: Given, lane: Lane, target: Targets, settings: Any) -> tuple[Any, State]:
        if load:
            return saturated(own, lane, target, settings, 50, lambda state: state)
        return settings, evaluate(own, lane, target, settings)

    return jax.vmap(one)(given, lanes, targets, x)


_EXACT = Program(_exact, ("load",))


def _single(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def measure(given: Given, lanes: Lane, targets: Targets, x: np.ndarray, load: bool = True) -> Points:
    """Points in single precision; with `load`, at the largest load that each carries. Lanes, targets and settings have the points' axis."""
    return Points(*in_batches(compiled(_measure, "load"), _single(given), _single((lanes, targets, x)), MEASURED, {"load": load}))


def climb(given: Given, lanes: Lane, targets: Targets, scalarisations: Scalarisation, x: np.ndarray) -> np.ndarray:
    """The augmented Lagrangian from every start `(points, fields)`, single precision."""
    found: np.ndarray = in_batches(compiled(_improve), _single(given), _single((lanes, targets, scalarisations, x)), CLIMBED)
    return found


def repeat(tree: Any, count: int) -> Any:
    """The same pytree for every one of `count` points."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf, np.float64), (count, *np.shape(leaf))), tree)


def stack(trees: Sequence[Any], axis: int | None = None) -> Any:
    """Pytrees of one structure as one: stacked on a new leading axis, or, with `axis`, joined along an old one."""
    if axis is None:
        return jax.tree.map(lambda *leaves: np.array(leaves, np.float64), *trees)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *trees)


def exact(given: list[Given], lanes: Lane, targets: Targets, x: np.ndarray, load: bool = True) -> tuple[np.ndarray, list[State]]:
    """Points in double precision with all that is known of them, each with what is given to it: (settings, states)."""
    with jax.enable_x64(True):
        settings, state = in_batches(_EXACT, None, (stack(given), lanes, targets, x), EXACT, {"load": load})
    leaves, tree = jax.tree.flatten(state)
    return settings, [jax.tree.unflatten(tree, row) for row in zip(*leaves, strict=True)]
