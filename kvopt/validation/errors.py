"""How far predictions lie from measurements, over all rows and by group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from kvopt.validation.outcome import Outcome, Prediction

Deviation = Callable[[float, float], float]
"""How far a prediction lies from a measurement, in percent with its sign."""
Errors = dict[str, dict[str, float]]


def percent(predicted: float, measured: float) -> float:
    """100 (predicted - measured) / measured."""
    return 100 * (predicted - measured) / measured


def measured(outcomes: Iterable[Outcome]) -> dict[str, list[tuple[Outcome, Prediction, float]]]:
    """By quantity, every prediction that has something measured beside it."""
    found: dict[str, list[tuple[Outcome, Prediction, float]]] = defaultdict(list)
    for outcome in outcomes:
        for prediction in outcome.predictions:
            if prediction.measured is not None:
                found[prediction.quantity].append((outcome, prediction, prediction.measured))
    return dict(found)


def errors(outcomes: Iterable[Outcome], deviations: Mapping[str, Deviation] | None = None) -> Errors:
    """Per quantity: n, median and 90th percentile of the absolute error, the median error with its sign, the share of rows inside the 90 % interval and the
    share that is over-predicted, all in percent. `deviations` replaces the relative error of the quantities it names.
    """
    found = {}
    for quantity, rows in measured(outcomes).items():
        deviation = (deviations or {}).get(quantity, percent)
        signed = np.array([deviation(prediction.predicted, value) for _, prediction, value in rows])
        inside = np.array([prediction.lower <= value <= prediction.upper for _, prediction, value in rows])
        found[quantity] = {
            "n": len(rows),
            "median_abs_pct": float(np.median(np.abs(signed))),
            "p90_abs_pct": float(np.percentile(np.abs(signed), 90)),
            "rms_pct": float(np.sqrt(np.mean(signed**2))),
            "bias_pct": float(np.median(signed)),
            "interval_coverage": float(inside.mean()),
            "over_predicted_pct": float(100 * (signed > 0).mean()),
        }
    return found


def by_group(outcomes: Sequence[Outcome], deviations: Mapping[str, Deviation] | None = None) -> dict[str, Errors]:
    """The same for the rows of each group, largest group first."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if not outcome.refused:
            groups[outcome.group].append(outcome)
    return {name: errors(rows, deviations) for name, rows in sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))}
