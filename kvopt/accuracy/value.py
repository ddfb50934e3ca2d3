"""What a choice between methods may lose, and what a measurement of accuracy would save of it: the expected regret and its fall (knowledge gradient).

ln L of all readings is taken as jointly Gaussian, what is retained exp(-L). Draws are fixed, so that the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag
from scipy.special import ndtri
from scipy.stats import qmc

from kvopt.accuracy.joint import Joint

NODES = 9  # of the integral over what stays unknown of one reading
DRAWS, SAMPLES = 8, 12  # powers of two: outcomes of measurements that are looked at, and joint samples behind the regret
JITTER = 1e-10
LEAST_SLOPE = 1e-4  # of what is retained in ln L: below it a measurement says nothing
POINTS = 100.0
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(NODES)


@dataclass(frozen=True)
class Belief:
    """What is known of several readings of any dimensions."""

    mean: np.ndarray  # (n,) of ln L
    covariance: np.ndarray  # (n, n)
    scale: np.ndarray  # (n,) of the noise of a measurement, in units of what is retained

    def of(self, places: Sequence[int]) -> Belief:
        """Of some of them."""
        chosen = np.asarray(places, int)
        return Belief(self.mean[chosen], self.covariance[np.ix_(chosen, chosen)], self.scale[chosen])

    @property
    def noise(self) -> np.ndarray:
        """Variance of a measurement in units of ln L, (n,): much where next to nothing is lost."""
        loss = np.exp(self.mean)
        return (self.scale / np.maximum(loss * np.exp(-loss), LEAST_SLOPE)) ** 2


def belief(parts: Sequence[Joint]) -> Belief:
    """The readings of several dimensions after each other: dimensions share nothing."""
    found = [part.log_loss() for part in parts]
    mean, covariance = np.concatenate([middle for middle, _ in found]), block_diag(*(spread for _, spread in found))
    return Belief(mean, (covariance + covariance.T) / 2, np.concatenate([part.scale for part in parts]))


def expected(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """E[exp(-L)] of L lognormal, of any shape."""
    spread = np.sqrt(np.maximum(variance, 0.0))
    total = np.zeros(np.broadcast_shapes(mean.shape, spread.shape))
    for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
        total += weight * np.exp(-np.exp(mean + spread * node))
    return total


def regret(options: Belief) -> float:
    """Points that the best of the options keeps more than the one that should keep most: E[max] - max E, 0 or more."""
    root = np.linalg.cholesky(options.covariance + JITTER * np.eye(len(options.mean)) * (1 + np.trace(options.covariance)))
    kept = np.exp(-np.exp(options.mean + _normals(SAMPLES, len(options.mean)) @ root.T))
    return float(POINTS * (kept.max(1).mean() - kept.mean(0).max()))


def best_measurements(known: Belief, options: Sequence[int], candidates: Sequence[int], most: int, least: float = 0.0) -> list[tuple[int, float]]:
    """The candidates to measure, one after the other the one that takes most of the regret together with those before it.

    Each with the regret in points expected once it and those before it are measured. Ends early where the next takes less than `least` points.
    """
    chosen: list[tuple[int, float]] = []
    now = left = regret(known.of(options))
    picked, draws = np.asarray(options, int), _normals(DRAWS, most)
    shift, covariance, noise = np.zeros((len(draws), len(picked))), known.covariance, known.noise
    open_to = [int(place) for place in candidates]
    for turn in range(most):
        mean = known.mean[picked] + shift
        gains = {place: _gain(mean, covariance, noise, picked, place, draws[:, turn]) for place in open_to}
        if not gains:
            break
        best = max(gains, key=lambda place: gains[place])
        after = min(max(now - gains[best], 0.0), left)
        if left - after < least:
            break
        chosen.append((best, after))
        pull = covariance[:, best] / np.sqrt(covariance[best, best] + noise[best])
        shift, covariance, left = shift + draws[:, turn, None] * pull[picked], covariance - np.outer(pull, pull), after
        open_to.remove(best)
    return chosen


def _gain(mean: np.ndarray, covariance: np.ndarray, noise: np.ndarray, options: np.ndarray, place: int, draw: np.ndarray) -> float:
    """Points that picking after one more measurement keeps beyond picking before any; `mean`: (draws, options) after those chosen so far."""
    pull = covariance[options, place] / np.sqrt(max(covariance[place, place] + noise[place], JITTER))
    kept = expected(mean + draw[:, None] * pull, covariance[options, options] - pull**2)
    return float(POINTS * (kept.max(1).mean() - kept.mean(0).max()))


def _normals(power: int, count: int) -> np.ndarray:
    """Well spread standard normal draws, (2**power, count), the same every time."""
    return ndtri(np.clip(qmc.Sobol(max(count, 1), seed=0).random_base2(power), 1e-9, 1 - 1e-9))[:, :count]
