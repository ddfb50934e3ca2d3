"""How far pools lie from their prediction where a source was left out of the fit: the spread of each generation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t as student

DOF = 3.0  # heavy tails: one log in twenty is several deviations off
NEW = ("vllm-0.17", "vllm-0.21")
NAMES = ("base_gib", "share_of_reserve", "share_of_weights", "high")
PRIOR = {"base_gib": (0.25, 1.0), "share_of_reserve": (0.2, 0.7), "share_of_weights": (0.01, 0.7), "high": (0.5, 0.4)}
"""Expected value and deviation of its ln: a quarter of a GiB, a fifth of the reserve, a hundredth of the weights; above the prediction half as far."""
Spreads = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Residual:
    """One printed pool less its prediction, by a fit without its source. GiB per rank."""

    generation: str
    source: str
    error: float
    reserve: float
    weights: float


def kind_of(generation: str) -> str:
    """Generations whose logs say alike much about their memory: vLLM from 0.17 on, and all others."""
    return "new" if generation in NEW else "old"


def fit_spread(residuals: Sequence[Residual]) -> Spreads:
    """The scales that make the residuals most likely, a source counting as the square root of its rows."""
    return {kind: _fit([residual for residual in residuals if kind_of(residual.generation) == kind]) for kind in ("new", "old")}


def spread_values(spreads: Spreads, generation: str) -> dict[str, float]:
    """The spread's fields of one generation."""
    return {"low": 1.0, **spreads[kind_of(generation)]}


def _fit(residuals: Sequence[Residual]) -> dict[str, float]:
    counts = Counter(residual.source for residual in residuals)
    weight = np.array([counts[residual.source] ** -0.5 for residual in residuals])
    error, reserve, weights = (np.array([getattr(residual, name) for residual in residuals]) for name in ("error", "reserve", "weights"))
    means = np.array([math.log(PRIOR[name][0]) for name in NAMES])
    deviations = np.array([PRIOR[name][1] for name in NAMES])

    def loss(point: NDArray[np.float64]) -> float:
        base, of_reserve, of_weights, high = np.exp(point)
        scale = np.sqrt(base**2 + (of_reserve * reserve) ** 2 + (of_weights * weights) ** 2)
        side = np.where(error < 0, 1.0, high)
        density = student.logpdf(error / (scale * side), DOF) - np.log(scale * side)
        return float(-(weight * density).sum() + 0.5 * (((point - means) / deviations) ** 2).sum())

    found = minimize(loss, means, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-4, "fatol": 1e-6})
    return dict(zip(NAMES, np.exp(found.x).tolist(), strict=True))
