"""The pooled model: every curve's parameters are sums of effects, fitted together to all readings of one dimension, and what follows for any other reading.

Partial pooling as a Gaussian process over the levels of `levels`: the prior covariance of two readings' parameters is the squared spread of what they share.
Readings are retained scores with heavy-tailed noise; the fit is the posterior's mode (Gauss-Newton with reweighted noise), its covariance that of the
linearised model at the mode, and the spreads maximise the marginal likelihood there (empirical Bayes, with a weak prior on each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from kvopt.accuracy import response
from kvopt.accuracy.levels import PARAMETERS, PART, Names, Parameter, Part, shared
from kvopt.accuracy.reading import MOST_RETAINED, Reading
from kvopt.inputs.evidence import Frozen

DEGREES = 4.0  # of freedom of the noise: a table's wrong digit must not bend a curve
ROUNDS, HALVINGS, DONE = 40, 12, 1e-3  # Gauss-Newton steps, of a step, and the fall of the objective (or the move) that ends them
MOST_STEP = 2.0  # of a parameter in one round of an update


class Spreads(Frozen):
    """What the pooled model of one dimension assumes before it sees a reading."""

    mean: dict[Parameter, float]
    amplitude: dict[str, float]
    slope: dict[str, float]
    midpoint: dict[str, float]
    noise: dict[str, float]

    def of(self, parameter: Parameter) -> dict[str, float]:
        """Spread of every level of a parameter."""
        return {"amplitude": self.amplitude, "slope": self.slope, "midpoint": self.midpoint}[parameter]

    def prior(self) -> np.ndarray:
        """Prior variance of the three parameters of any reading, (3,)."""
        return np.array([sum(spread**2 for spread in self.of(parameter).values()) for parameter in PARAMETERS])

    def mean_of(self, count: int) -> np.ndarray:
        """Prior mean of the parameters, (3, count)."""
        return np.repeat([[self.mean[parameter]] for parameter in PARAMETERS], count, axis=1)


@dataclass(frozen=True)
class Predicted:
    """What the pooled model says of readings that it need not have seen."""

    eta: np.ndarray  # (3, readings) parameters at the posterior mode
    covariance: np.ndarray  # (3, 3, readings) of them


@dataclass(frozen=True)
class Pooled:
    """A fitted model of one dimension: the readings, linearised at the mode."""

    readings: list[Reading]
    spreads: Spreads
    slopes: np.ndarray  # (3, readings) of what is retained in the parameters
    variance: np.ndarray  # (readings,) of the noise, reweighted
    weight: np.ndarray  # (readings,) the posterior mode is the prior mean plus covariance x slopes x weight

    @cached_property
    def sources(self) -> frozenset[str]:
        """Who made the readings."""
        return frozenset(reading.source for reading in self.readings)

    @cached_property
    def by_selection(self) -> dict[str, list[Reading]]:
        """The readings of each method, apart where it matters whether it saw the question (`Reading.selection`), in their order."""
        found: dict[str, list[Reading]] = {}
        for reading in self.readings:
            found.setdefault(reading.selection, []).append(reading)
        return found

    @cached_property
    def _names(self) -> Names:
        return Names()

    @cached_property
    def _levels(self) -> dict[str, np.ndarray]:
        return self._names.of(self.readings)

    @cached_property
    def _factor(self) -> tuple[np.ndarray, bool]:
        return cho_factor(self.total(), lower=True)

    def total(self) -> np.ndarray:
        """Covariance of what was measured, noise included, (readings, readings)."""
        prior = [shared(self._levels, self._levels, self.spreads.of(name)) for name in PARAMETERS]
        return _explained(self.slopes, prior) + np.diag(self.variance)

    def _across(self, new: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Of readings by their levels: parameters (3, new), and their prior covariance with what was measured, (new, known), and solved, (known, new)."""
        across = [shared(new, self._levels, self.spreads.of(name)) * row for name, row in zip(PARAMETERS, self.slopes, strict=True)]
        eta = self.spreads.mean_of(len(new["pool"])) + np.array([block @ self.weight for block in across])
        return eta, across, [cho_solve(self._factor, block.T) for block in across]

    def predict(self, readings: Sequence[Reading]) -> Predicted:
        """Parameters and their covariance of any readings of the dimension; of what was never seen, the prior's."""
        eta, across, solved = self._across(self._names.of(list(readings)))
        reduced = np.array([[np.einsum("ij,ji->i", first, second) for second in solved] for first in across])
        prior = np.zeros_like(reduced)
        prior[np.arange(3), np.arange(3)] = self.spreads.prior()[:, None]
        return Predicted(eta, prior - reduced)

    def jointly(self, readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Of readings together: their parameters (3, readings), the covariance of all with all (3, 3, readings, readings), and the solved prior covariance
        with the known readings, (known, readings) by parameter."""
        new = self._names.of(list(readings))
        eta, across, solved = self._across(new)
        covariance = -np.array([[first @ second for second in solved] for first in across])
        for i, name in enumerate(PARAMETERS):
            covariance[i, i] += shared(new, new, self.spreads.of(name))
        return eta, covariance, solved

    def parts(self, readings: Sequence[Reading]) -> dict[Part, np.ndarray]:
        """Variance of the amplitude that the method, the model and noise leave, (readings,) each."""
        new = self._names.of(list(readings))
        found: dict[Part, np.ndarray] = {}
        parts: tuple[Part, ...] = ("method", "model", "noise")
        for part in parts:
            spreads = {level: spread for level, spread in self.spreads.amplitude.items() if PART[level] == part}
            block = shared(new, self._levels, spreads) * self.slopes[0]
            held = np.einsum("ij,ji->i", block, cho_solve(self._factor, block.T))
            found[part] = np.maximum(sum(spread**2 for spread in spreads.values()) - held, 0.0)
        return found


def fit(readings: Sequence[Reading], spreads: Spreads) -> Pooled:
    """The posterior's mode. All readings are of one dimension and were measured."""
    seen = list(readings)
    levels = Names().of(seen)
    prior = [shared(levels, levels, spreads.of(name)) for name in PARAMETERS]
    mean, measured, scale = spreads.mean_of(len(seen)), _measured(seen), noise(seen, spreads)

    def at(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        eta = mean + np.array([block @ row for block, row in zip(prior, weights, strict=True)])
        kept = response.retained(seen, eta)
        tail = np.log1p(((measured - kept) / scale) ** 2 / DEGREES).sum() * (DEGREES + 1) / 2
        return tail + sum(row @ block @ row for block, row in zip(prior, weights, strict=True)) / 2, eta, kept

    weights = np.zeros_like(mean)
    value, eta, kept = at(weights)
    for _ in range(ROUNDS):
        model = _linearised(seen, spreads, prior, mean, eta, kept, measured, scale)
        step, better = 1.0, None
        for _ in range(HALVINGS):
            tried = weights + step * (model.slopes * model.weight - weights)
            result = at(tried)
            if result[0] < value:
                better = result
                break
            step /= 2
        if better is None:
            break
        fell, weights = value - better[0], tried
        value, eta, kept = better
        if fell < DONE:
            break
    return _linearised(seen, spreads, prior, mean, eta, kept, measured, scale)


def settled(
    own: Sequence[Reading], measured: np.ndarray, scale: np.ndarray, start: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Readings fitted against what is known of their parameters: the middle `start` (3, n) and `covariance` (3, 3, n, n).

    Returns the covariance of what was measured (n, n), its slopes (3, n), the variance of its noise and its weight, (n,) each.
    """
    eta = start
    for _ in range(ROUNDS):
        kept = response.retained(own, eta)
        rows = response.slopes(response.retained, own, eta)
        variance = _reweighted(measured - kept, scale)
        total = np.einsum("in,ijnm,jm->nm", rows, covariance, rows) + np.diag(variance)
        weight = cho_solve(cho_factor(total, lower=True), measured - kept + (rows * (eta - start)).sum(0))
        moved = start + np.einsum("ijnm,jm->in", covariance, rows * weight) - eta
        # half a step: the noise is reweighted in every round, and a whole one can swing between two weights
        eta = eta + np.clip(moved, -MOST_STEP, MOST_STEP) / 2
        if np.abs(moved).max(initial=0.0) < DONE:
            break
    return total, rows, variance, weight


def updated(model: Pooled, own: Sequence[Reading]) -> Pooled:
    """The model with more readings of its dimension: those already in it stay linearised where they are, the new ones are fitted against all that is known.

    Much faster than a fit of everything, and the same to first order: a few new readings move the old ones' curves little.
    """
    new = list(own)
    if not new:
        return model
    measured, scale = _measured(new), noise(new, model.spreads)
    start, left, solved = model.jointly(new)
    _, rows, variance, weight = settled(new, measured, scale, start, left)
    given_up = sum(row * block for row, block in zip(rows, solved, strict=True)) @ weight  # what the known readings no longer explain
    return Pooled(
        [*model.readings, *new],
        model.spreads,
        np.concatenate([model.slopes, rows], axis=1),
        np.concatenate([model.variance, variance]),
        np.concatenate([model.weight - given_up, weight]),
    )


def without(model: Pooled, mask: np.ndarray) -> Pooled:
    """The model as if the readings in `mask`, `(readings,)`, had never been made: the others stay linearised where they are.

    First order: curves and noise weights are those of a fit that saw the readings left out; without them, the others' curves move little. Many times faster
    than a fit of what is left.
    """
    kept = np.flatnonzero(~np.asarray(mask, bool))
    total = model.total()
    factor = cho_factor(total[np.ix_(kept, kept)], lower=True)
    target = (total @ model.weight)[kept]
    return Pooled([model.readings[i] for i in kept], model.spreads, model.slopes[:, kept], model.variance[kept], cho_solve(factor, target))


def _explained(slopes: np.ndarray, prior: Sequence[np.ndarray]) -> np.ndarray:
    """Covariance of what is retained that the parameters' own explains, (readings, readings)."""
    return sum((row[:, None] * block * row[None, :] for row, block in zip(slopes, prior, strict=True)), np.zeros(()))


def _reweighted(residual: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Variance of heavy-tailed noise where it left so much, (readings,)."""
    return scale**2 * (DEGREES + (residual / scale) ** 2) / (DEGREES + 1)


def noise(readings: Sequence[Reading], spreads: Spreads) -> np.ndarray:
    """Scale of the noise of each reading, in units of what is retained."""
    return np.array([spreads.noise[reading.noise] for reading in readings])


def _measured(readings: Sequence[Reading]) -> np.ndarray:
    return np.clip([np.nan if reading.retained is None else reading.retained for reading in readings], 0.0, MOST_RETAINED)


def _linearised(
    readings: list[Reading],
    spreads: Spreads,
    prior: Sequence[np.ndarray],
    mean: np.ndarray,
    eta: np.ndarray,
    kept: np.ndarray,
    measured: np.ndarray,
    scale: np.ndarray,
) -> Pooled:
    """The Gaussian model that agrees with the true one at `eta` in value, slope and the pull of each reading."""
    rows, variance = response.slopes(response.retained, readings, eta), _reweighted(measured - kept, scale)
    target = measured - kept + (rows * (eta - mean)).sum(0)
    factor = cho_factor(_explained(rows, prior) + np.diag(variance), lower=True)
    return Pooled(readings, spreads, rows, variance, cho_solve(factor, target))
