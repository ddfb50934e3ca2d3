"""The study `method_regret`: what is lost by letting the pooled evidence pick the method, where it has not seen what it picks for.

A cell holds the methods that were measured on one model, benchmark, context and kind of question at like sizes. Every reading of that model on that benchmark
is left out; the pick is the method with the highest predicted accuracy at its own size; its measured accuracy is compared with that of the best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.accuracy.reading import Reading
from kvopt.plots import write_figure
from kvopt.search.pipeline import Progress
from studies.method_cells import FAMILIES, FEWEST, LIKE, Cell, LeftIn, Models, cells, loaded, predicted, size
from studies.method_regret_plot import figure
from studies.method_reveal import DRAWS, NAMED, RANDOM, Revealed, pools, revealed
from studies.result import StudyResult

QUESTION = (
    "What does the method that the evidence picks lose against the best measured one, its cell left out, and what do measurements save of that?"
)
BOUND = 2.0  # points: the median pick must keep as much as the best one less this
PICKERS = ("kvopt", "best on average elsewhere", "at random", "the best")
TOLD = {
    "kvopt, nothing measured": "before",
    f"kvopt, {NAMED} that next names": "named",
    f"kvopt, {RANDOM} random": "drawn",
    "kvopt, all measured": "everything",
}
"""Who picks, by what of `method_reveal.Revealed` it loses."""


@dataclass(frozen=True)
class Judged:
    """Regret in points of every picker in one cell, and how many of its methods have evidence elsewhere."""

    cell: Cell
    known: int
    regret: dict[str, float]


def run(out: Path | None = None, progress: Progress | None = None, fewest: int = FEWEST, measurements: bool = True) -> StudyResult:
    """One row per group of cells and picker, then the regret before and after measurements.

    `fewest`: methods of a cell; `measurements`: ask for those too. `out`: folder for the picture.
    """
    models = loaded()
    result = of(models, cells(models, fewest), measurements, progress)
    if out is not None:
        write_figure(figure(result.rows, PICKERS[:-1], list(TOLD)), out, "method_regret")
    return result


def of(models: Models, chosen: Sequence[Cell], measurements: bool, progress: Progress | None = None) -> StudyResult:
    """The study of some cells."""
    left_in = LeftIn(models)
    rows = []
    for label, whole_model in (("its benchmark", False), ("all of its model", True)):
        if progress is not None:
            progress(f"without {label}", 0.5 * whole_model)
        judged = [one for cell in chosen if (one := judge(left_in, cell, whole_model)) is not None]
        for family in ("all", *dict.fromkeys(FAMILIES.values())):
            mine = [one for one in judged if family in ("all", one.cell.family)]
            rows += [_row(label, family, picker, [one.regret[picker] for one in mine]) for picker in PICKERS if mine]
        if measurements:
            asked = [one.cell for one in judged]
            found = [revealed(pool, cell) for pool, cell in zip(pools(left_in, asked, whole_model), asked, strict=True)]
            rows += _after(label, "all", found) + _after(label, f"pools above {RANDOM}", [one for one in found if one.pool > RANDOM])
    ours = next((row for row in rows if row["who picks"] == "kvopt"), None)
    ok = ours is not None and ours["median"] <= BOUND
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=_notes(models, chosen), ok=ok)


def judge(left_in: LeftIn, cell: Cell, whole_model: bool = False) -> Judged | None:
    """The regret of every picker; none where fewer than two methods of the cell have evidence elsewhere, so that nothing is picked."""
    left = left_in.of(cell, whole_model)
    elsewhere = [one for model in left.values() for one in model.readings]
    known = np.array([any(one.selection == name for one in elsewhere) for name in cell.methods])
    if known.sum() < 2:
        return None
    ours = np.where(known, cell.by_method(predicted(left, cell.readings)), -np.inf)
    average = np.where(known, cell.by_method(np.array([_average(elsewhere, one) for one in cell.readings])), -np.inf)
    regret = {
        "kvopt": cell.regret(int(ours.argmax())),
        "best on average elsewhere": cell.regret(int(average.argmax())),
        "at random": float(np.mean([cell.regret(int(pick)) for pick in np.flatnonzero(known)])),
        "the best": 0.0,
    }
    return Judged(cell, int(known.sum()), regret)


def _average(elsewhere: Sequence[Reading], asked: Reading) -> float:
    """Mean of what a method kept elsewhere at like sizes, or at any where none is alike."""
    own = [one for one in elsewhere if one.selection == asked.selection]
    alike = [one for one in own if 1 / LIKE <= size(one) / size(asked) <= LIKE] or own
    return float(np.mean([one.retained for one in alike])) if alike else 0.0


def _row(left_out: str, family: str, picker: str, regrets: Sequence[float]) -> dict[str, Any]:
    values = np.array(regrets)
    return {
        "left out": left_out,
        "cells": family,
        "who picks": picker,
        "n": len(values),
        "median": float(np.median(values)),
        "75th pct": float(np.percentile(values, 75)),
        "90th pct": float(np.percentile(values, 90)),
        "mean": float(values.mean()),
    }


def _after(left_out: str, family: str, found: Sequence[Revealed]) -> list[dict[str, Any]]:
    kept = [dataclasses.asdict(one) for one in found]
    return [_row(left_out, family, name, [one[field] for one in kept]) for name, field in TOLD.items() if kept]


def _notes(models: Models, chosen: Sequence[Cell]) -> tuple[str, ...]:
    counts = {family: sum(cell.family == family for cell in chosen) for family in dict.fromkeys(FAMILIES[dimension] for dimension in models)}
    return (
        "regret: points of retained accuracy that the pick was measured to keep less than the best method of its cell",
        f"{len(chosen)} cells ({', '.join(f'{name}: {count}' for name, count in counts.items())}); sizes within a factor of {LIKE:g} are alike",
        "left out, its benchmark: every reading of the cell's model on its benchmark; all of its model: every reading of its model",
        "cells with fewer than two methods of which anything is left are not judged; a method is picked once it has evidence, elsewhere or measured",
        "left-out readings are taken out of the linearised model, to first order; the others' noise weights and slopes stay",
        f"measured: five that next names one after the other against ten random ones (mean of {DRAWS} draws), both from the readings that were left out",
        f"pools above {RANDOM}: cells with more than {RANDOM} readings left out; in smaller pools ten random ones are all there is",
    )
