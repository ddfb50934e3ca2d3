"""How much methods, tasks and models differ: the spreads of the pooled model, by the marginal likelihood of the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvopt.accuracy.levels import AMPLITUDE, LEVELS, MIDPOINT, PARAMETERS, SLOPE, Names, Parameter
from kvopt.accuracy.pooled import Pooled, Spreads, fit
from kvopt.accuracy.reading import Reading
from kvopt.inputs.method import Dimension

ROUNDS, STEPS = 4, 12  # fits, and steps of the spreads between them
MOST_STEP = 0.25  # of ln(spread) in one step
PRIOR_SD, NOISE_SD = 0.7, 0.5  # of ln(spread) and ln(noise) about where they start: few readings leave them there (assumed)
LEAST_SPREAD, LEAST_NOISE = 0.05, 0.006

_USUAL = {
    "pool": 1.5, "task": 0.7, "pool, task": 0.5, "method": 0.8, "method, task": 0.5, "method, suite": 0.3, "benchmark": 0.6, "pool, benchmark": 0.4,
    "method, benchmark": 0.4, "source": 0.5, "series": 0.4, "model": 0.4,
}  # fmt: skip
OTHER = 0.3


def start(dimension: Dimension) -> Spreads:
    """Spreads before the evidence is seen (assumed): pools and methods differ by factors, most interactions by a third."""
    bits = dimension == "bits"
    return Spreads(
        mean={"amplitude": np.log(0.02) if bits else np.log(0.3), "slope": np.log(1.2) if bits else np.log(0.8), "midpoint": 0.0 if bits else -1.0},
        amplitude={level: _USUAL.get(level, OTHER) for level in AMPLITUDE} | ({"model": 0.8} if bits else {}),
        slope={level: {"pool": 0.6, "method": 0.3}.get(level, 0.2) for level in SLOPE},
        midpoint={level: {"pool": 2.0, "method": 1.0}.get(level, 0.7) for level in MIDPOINT},
        noise={"average": 0.012, "task": 0.03, "needle": 0.05, "exam": 0.03},
    )


def estimate(readings: Sequence[Reading], first: Spreads) -> Spreads:
    """The spreads that make the readings most likely, near where they start."""
    spreads = first
    for _ in range(ROUNDS):
        model = fit(readings, spreads)
        spreads = _climbed(model, first)
    return spreads


def _climbed(model: Pooled, first: Spreads) -> Spreads:
    """Steps uphill on the marginal likelihood of the model linearised where it stands."""
    levels = Names().of(model.readings)
    alike = {
        (name, level): (levels[level][:, None] == levels[level][None, :]) * np.outer(row, row)
        for name, row in zip(PARAMETERS, model.slopes, strict=True)
        for level in LEVELS[name]
    }
    spread = {key: model.spreads.of(key[0])[key[1]] for key in alike}
    noise = dict(model.spreads.noise)
    kinds = np.array([reading.noise for reading in model.readings])
    reweighted = model.variance / np.array([noise[kind] ** 2 for kind in kinds])
    # what the linearised model was asked to explain: its own covariance times its weights
    target = _covariance(alike, spread, model.variance) @ model.weight
    for _ in range(STEPS):
        inverse = np.linalg.inv(_covariance(alike, spread, reweighted * np.array([noise[kind] ** 2 for kind in kinds])))
        pull = inverse @ target
        gain = np.outer(pull, pull) - inverse
        for key, block in alike.items():
            uphill = spread[key] ** 2 * float((gain * block).sum()) - np.log(spread[key] / first.of(key[0])[key[1]]) / PRIOR_SD**2
            spread[key] = max(LEAST_SPREAD, spread[key] * np.exp(_step(uphill)))
        for kind in noise:
            mine = kinds == kind
            uphill = noise[kind] ** 2 * float((np.diag(gain) * reweighted)[mine].sum()) - np.log(noise[kind] / first.noise[kind]) / NOISE_SD**2
            noise[kind] = max(LEAST_NOISE, noise[kind] * np.exp(_step(uphill)))
    found: dict[str, dict[str, float]] = {name: {level: float(spread[name, level]) for level in LEVELS[name]} for name in PARAMETERS}
    return first.model_copy(update={**found, "noise": {kind: float(value) for kind, value in noise.items()}})


def _covariance(alike: dict[tuple[Parameter, str], np.ndarray], spread: dict[tuple[Parameter, str], float], variance: np.ndarray) -> np.ndarray:
    total = np.diag(variance)
    for key, block in alike.items():
        total = total + spread[key] ** 2 * block
    return total


def _step(uphill: float) -> float:
    return float(np.clip(0.3 * uphill / (2 + abs(uphill)), -MOST_STEP, MOST_STEP))
