"""Which rows a fit leaves out together, so that what it says of them it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvopt.calibration.measurement import Measurement
from kvopt.inputs.hierarchy import group

RANDOM_FOLDS = 8
SETTINGS_FOLDS = 12  # groups of settings are left out a twelfth at a time, neighbours never together


def settings_group(one: Measurement) -> str:
    """What rows have in common that differ in their settings alone: tensor parallelism, batch, engine version."""
    family = one.engine.split("-")[0]
    return f"{one.model.id} {one.accelerator.id} {family} {one.weights} {one.cached:g}+{one.new:g}/{one.output:g}"


def folds(measurements: Sequence[Measurement], by: str) -> np.ndarray:
    """The fold of each row, `(rows,)`: `row` at random (seed 0), by `model`, by fitted `group`, or by `settings` group."""
    if by == "row":
        return np.random.default_rng(0).integers(RANDOM_FOLDS, size=len(measurements))
    keys = {
        "model": lambda one: one.model.id,
        "group": lambda one: group(one.accelerator.id, one.engine, one.weights),
        "settings": settings_group,
    }
    named = [keys[by](one) for one in measurements]
    number = {name: place for place, name in enumerate(sorted(set(named)))}
    found = np.array([number[name] for name in named])
    return found % SETTINGS_FOLDS if by == "settings" else found
