"""Bits of K and V layer by layer, as KVTuner publishes them (arXiv 2502.04420, `calibration_presets/*.yaml`):

    0:
      nbits_key: 8
      nbits_value: 4
    1: ...

one entry for every layer that stores a KV cache, counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvopt.catalog import read_yaml
from kvopt.errors import BadInput
from kvopt.inputs.head_scores import FIELD, stored_layers
from kvopt.inputs.model import ModelSpec

Floats = NDArray[np.float64]
NAMES = ("nbits_key", "nbits_value")
MOST_BITS = 16


@dataclass(frozen=True)
class LayerBits:
    """Bits per element of K and of V, `(layers that store a KV cache,)` each, without scales."""

    source: str
    key: Floats
    value: Floats


def read_layer_bits(path: Path, model: ModelSpec) -> LayerBits:
    """The precisions in a KVTuner file. Raises `BadInput` for a layer that is missing or unknown, and for bits that are none."""
    data = {str(name): entry for name, entry in read_yaml(path, FIELD).items()}
    layers = int(stored_layers(model).sum())
    for name in data:
        if not (name.isdigit() and int(name) < layers):
            raise BadInput(FIELD, f"{path.name}: layer {name}", f"not a layer of {model.id}: 0 to {layers - 1}")
    bits = np.zeros((2, layers))
    for layer in range(layers):
        entry = data.get(str(layer))
        if entry is None:
            raise BadInput(FIELD, f"{path.name}: layer {layer}", f"missing; {model.id} has {layers} layers with a KV cache, 0 to {layers - 1}")
        if not isinstance(entry, dict) or set(entry) != set(NAMES):
            raise BadInput(FIELD, f"{path.name}: layer {layer}", f"must give {' and '.join(NAMES)}, nothing else")
        for row, name in enumerate(NAMES):
            number = entry[name]
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 1 <= number <= MOST_BITS:
                raise BadInput(FIELD, f"{path.name}: layer {layer}, {name}: {number}", f"must be bits, 1 to {MOST_BITS}")
            bits[row, layer] = number
    return LayerBits(str(path), bits[0], bits[1])


def mean_bits(source: object) -> tuple[float, float] | None:
    """Mean bits of K and V of a KVTuner file; none of anything else."""
    return (float(source.key.mean()), float(source.value.mean())) if isinstance(source, LayerBits) else None


def layer_bits_text(key: Floats, value: Floats) -> str:
    """The same as a KVTuner file."""
    return "".join(f"{layer}:\n  {NAMES[0]}: {k:g}\n  {NAMES[1]}: {v:g}\n" for layer, (k, v) in enumerate(zip(key, value, strict=True)))
