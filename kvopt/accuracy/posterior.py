"""The fitted evidence as the catalog holds it: every reading with its place in the linearised model, and the spreads between them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvopt import catalog
from kvopt.accuracy.pooled import Pooled, Spreads
from kvopt.accuracy.reading import Reading
from kvopt.inputs.method import Dimension
from kvopt.inputs.sourced import checked
from kvopt.results import write_atomically

FOLDER = Path(str(resources.files(catalog) / "accuracy"))
_FIELDS = tuple(field.name for field in fields(Reading))
_FITTED = ("slope_amplitude", "slope_slope", "slope_midpoint", "variance", "weight")
_NUMBERS = ("context", "key", "value")


@cache
def load(dimension: Dimension) -> Pooled:
    """The catalog's fitted model of one dimension; one without readings (sparse prefill) has none of anything."""
    return read(FOLDER)[dimension]


@cache
def read(folder: Path) -> Mapping[str, Pooled]:
    """The fitted models in a folder that `write` wrote, by dimension."""
    spreads = catalog.read_yaml(folder / "spreads.yaml", "spreads")["spreads"]
    rows: dict[str, list[dict[str, str]]] = {dimension: [] for dimension in spreads}
    with (folder / "posterior.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["dimension"]].append(row)
    return {
        dimension: Pooled(
            [_reading(row) for row in found],
            checked(Spreads, spreads[dimension], "spreads", f"the fitted spreads of {dimension} methods"),
            np.array([[float(row[name]) for row in found] for name in _FITTED[:3]]).reshape(3, len(found)),
            np.array([float(row["variance"]) for row in found]),
            np.array([float(row["weight"]) for row in found]),
        )
        for dimension, found in rows.items()
    }


def write(folder: Path, models: Mapping[str, Pooled], about: Mapping[str, Any]) -> None:
    """Writes the fitted models; `about` says what they were fitted to and how well they predict what was left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_FIELDS, *_FITTED])
    for model in models.values():
        for reading, slope, variance, weight in zip(model.readings, model.slopes.T, model.variance, model.weight, strict=True):
            numbers = [f"{value:.9g}" for value in (*slope, variance, weight)]
            writer.writerow([*(_text(value) for value in asdict(reading).values()), *numbers])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "posterior.csv", out.getvalue())
    spreads = {dimension: _rounded(model.spreads.model_dump()) for dimension, model in models.items()}
    write_atomically(folder / "spreads.yaml", yaml.safe_dump({**about, "spreads": spreads}, sort_keys=False, width=150, allow_unicode=True))


def _reading(row: Mapping[str, str]) -> Reading:
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    values |= {name: float(row[name]) for name in _NUMBERS}
    return Reading(**values | {"average": row["average"] == "1", "retained": float(row["retained"])})


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return round(value, 6)
