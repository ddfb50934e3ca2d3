"""Plans by layer: which layers an engine with one cache format must leave in 16 bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvopt.export.settings import Settings
from kvopt.inputs.model import ModelSpec

Floats = NDArray[np.float64]


def bit_tables(found: Settings) -> tuple[Floats, Floats] | None:
    """Bits of K and of V, `(layers that store a cache, KV heads or 1)` each, of a plan that tells layers apart; none where all are alike."""
    tables = found.tables
    if "key_bits" not in tables and "value_bits" not in tables:
        return None
    given = {name: np.asarray(tables[name], np.float64) for name in ("key_bits", "value_bits") if name in tables}
    shape = next(iter(given.values())).shape
    key, value = (given.get(name, np.full(shape, float(found.plan[name]))) for name in ("key_bits", "value_bits"))
    return key, value


def places(model: ModelSpec) -> list[int]:
    """Numbers, from 0, of the layers that store a cache of their own among all layers of a model."""
    kinds = [model.kinds[name] for name, repeat in model.order for _ in range(repeat)]
    return [index for index, kind in enumerate(kinds) if kind.kv_heads > 0 and kind.stores]


def sixteen_bit_layers(found: Settings) -> tuple[list[str], list[str]]:
    """(the layers that stay in 16 bit beside a plan's one other format, as `--kv-cache-dtype-skip-layers` takes them; what cannot be told so)."""
    tables = bit_tables(found)
    if tables is None or not found.told:
        return [], []
    if found.problem is None:
        return [], ["bits by layer: the scenario can no longer be read, so the model's layers are not numbered"]
    key, value = tables
    allowed = {(16.0, 16.0)} | {(pair.key_bits, pair.value_bits) for method in found.used for pair in method.formats}
    pairs = [{(float(k), float(v)) for k, v in zip(*rows, strict=True)} for rows in zip(key, value, strict=True)]
    strange = [index for index, row in enumerate(pairs) if len(row) > 1 or not row <= allowed]
    if strange:
        return [], [f"bits by layer: {found.engine.name} has one format for the cache and 16 bit, and {len(strange)} layers of the plan have others"]
    kept = [str(place) for place, row in zip(places(found.problem.model), pairs, strict=True) if row == {(16.0, 16.0)}]
    return kept, []
