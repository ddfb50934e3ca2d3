"""Rows of accuracy under compression against what the pooled evidence says: `retained`, the score over the uncompressed model's.

Columns are those of `studies/evidence/accuracy.csv`; perplexities (`PPL:...`) are turned over, so that less is always worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from scipy.special import ndtri, stdtrit

from kvopt.accuracy import curves, labels, posterior, response
from kvopt.accuracy.pooled import DEGREES, Pooled, noise
from kvopt.accuracy.reading import Reading, read
from kvopt.inputs.method import Dimension
from kvopt.validation.outcome import Outcome, Prediction
from kvopt.validation.rows import Refusal, Row

ENDS = (0.05, 0.95)
NODES = 41  # quantiles of the spread of ln L, and of the noise, that are combined


def predict(rows: Sequence[Row], confidence: float, fitted: Mapping[str, Pooled] | None = None) -> list[Outcome]:
    """One outcome per row, in order. At a confidence above 0.5 the predicted value is what a plan would quote: at least so much is kept.

    `fitted`: models other than the catalog's, by dimension.
    """
    outcomes: dict[int, Outcome] = {}
    found: dict[Dimension, list[tuple[Row, Reading]]] = {}
    for row in rows:
        try:
            one = read(row)
        except Refusal as refusal:
            outcomes[row.line] = Outcome(row.line, refused=True, why=str(refusal), label=_label(row))
            continue
        found.setdefault(one.dimension, []).append((row, one))
    for dimension, known in found.items():
        model = fitted[dimension] if fitted else posterior.load(dimension)
        pairs = [(row, curves.in_a_known_harness(model, one)) for row, one in known]
        middle, quoted, lower, upper = retained(model, [one for _, one in pairs], confidence)
        for i, (row, one) in enumerate(pairs):
            value = middle[i] if confidence == 0.5 else quoted[i]
            prediction = Prediction("retained", one.retained, float(value), float(lower[i]), float(upper[i]))
            outcomes[row.line] = Outcome(row.line, one.task, (prediction,), notes=_notes(row, one, model), label=_label(row))
    return [outcomes[row.line] for row in rows]


def retained(model: Pooled, readings: Sequence[Reading], confidence: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What readings should have kept, `(readings,)` each: the middle, the value kept with the confidence, and the ends of the 90 % interval of a measurement.

    The spread is on ln L, so that it closes where nothing is lost; a measurement's own noise is added to it.
    """
    found = model.predict(readings)
    loss, spread = response.loss(readings, found.eta), np.sqrt(response.log_variance(readings, found.eta, found.covariance))
    lower, upper = interval(readings, loss, spread, noise(readings, model.spreads))
    return np.exp(-loss), np.exp(-loss * np.exp(NormalDist().inv_cdf(confidence) * spread)), lower, upper


def interval(readings: Sequence[Reading], loss: np.ndarray, spread: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 90 % interval of what is measured: exp(-L) with L lognormal, and heavy-tailed noise of that scale on top."""
    share = (np.arange(NODES) + 0.5) / NODES
    normal, tails = ndtri(share), stdtrit(DEGREES, share)
    kept = np.exp(-loss[:, None] * np.exp(spread[:, None] * normal))
    drawn = np.sort((kept[:, :, None] + scale[:, None, None] * tails).reshape(len(readings), -1), axis=1)
    low, high = (drawn[:, int(end * drawn.shape[1])] for end in ENDS)
    return np.maximum(low, 0.0), high


def _notes(row: Row, one: Reading, model: Pooled) -> tuple[str, ...]:
    """What the prediction rests on where that is little."""
    if labels.find(row.text("method"), one.dimension) is None:
        return (f"method {row.text('method')}: not in the catalog, no evidence: predicted as any {one.dimension} method",)
    if not any(reading.selection == one.selection for reading in model.readings):
        return (f"method {row.text('method')}: no evidence of its own: predicted as its kind ({one.kind})",)
    return ()


def _label(row: Row) -> str:
    return f"{row.text('method')}, {row.text('model')}, {row.text('benchmark')}"


def _points(predicted: float, measured: float) -> float:
    return 100 * (predicted - measured)


DEVIATIONS: Mapping[str, Callable[[float, float], float]] = {"retained": _points}
"""Errors are points of retained accuracy: 100 (predicted - measured)."""
