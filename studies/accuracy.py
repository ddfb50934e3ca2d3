"""The study `accuracy`: how far the pooled evidence is from measured accuracies that it was not fitted to.

Whole series (a method on a model and benchmark), or everything of a model, are left out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.accuracy import posterior, response
from kvopt.accuracy.left_out import MODEL, SERIES, left_out
from kvopt.accuracy.pooled import Pooled, noise
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import Reading
from kvopt.errors import BadInput
from kvopt.inputs.evidence import TASKS
from kvopt.inputs.method import Dimension
from kvopt.plots import write_figure
from kvopt.search.pipeline import Progress
from kvopt.validation.accuracy import interval
from studies.accuracy_plot import Drawn, figure
from studies.result import StudyResult

QUESTION = "How far is the predicted accuracy from measured accuracies that it was not fitted to?"
LEFT_OUT: Mapping[str, Callable[[Reading], Hashable]] = {"series": SERIES, "model": MODEL}
FOLDS, TOKEN_FOLDS = 10, 3  # parts left out in turn: few of tokens, whose fit takes longest by far; settings/accuracy-full.yaml has ten
NEEDLES = ("needle", "multi-needle")
TOKEN_REFERENCE = {"all": 0.165, "without needles": 0.115, "LongBench averages": 0.071, "RULER averages": 0.116}
"""RMSE of one curve per token method, shared by all models, fitted to all of its rows: nothing left out."""


@dataclass(frozen=True)
class Found:
    """Left-out readings with what was predicted of them, `(readings,)` each."""

    readings: tuple[Reading, ...]
    predicted: np.ndarray
    low: np.ndarray  # of the 90 % interval of a measurement
    high: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """What was retained."""
        return np.array([reading.retained for reading in self.readings], float)

    @property
    def drawn(self) -> Drawn:
        """What a picture needs."""
        return Drawn(np.array([reading.dimension for reading in self.readings]), self.measured, self.predicted)

    def where(self, holds: Callable[[Reading], bool]) -> np.ndarray:
        """Which readings something holds of."""
        return np.array([holds(reading) for reading in self.readings], bool)


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    folds: int = FOLDS,
    token_folds: int = TOKEN_FOLDS,
    by: str = ",".join(LEFT_OUT),
    dimensions: str = ",".join(FITTED),
) -> StudyResult:
    """One row per group of readings and way of leaving out.

    `folds`: parts left out in turn, and of the dimension token `token_folds`; `by`: series, model; `dimensions`: some of those fitted. `out`: folder for the
    picture. Raises `BadInput`.
    """
    ways, chosen = _listed("by", by, LEFT_OUT), _listed("dimensions", dimensions, FITTED)
    for name, count in (("folds", folds), ("token_folds", token_folds)):
        if count < 2:
            raise BadInput(name, count, "must be 2 or more")
    models = {dimension: posterior.load(dimension) for dimension in FITTED if dimension in chosen}
    found = {}
    for place, way in enumerate(ways):
        part = None if progress is None else _part(progress, way, place / len(ways), 1 / len(ways))
        found[way] = predictions(models, LEFT_OUT[way], folds, part, {"token": token_folds})
    rows = [row for way, one in found.items() for row in _rows(way, one)]
    if out is not None:
        write_figure(figure({way: one.drawn for way, one in found.items()}), out, "accuracy")
    notes = (
        f"left out in {folds} parts, of tokens in {token_folds}: series: a method on a model and a benchmark, at all its sizes; model: everything of a model, "
        "on every benchmark",
        "RMSE, bias: points of retained accuracy, predicted less measured; measured above 115 % counts as 115 %, as in the fit",
        "in interval: share of the readings inside the 90 % interval of a measurement; the spreads were estimated with the readings in",
        "shared token model: RMSE of one curve per token method, the same for all models, fitted to all its rows with nothing left out",
        "careful quantisers: bits methods that rotate, group or calibrate, at 4 bits and more",
    )
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=notes)


def _part(progress: Progress, way: str, start: float, share: float) -> Progress:
    """The progress of one way of leaving out, as a share of the whole."""
    return lambda phase, done: progress(f"left out: {way}, {phase}", start + share * done)


def predictions(
    models: Mapping[Dimension, Pooled],
    key: Callable[[Reading], Hashable],
    folds: int,
    progress: Progress | None = None,
    own: Mapping[str, int] | None = None,
) -> Found:
    """Every reading of the models as a fit to the other parts predicts it; `folds` parts, or as many as `own` says of a dimension."""
    parts = []
    for place, (dimension, model) in enumerate(models.items()):
        if progress is not None:
            progress(dimension, place / len(models))
        mine = model.readings
        said = left_out(mine, model.spreads, key, (own or {}).get(dimension, folds))
        loss = response.loss(mine, said.eta)
        ends = interval(mine, loss, np.sqrt(response.log_variance(mine, said.eta, said.covariance)), noise(mine, model.spreads))
        parts.append((np.exp(-loss), *ends))
    readings = tuple(reading for model in models.values() for reading in model.readings)
    return Found(readings, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def slices(found: Found) -> dict[str, np.ndarray]:
    """Readings that are reported together."""
    needle, token = found.where(lambda one: one.task in NEEDLES), found.where(lambda one: one.dimension == "token")
    named = {
        "all": np.ones(len(found.readings), bool),
        "without needles": ~needle,
        "LongBench averages": found.where(lambda one: one.average and one.suite == "longbench"),
        "RULER averages": found.where(lambda one: one.average and one.suite == "ruler"),
    }
    careful = found.where(lambda one: one.pool == "careful" and min(one.key, one.value) >= 4)
    return {
        **named,
        "careful quantisers, 4 bits and more": careful,
        **{f"tokens: {name}": token & chosen for name, chosen in named.items()},
        **{f"dimension {dimension}": found.where(lambda one, d=dimension: one.dimension == d) for dimension in FITTED},  # type: ignore[misc]
        **{f"task {task}": found.where(lambda one, t=task: one.task == t) for task in TASKS},  # type: ignore[misc]
    }


def _rows(way: str, found: Found) -> list[dict[str, Any]]:
    return [_row(way, name, found, chosen) for name, chosen in slices(found).items() if chosen.any()]


def _row(way: str, name: str, found: Found, chosen: np.ndarray) -> dict[str, Any]:
    measured = np.minimum(found.measured, 1.15)[chosen]
    error = 100 * (found.predicted[chosen] - measured)
    inside = (found.low[chosen] <= measured) & (measured <= found.high[chosen])
    reference = TOKEN_REFERENCE.get(name.removeprefix("tokens: ")) if name.startswith("tokens: ") else None
    return {
        "left out": way,
        "readings": name,
        "n": int(chosen.sum()),
        "RMSE": float(np.sqrt(np.mean(error**2))),
        "median error": float(np.median(np.abs(error))),
        "bias": float(error.mean()),
        "in interval %": float(100 * inside.mean()),
        "shared token model": None if reference is None else 100 * reference,
    }


def _listed(option: str, text: str, allowed: Sequence[str] | Mapping[str, Any]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in allowed:
            raise BadInput(option, name, f"must be some of {', '.join(allowed)}")
    return names
