"""What became of one row: its predictions beside what was measured, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """One quantity of one row, in the unit of its column. `lower` and `upper` are the two-sided 90 % interval; None where it was not measured."""

    quantity: str
    measured: float | None
    predicted: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Outcome:
    """One row of the file: predicted, or refused with the reason."""

    line: int
    group: str = "all"
    predictions: tuple[Prediction, ...] = ()
    refused: bool = False
    why: str = ""  # why it was refused, or what a reader should know of a row that lies far off
    notes: tuple[str, ...] = ()
    label: str = ""  # what a person would call the row
