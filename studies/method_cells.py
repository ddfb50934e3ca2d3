"""Cells of the accuracy evidence: methods that were measured on one model and benchmark at like sizes, so that picking one of them can be judged."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kvopt.accuracy import posterior, response
from kvopt.accuracy.pooled import Pooled, without
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import Reading
from kvopt.inputs.method import Dimension

LIKE = 1.2  # sizes within this factor of the smallest one of a cell are alike
FEWEST = 4  # methods of a cell
FAMILIES: Mapping[Dimension, str] = {"token": "tokens and heads", "head": "tokens and heads", "layer": "layers", "rank": "rank", "bits": "bits"}
"""Dimensions whose shares mean the same bytes are compared with each other."""
Models = Mapping[Dimension, Pooled]


@dataclass(frozen=True)
class Cell:
    """Readings of four or more methods on one model, benchmark, context and kind of question, at sizes that are alike."""

    family: str
    readings: tuple[Reading, ...]

    @property
    def model(self) -> str:
        """What was compressed."""
        return self.readings[0].model

    @property
    def benchmark(self) -> str:
        """What it was measured on."""
        return self.readings[0].benchmark

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods, sorted."""
        return tuple(sorted({reading.selection for reading in self.readings}))

    @cached_property
    def measured(self) -> np.ndarray:
        """What each method kept, `(methods,)`."""
        return self.by_method(np.array([reading.retained for reading in self.readings], float))

    def by_method(self, values: np.ndarray) -> np.ndarray:
        """The mean of values of the readings, `(readings,)`, over those of each method, `(methods,)`."""
        names = np.array([reading.selection for reading in self.readings])
        return np.array([values[names == name].mean() for name in self.methods])

    def regret(self, pick: int) -> float:
        """What a pick keeps less than the best, in points."""
        return float(100 * (self.measured.max() - self.measured[pick]))


def loaded(dimensions: Sequence[Dimension] = FITTED) -> dict[Dimension, Pooled]:
    """The catalog's fitted models."""
    return {dimension: posterior.load(dimension) for dimension in dimensions}


def cells(models: Models, fewest: int = FEWEST) -> list[Cell]:
    """All cells with so many methods, in the order of their names."""
    groups: dict[tuple[str, str, str, float, str], list[Reading]] = collections.defaultdict(list)
    for dimension, model in models.items():
        for reading in model.readings:
            groups[FAMILIES[dimension], reading.model, reading.benchmark, reading.context, reading.question].append(reading)
    made = [Cell(name[0], tuple(alike)) for name, members in sorted(groups.items()) for alike in bins(members)]
    return [cell for cell in made if len(cell.methods) >= fewest]


def bins(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Readings of like sizes together, from the smallest size on."""
    made: list[list[Reading]] = []
    for reading in sorted(readings, key=size):
        if made and size(reading) <= LIKE * size(made[-1][0]) + 1e-9:
            made[-1].append(reading)
        else:
            made.append([reading])
    return made


def size(reading: Reading) -> float:
    """Share kept, or mean bits of K and V."""
    return (reading.key + reading.value) / 2


class LeftIn:
    """The models without what a cell must not know, each made once."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._made: dict[tuple[str, str, str], dict[Dimension, Pooled]] = {}

    def of(self, cell: Cell, whole_model: bool = False) -> dict[Dimension, Pooled]:
        """The models of the cell's dimensions without any reading of its model on its benchmark, or of its model at all."""
        key = (cell.family, cell.model, "" if whole_model else cell.benchmark)
        if key not in self._made:
            mine = {dimension: model for dimension, model in self.models.items() if FAMILIES[dimension] == cell.family}
            out = {name: np.array([hidden(one, cell, whole_model) for one in model.readings]) for name, model in mine.items()}
            self._made[key] = {name: without(model, out[name]) for name, model in mine.items()}
        return self._made[key]


def hidden(reading: Reading, cell: Cell, whole_model: bool = False) -> bool:
    """Whether a reading is left out where a cell is judged."""
    return reading.model == cell.model and (whole_model or reading.benchmark == cell.benchmark)


def predicted(models: Models, readings: Sequence[Reading]) -> np.ndarray:
    """What readings of any dimensions should have kept, in the middle, `(readings,)`."""
    found = np.zeros(len(readings))
    for dimension, model in models.items():
        places = [i for i, reading in enumerate(readings) if reading.dimension == dimension]
        if places:
            mine = [readings[i] for i in places]
            found[places] = np.exp(-response.loss(mine, model.predict(mine).eta))
    return found
