"""Many points through one compiled program: batches of a fixed size, each spread over the local devices.

Memory is bounded by the batch and not by the number of points; the last batch is filled up with copies, so that any number of points is one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "points"


def rows(tree: Any, start: int, stop: int, size: int) -> Any:
    """Rows of stacked pytrees, filled up to `size` with copies of the last."""
    index = np.minimum(np.arange(start, start + size), stop - 1)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def in_batches(function: Callable[..., Any], shared: Any, per_point: tuple[Any, ...], size: int, static: Mapping[str, Any] | None = None) -> Any:
    """`function(shared, *per_point, **static)` of all points, `size` at a time: its pytree as NumPy arrays, floats as float64.

    `function` is compiled (`jax.jit`); it maps pytrees whose leaves have a leading axis of points to such a pytree, each point for itself. `shared` is a pytree
    that all points are given whole, `static` are keyword arguments as they are. Where this process has several devices and their number divides `size`, they
    share the points of each batch out among themselves. XLA fuses the program of a share otherwise than that of a whole batch, so that single-precision
    answers may differ in the last digits from those of one device. Inputs keep their precision: double needs `jax.enable_x64`. Raises ValueError where there
    are no points.
    """
    count, placed = _points(per_point), _placement(size, tuple(jax.local_devices()))
    given = jax.device_put(shared, placed.whole) if placed else shared
    parts = []
    for start in range(0, count, size):
        batch = rows(per_point, start, count, size)
        made = function(given, *(jax.device_put(batch, placed.split) if placed else batch), **(static or {}))
        parts.append(jax.tree.map(lambda leaf, start=start: _host(leaf)[: count - start], made))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _points(per_point: tuple[Any, ...]) -> int:
    """How many points there are."""
    counts = {len(leaf) for leaf in jax.tree.leaves(per_point)}
    if len(counts) != 1 or not max(counts):
        raise ValueError(f"every leaf must have one row a point, and at least one: found {sorted(counts)} rows")
    return counts.pop()


def _host(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


class Placement(NamedTuple):
    """How a batch is shared out over the devices of this process, and how what is shared is copied to them."""

    split: NamedSharding
    whole: NamedSharding


@cache
def _placement(size: int, devices: tuple[Any, ...]) -> Placement | None:
    """The placement of batches of `size` on these devices; none where one device does it all."""
    if len(devices) == 1 or size % len(devices):
        return None
    mesh = Mesh(np.array(devices), (AXIS,))
    return Placement(NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec()))
