"""KVTuner: the YAML of bits by layer, as `kvopt.inputs.layer_bits` reads it back and KVTuner's own `calibration_presets` are written."""

from __future__ import annotations

import numpy as np

from kvopt.export import remarks
from kvopt.export.commands import comments
from kvopt.export.exported import Exported
from kvopt.export.layers import Floats, bit_tables, places
from kvopt.export.settings import Settings
from kvopt.inputs.layer_bits import layer_bits_text

TAKEN = (2.0, 4.0, 8.0)
"""Bits that KVTuner's quantisers have (arXiv 2502.04420); 16 is left uncompressed."""


def export(found: Settings) -> Exported:
    """`kvtuner.yaml`."""
    tables, cannot = _tables(found), []
    if tables is None:
        cannot.append("bits by layer: the plan is the same in all layers, and the scenario can no longer be read to count them")
    elif any(np.any(table != table[:, :1]) for table in tables):
        cannot.append("bits by layer: KV heads of one layer have different bits, and KVTuner has one pair a layer; the means are written")
    rows = [table.mean(axis=1) for table in tables] if tables else [np.empty(0), np.empty(0)]
    strange = sorted({float(bits) for row in rows for bits in row} - {*TAKEN, 16.0})
    if strange:
        cannot.append(
            f"bits: KVTuner quantises to {', '.join(f'{bits:g}' for bits in TAKEN)} bits, the plan has {', '.join(f'{bits:g}' for bits in strange)}"
        )
    cannot += [f"{method.id}: KVTuner sets precision alone{remarks.elsewhere(method)}" for method in found.used if method.dimension != "bits"]
    notes = [f"{len(rows[0])} layers: {rows[0].mean():.3g} bits of K and {rows[1].mean():.3g} of V in the mean"] if tables else []
    formats = [method.id for method in found.used if method.dimension == "bits" and method.id != "kvtuner"]
    if formats:
        notes.append(f"the plan's {formats[0]} is another format than KVTuner's integers of the same bits: accuracy and speed are not the plan's")
    about = [*remarks.heading(found)[:1], "Bits of K and V by layer, for KVTuner.", *notes, *(f"Cannot be told: {line}" for line in cannot)]
    return Exported("kvtuner", {"kvtuner.yaml": comments(about) + layer_bits_text(*rows)}, tuple(notes), tuple(cannot))


def _tables(found: Settings) -> tuple[Floats, Floats] | None:
    """Bits of K and V, `(layers that store a cache, 1 or KV heads)`; of a plan that is the same in all layers one row for each; none where unknown."""
    tables = bit_tables(found)
    if tables is not None or found.problem is None:
        return tables
    layers = len(places(found.problem.model))
    key, value = (np.full((layers, 1), float(found.plan[name])) for name in ("key_bits", "value_bits"))
    edges = max((method.edge_layers_16bit for method in found.used), default=0)
    for table in (key, value):
        table[:edges] = table[layers - edges :] = 16.0
    return key, value
