"""What the pooled models say of several readings together: how much knowing one of them says of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from kvopt.accuracy import response
from kvopt.accuracy.pooled import Pooled, noise, settled
from kvopt.accuracy.reading import MOST_RETAINED, Reading


@dataclass(frozen=True)
class Joint:
    """The Gaussian over the parameters of a few readings of one dimension."""

    readings: tuple[Reading, ...]
    eta: np.ndarray  # (3, n) its middle
    covariance: np.ndarray  # (3, 3, n, n)
    scale: np.ndarray  # (n,) of the noise of a measurement, in units of what is retained

    def log_loss(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle (n,) and covariance (n, n) of ln L."""
        gradient = response.slopes(lambda r, e: np.log(response.loss(r, e)), self.readings, self.eta)
        return np.log(response.loss(self.readings, self.eta)), _between(gradient, self.covariance)

    def seen(self, which: Sequence[int], retained: Sequence[float]) -> Joint:
        """The same after measuring some of the readings: what `pooled.updated` finds, of these readings alone."""
        places = np.asarray(which, int)
        if not len(places):
            return self
        own = [self.readings[i] for i in places]
        measured, scale, start = np.clip(np.asarray(retained, float), 0.0, MOST_RETAINED), self.scale[places], self.eta[:, places]
        across = self.covariance[:, :, :, places]  # (3, 3, n, measured)
        total, rows, _, weight = settled(own, measured, scale, start, across[:, :, places])
        pull = (across * rows[:, None, :]).sum(1)  # (3, n, measured): of every reading's parameters with what was measured
        flat = pull.reshape(-1, len(places))
        reduced = (flat @ cho_solve(cho_factor(total, lower=True), flat.T)).reshape(*pull.shape[:2], *pull.shape[:2]).transpose(0, 2, 1, 3)
        return replace(self, eta=self.eta + pull @ weight, covariance=self.covariance - reduced)


def _between(rows: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance (n, n) of a function of the parameters with slopes (3, n) between readings."""
    return (rows[:, None, :, None] * covariance * rows[None, :, None, :]).sum((0, 1))


def joint(model: Pooled, readings: Sequence[Reading]) -> Joint:
    """What a fitted model says of readings of its dimension together."""
    eta, covariance, _ = model.jointly(readings)
    return Joint(tuple(readings), eta, covariance, noise(readings, model.spreads))
