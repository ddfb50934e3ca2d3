"""Many points through one compiled program: batches of a fixed size, dealt to the local devices.

Memory is bounded by the batch and not by the number of points; the last batch is filled up with copies, so that any number of points is one program. Every
device runs the program that a single one would run, on whole batches: XLA simplifies a program that is split over devices in another order, which changes the
last digits, and with them what a search comes across. So an answer does not depend on the number of devices, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def rows(tree: Any, start: int, stop: int, size: int) -> Any:
    """Rows of stacked pytrees, filled up to `size` with copies of the last."""
    index = np.minimum(np.arange(start, start + size), stop - 1)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def in_batches(function: Callable[..., Any], shared: Any, per_point: tuple[Any, ...], size: int, static: Mapping[str, Any] | None = None) -> Any:
    """`function(shared, *per_point, **static)` of all points, `size` at a time: its pytree as NumPy arrays, floats as float64.

    `function` is compiled (`jax.jit`); it maps pytrees whose leaves have a leading axis of points to such a pytree, each point for itself. `shared` is a pytree
    that all points are given whole, `static` are keyword arguments as they are. Where this process has several devices, as many batches run at once. Inputs
    keep their precision: double needs `jax.enable_x64`. Raises ValueError where there are no points.
    """
    count = _points(per_point)
    starts = range(0, count, size)
    devices = [None, *jax.local_devices()[1:]][: len(starts)]  # None: the default one, where inputs need not be told to go
    given = [_on(device, shared) for device in devices]
    parts = []
    for wave in range(0, len(starts), len(devices)):
        mine = starts[wave : wave + len(devices)]
        made = [function(given[k], *_on(devices[k], rows(per_point, start, count, size)), **(static or {})) for k, start in enumerate(mine)]
        parts += [jax.tree.map(lambda leaf, start=start: _host(leaf)[: count - start], found) for start, found in zip(mine, made, strict=True)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _on(device: jax.Device | None, tree: Any) -> Any:
    """The same on a device; as it is for the default one."""
    return tree if device is None else jax.device_put(tree, device)


def _points(per_point: tuple[Any, ...]) -> int:
    """How many points there are."""
    counts = {len(leaf) for leaf in jax.tree.leaves(per_point)}
    if len(counts) != 1 or not max(counts):
        raise ValueError(f"every leaf must have one row a point, and at least one: found {sorted(counts)} rows")
    return counts.pop()


def _host(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
