"""Methods by the names that tables give them, and the precisions that such names state."""

from __future__ import annotations

import re
from functools import cache

from kvopt.inputs import method as methods
from kvopt.inputs.method import Dimension, MethodSpec

DIMENSION_NAMES: dict[str, Dimension] = {
    "token": "token",
    "head": "head",
    "layer": "layer",
    "hidden-rank": "rank",
    "rank": "rank",
    "hidden-bits": "bits",
    "bits": "bits",
}
_GGUF_BITS = {"f16": 16.0, "bf16": 16.0, "fp16": 16.0, "q8_0": 8.0, "q6_0": 6.0, "q5_1": 5.0, "q5_0": 5.0, "q4_1": 4.0, "q4_0": 4.0}


@cache
def _labels(dimension: Dimension) -> tuple[tuple[str, MethodSpec], ...]:
    found = [
        (label.lower(), method)
        for method in methods.load_all()
        if method.dimension == dimension
        for label in (*method.labels, method.name, method.id)
    ]
    return tuple(sorted(found, key=lambda entry: -len(entry[0])))


@cache
def find(name: str, dimension: Dimension) -> MethodSpec | None:
    """The catalog's method that a table means, by the longest of its labels that the name begins with, with and without remarks in parentheses."""
    written = re.sub(r"\s+", " ", name.strip().lower())
    for text in (written, re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", " ", written)).strip()):
        for label, method in _labels(dimension):
            if text.startswith(label) and (len(text) == len(label) or not text[len(label)].isalnum()):
                return method
    return None


def key_value_bits(name: str, bits: float) -> tuple[float, float]:
    """Bits of K and of V: what the name states (`K q8_0, V f16`, `k8v4`, `k2.19v2.38`), else the nominal bits for both."""
    text = name.lower()
    pair = re.search(r"\bk ?([a-z]+\d+(?:_\d)?), ?v ?([a-z]+\d+(?:_\d)?)", text)
    if pair and pair.group(1) in _GGUF_BITS and pair.group(2) in _GGUF_BITS:
        return _GGUF_BITS[pair.group(1)], _GGUF_BITS[pair.group(2)]
    pair = re.search(r"k(\d+(?:\.\d+)?)v(\d+(?:\.\d+)?)", text)
    if pair and all(1 <= float(value) <= 16 for value in pair.groups()):
        return float(pair.group(1)), float(pair.group(2))
    return bits, bits
