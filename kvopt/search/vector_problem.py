"""A plan as a vector in the unit box, as any optimizer takes one: decoded, repaired to what can be deployed, and evaluated in batches.

Two objectives, both minimised: -ln of the sessions per GPU-hour at the largest load that the plan carries, and the log loss of accuracy, -ln of the share
retained. Whoever searches gets the same box, the same repair, the same constraints and the same compiled model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from kvopt.search.batches import in_batches
from kvopt.search.programs import compiled

OBJECTIVES = ("sessions_per_gpu_hour", "accuracy_retained")
BATCHES = (8, 128, 512, 4096)  # points per compiled program: the smallest that holds them all, or the largest again and again
EXACT = 128  # points per batch in double precision
FEW = 16  # variables up to which a Jacobian is taken forwards
HALVINGS, EXACT_HALVINGS = 24, 50  # of the load, in single and in double precision


class Evaluated(NamedTuple):
    """Points evaluated after repair, NumPy arrays with a leading axis."""

    objectives: np.ndarray  # (points, 2) as OBJECTIVES, on the log scale, minimised
    violation: np.ndarray  # (points,) of the constraint that is broken most, relative; 0 or below where none is
    feasible: np.ndarray  # (points,) whether every constraint holds and both objectives are finite


@dataclass(frozen=True)
class Axis:
    """What one coordinate stands for: its deployable values, rising, by their positions in [0, 1].

    A coordinate is repaired to the nearest position; the values of a categorical axis have bins of equal width.
    """

    name: str
    positions: np.ndarray  # (levels,)
    categorical: bool = False

    @cached_property
    def edges(self) -> np.ndarray:
        """Where repair goes from one value to the next, `(levels - 1,)`."""
        count = len(self.positions)
        return np.arange(1, count) / count if self.categorical else (self.positions[1:] + self.positions[:-1]) / 2

    @classmethod
    def bins(cls, name: str, count: int) -> Axis:
        """A categorical axis of `count` values."""
        return cls(name, (np.arange(count) + 0.5) / count, categorical=True)

    @classmethod
    def spaced(cls, name: str, values: np.ndarray, logarithmic: bool) -> Axis:
        """An axis of at least two rising numbers, placed by their size or by its logarithm (then above 0)."""
        size = np.log(values) if logarithmic else np.asarray(values, float)
        return cls(name, (size - size[0]) / (size[-1] - size[0]))


class VectorProblem(ABC):
    """A space of plans as vectors `u` in [0, 1]^size. Categorical coordinates come first. It can be pickled, and handed to other processes.

    `axes`: the different axes; `of` `(size,)`: which of them each coordinate is on.
    """

    def __init__(self, axes: Sequence[Axis], of: np.ndarray) -> None:
        self.axes, self.of = tuple(axes), np.asarray(of)
        self.size = len(self.of)
        self._columns = [np.flatnonzero(self.of == place) for place in range(len(self.axes))]

    @cached_property
    def levels(self) -> np.ndarray:
        """How many deployable values each coordinate has, `(size,)`."""
        return np.array([len(axis.positions) for axis in self.axes])[self.of]

    @cached_property
    def categorical(self) -> np.ndarray:
        """Which coordinates are categorical, `(size,)`."""
        return np.array([axis.categorical for axis in self.axes])[self.of]

    def repair(self, u: np.ndarray) -> np.ndarray:
        """The deployable plan of each vector `(points, size)`: the places of its values on their axes, integers of the same shape."""
        found = np.zeros(np.shape(u), np.int32)
        for axis, columns in zip(self.axes, self._columns, strict=True):
            found[:, columns] = np.searchsorted(axis.edges, u[:, columns], side="right")
        return found

    def vector(self, index: np.ndarray) -> np.ndarray:
        """The vectors of deployable plans `(points, size)`: `repair` gives the plans back."""
        found = np.zeros(np.shape(index))
        for axis, columns in zip(self.axes, self._columns, strict=True):
            found[:, columns] = axis.positions[index[:, columns]]
        return found

    def evaluate(self, u: np.ndarray) -> Evaluated:
        """The repaired points in single precision, as searches compile it, `(points, size)`."""
        return self.measure(self.repair(np.asarray(u, float)))

    def measure(self, index: np.ndarray) -> Evaluated:
        """Deployable plans `(points, size)` in single precision."""
        shared, per_point = self._shared_single, jax.tree.map(_single, self.points(index))
        size = next((size for size in BATCHES if size >= len(index)), BATCHES[-1])
        return _evaluated(*in_batches(compiled(self.program, "halvings"), shared, per_point, size, {"halvings": HALVINGS}))

    @cached_property
    def _shared_single(self) -> Any:
        return jax.tree.map(_single, self.shared())

    def exact(self, index: np.ndarray) -> Evaluated:
        """Deployable plans `(points, size)` in double precision, the load solved again."""
        return _evaluated(*precisely(self.program, self.shared(), self.points(index)))

    def linearised(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`relaxed` at one vector in double precision, and its Jacobian: `(2 + constraints,)` and `(2 + constraints, size + 1)`."""
        with jax.enable_x64(True):
            value, jacobian = _linear(self)(self.shared(), np.asarray(v, np.float64))
            return np.asarray(value), np.asarray(jacobian)

    @property
    @abstractmethod
    def reference(self) -> np.ndarray:
        """The worst objectives that a hypervolume counts `(2,)`: the sessions of the best uncompressed plan, and the accuracy floor."""

    @abstractmethod
    def shared(self) -> Any:
        """What `program` is given of the problem, a pytree of float64 arrays."""

    @abstractmethod
    def points(self, index: np.ndarray) -> tuple[Any, ...]:
        """What `program` is given of deployable plans `(points, size)`, pytrees with an axis of points."""

    @property
    @abstractmethod
    def program(self) -> Callable[..., Any]:
        """`(shared, *points, halvings) -> (objectives (points, 2), violation (points,))`, a function of a module: compiled once, whoever asks."""

    @abstractmethod
    def relaxed(self, shared: Any, v: Any) -> Any:
        """Objectives and constraint violations `(2 + constraints,)` without repair, differentiable. `v`: a vector, and the load as a share of its range."""


def _evaluated(objectives: np.ndarray, violation: np.ndarray) -> Evaluated:
    feasible = (violation <= 0) & np.isfinite(objectives).all(axis=1)
    return Evaluated(objectives, violation, feasible)


def _single(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def precisely(program: Callable[..., Any], shared: Any, points: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A problem's program in double precision, without the options of a search: objectives `(points, 2)` and violations `(points,)`."""
    with jax.enable_x64(True):
        found: tuple[np.ndarray, np.ndarray] = in_batches(_plain(program), shared, points, EXACT, {"halvings": EXACT_HALVINGS})
    return found


@cache
def _linear(problem: VectorProblem) -> Callable[..., Any]:
    """`problem.relaxed` with its Jacobian, compiled."""

    def both(shared: Any, v: Any) -> tuple[Any, Any]:
        of = partial(problem.relaxed, shared)
        return of(v), (jax.jacfwd if problem.size < FEW else jax.jacrev)(of)(v)

    return jax.jit(both)


@cache
def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnames=("halvings",))
