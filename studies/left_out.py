"""Rows predicted by profiles that were fitted without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from kvopt.calibration import fit as fitting
from kvopt.calibration.fit import Design
from kvopt.calibration.folds import folds
from kvopt.calibration.measurement import Measurement
from kvopt.calibration.publish import rows_for_fit
from objectives.serving.benchmark import Times
from studies.evidence import LATENCY, table

LONG = 16384  # tokens of prompt from which a row is said to be long


@dataclass(frozen=True)
class LeftOut:
    """Errors of all readings: ln(predicted / measured), `(readings,)`; `listed`: those of rows that the collection itself marks for fitting."""

    data: Design
    error: np.ndarray
    listed: np.ndarray

    @property
    def measurements(self) -> list[Measurement]:
        """The measurement of each reading."""
        return [self.data.measurements[case] for case in self.data.readings.case]

    def of(self, quantity: str) -> np.ndarray:
        """Which readings are of a column."""
        return self.data.readings.quantity == quantity

    @property
    def max_load(self) -> np.ndarray:
        """Which readings are of maximum load."""
        return self.data.readings.reading == Times._fields.index("max_load_tokens_per_s")

    @property
    def long(self) -> np.ndarray:
        """Which readings are of long prompts."""
        return np.array([one.new + one.cached >= LONG for one in self.measurements])

    @property
    def mixture(self) -> np.ndarray:
        """Which readings are of mixtures of experts."""
        return np.array([one.model.routed for one in self.measurements])


@cache
def fitted(path: Path = LATENCY) -> tuple[Design, fitting.Effects]:
    """The rows of the evidence and the fit of all of them."""
    measurements, _ = rows_for_fit(path)
    data = fitting.design(measurements)
    return data, fitting.fit(data)


@cache
def left_out(by: str, path: Path = LATENCY) -> LeftOut:
    """Errors with each row's fold left out of the fit; `by`: see `kvopt.calibration.folds`, or `nothing`."""
    data, effects = fitted(path)
    marked = {row.line for row in table(path).rows if row.text("use_for_fit") != "0"}
    listed = np.array([one.line in marked for one in data.measurements])[data.readings.case]
    seen = by == "nothing"
    error = np.asarray(fitting.errors(data, effects), float) if seen else fitting.left_out(data, effects, folds(data.measurements, by))
    return LeftOut(data, error, listed)


def summary(error: np.ndarray) -> dict[str, float]:
    """n, and the median and 90th percentile of the absolute error, and the median error, in percent; of ln(predicted / measured)."""
    percent = 100 * np.expm1(error)
    return {
        "n": len(error),
        "median %": float(np.median(np.abs(percent))),
        "90th pct %": float(np.percentile(np.abs(percent), 90)),
        "bias %": float(np.median(percent)),
    }


def rows_of(found: LeftOut, cases: Sequence[int]) -> dict[int, dict[str, float]]:
    """Predicted values by case and column [s], of the cases asked for."""
    wanted = set(cases)
    values: dict[int, dict[str, float]] = {case: {} for case in wanted}
    read = found.data.readings
    for case, quantity, log_value, error in zip(read.case, read.quantity, read.log_value, found.error, strict=True):
        if case in wanted:
            values[int(case)][str(quantity)] = float(np.exp(log_value + error))
    return values
