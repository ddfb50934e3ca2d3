"""The curves of `objectives.accuracy.proxies` as the pooled model fits them: in three parameters that hardly trade against each other.

A keep curve is stated by ln L at a quarter kept, ln s and ln k0; a bits curve by ln L at 4 bits and ln(rate). In NumPy, since a fit evaluates many
shapes once each; a test holds both forms together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kvopt.accuracy.reading import Reading
from kvopt.inputs.evidence import REFERENCE_CONTEXT
from objectives.accuracy.proxies import FULL_BITS, SMALLEST_KEEP

REFERENCE_KEEP = 0.25
REFERENCE_BITS = 4.0
FLOOR = 0.004  # loss that near-lossless methods are still measured to have: DuoAttention .995, KVzip .996 at half, FP8 .991-.999 on averages
KEY_SHARE = 0.75  # of K in the loss at equal bits: K8V4 keeps .995 where KV4 keeps .35 (KVTuner, arXiv 2502.04420)
LONG_CONTEXT = 65536.0  # [tokens] from about here low bits lose more with length: FP8 and 3-bit TurboQuant on MRCR
LONG_EXPONENT = 0.5  # of 1 + n / LONG_CONTEXT on L: 3-bit TurboQuant, Qwen3-30B-A3B, loses .22 at 32k, .27 at 128k and .6 at 256k
BUDGET_EXPONENT: Mapping[str, float] = {"needle": 0.5, "multi-needle": 0.5}
USUAL_BUDGET_EXPONENT = 0.2
"""How far the absolute number of tokens kept decides beside the share: the curve is read at k (n / 8192)^gamma. Published: .14-.29 on averages (Qwen3-8B
RULER 4k and 16k, QPruningKV LongBench), .96 and -.64 on needles (SnapKV, PyramidKV): half of it."""
KEY_OUTLIERS: Mapping[str, float] = {"qwen2.5-7b": 4.5}
"""Models whose keys collapse at 4 bits in formats that are lossless elsewhere: effect on ln L of K at 4 bits, gone at 8. Qwen2.5-7B with KIVI-4: GSM8K .7755
-> .1043, uniform KV4: perplexity 9.56 -> 235, while K8V4 keeps .995 (KVTuner, arXiv 2502.04420). Mixes by layer (KVTuner) are made to avoid it."""
LAYER_MIXES = frozenset({"kvtuner"})
LEAST, MOST = 1e-9, 60.0  # bounds of L and of exponents, which no measurement reaches


def grows_with_context(readings: Sequence[Reading]) -> np.ndarray:
    """What the context changes, `(readings,)`: on ln k0 of methods that evict tokens, on ln L of bits; nothing elsewhere.

    Heads that keep all or a window keep the same share of heads at any length.
    """
    context = np.array([reading.context for reading in readings], float)
    evicting = np.array([reading.dimension == "token" or reading.pool == "head-budgets" for reading in readings])
    gamma = np.array([BUDGET_EXPONENT.get(reading.task, USUAL_BUDGET_EXPONENT) for reading in readings])
    bits = np.array([reading.dimension == "bits" for reading in readings])
    keep = np.where(evicting, -gamma * np.log(context / REFERENCE_CONTEXT), 0.0)
    return np.where(bits, LONG_EXPONENT * np.log1p(context / LONG_CONTEXT), keep)


def keep_loss(keep: np.ndarray, eta: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Log loss at a kept share; `eta` is (3, ...): ln L at a quarter, ln s, ln k0 at the reference context."""
    slope = np.exp(np.clip(eta[1], -5, np.log(16)))

    def logistic(share: np.ndarray | float, midpoint: np.ndarray) -> np.ndarray:
        weight = 1 / (1 + np.exp(-np.clip(slope * midpoint, -MOST, MOST)))
        return np.log1p(weight * np.expm1(np.minimum(-slope * np.log(np.maximum(share, SMALLEST_KEEP)), MOST)))

    return np.exp(eta[0]) * logistic(keep, eta[2] + context) / logistic(REFERENCE_KEEP, eta[2]) + FLOOR * (1 - keep)


def key_outlier(reading: Reading) -> float:
    """Effect of the model's keys on ln L of K at 4 bits."""
    return 0.0 if reading.method in LAYER_MIXES or reading.pool != "careful" else KEY_OUTLIERS.get(reading.model, 0.0)


def bits_rate(log_rate: np.ndarray | float, outlier: np.ndarray | float) -> np.ndarray:
    """Fall of ln L per bit; steeper where keys collapse at 4 bits and are whole at 8."""
    return np.exp(np.clip(log_rate, -3, np.log(3))) + np.asarray(outlier) / 4


def bits_loss(key: np.ndarray, value: np.ndarray, eta: np.ndarray, context: np.ndarray, outlier: np.ndarray | float = 0.0) -> np.ndarray:
    """Log loss at so many bits of K and V; `eta` is (3, ...): ln L at 4 bits, ln(rate), and nothing."""
    rate = bits_rate(eta[1], outlier)

    def decay(bits: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(-rate * (bits - REFERENCE_BITS), MOST)) - np.exp(-rate * (FULL_BITS - REFERENCE_BITS))

    def fade(bits: np.ndarray) -> np.ndarray:
        t = np.clip((FULL_BITS - bits) / (FULL_BITS / 2), 0, 1)
        return t * t * (3 - 2 * t)

    exponential = KEY_SHARE * np.exp(outlier) * decay(key) + (1 - KEY_SHARE) * decay(value)
    return np.exp(eta[0] + context) * exponential + FLOOR * (fade(key) + fade(value)) / 2


def loss(readings: Sequence[Reading], eta: np.ndarray) -> np.ndarray:
    """Log loss of every reading, `(readings,)`, all of one dimension; `eta` is (3, readings)."""
    key = np.array([reading.key for reading in readings], float)
    value = np.array([reading.value for reading in readings], float)
    context = grows_with_context(readings)
    if readings and readings[0].dimension == "bits":
        return np.clip(bits_loss(key, value, eta, context, np.array([key_outlier(reading) for reading in readings])), LEAST, MOST)
    return np.clip(keep_loss(key, eta, context), LEAST, MOST)


def retained(readings: Sequence[Reading], eta: np.ndarray) -> np.ndarray:
    """What every reading should have kept, exp(-L), (readings,)."""
    return np.exp(-loss(readings, eta))


def slopes(function: object, readings: Sequence[Reading], eta: np.ndarray) -> np.ndarray:
    """Derivatives of a function of (readings, eta) in each of the three parameters, (3, readings), by central differences."""
    step = 1e-4
    found = []
    for row in range(len(eta)):
        moved = np.zeros_like(eta)
        moved[row] = step
        found.append((function(readings, eta + moved) - function(readings, eta - moved)) / (2 * step))  # type: ignore[operator]
    return np.array(found)


def log_variance(readings: Sequence[Reading], eta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Variance of ln L of every reading from that of its parameters, (readings,)."""
    gradient = slopes(lambda r, e: np.log(loss(r, e)), readings, eta)
    return np.maximum(np.einsum("in,ijn,jn->n", gradient, covariance, gradient), 0.0)


def floor_share(readings: Sequence[Reading], eta: np.ndarray) -> np.ndarray:
    """Share of every reading's loss that is the floor, (readings,)."""
    without = eta.copy()
    without[0] = -MOST
    return loss(readings, without) / loss(readings, eta)
