"""Predictions of readings that a fit has not seen: whole series, or everything of a model, left out in turn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from kvopt.accuracy.pooled import Predicted, Spreads, fit
from kvopt.accuracy.reading import Reading

SERIES: Callable[[Reading], Hashable] = lambda reading: reading.series  # noqa: E731
MODEL: Callable[[Reading], Hashable] = lambda reading: reading.model  # noqa: E731


def folds(readings: Sequence[Reading], key: Callable[[Reading], Hashable], count: int, seed: int) -> np.ndarray:
    """Which of `count` parts each reading belongs to; readings of one key stay together."""
    names = sorted({key(reading) for reading in readings}, key=str)
    drawn = np.random.default_rng(seed).permutation(len(names)) % count
    part = dict(zip(names, drawn, strict=True))
    return np.array([part[key(reading)] for reading in readings])


def left_out(readings: Sequence[Reading], spreads: Spreads, key: Callable[[Reading], Hashable] = SERIES, count: int = 10, seed: int = 0) -> Predicted:
    """What a fit to the other parts says of every reading, in their order. All readings are of one dimension."""
    part = folds(readings, key, count, seed)
    eta, covariance = np.zeros((3, len(readings))), np.zeros((3, 3, len(readings)))
    for fold in np.unique(part):
        inside, outside = np.flatnonzero(part == fold), np.flatnonzero(part != fold)
        found = fit([readings[i] for i in outside.tolist()], spreads).predict([readings[i] for i in inside.tolist()])
        eta[:, inside], covariance[:, :, inside] = found.eta, found.covariance
    return Predicted(eta, covariance)
