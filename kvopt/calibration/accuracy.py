"""A person's own measured accuracies: what they change of the predictions, and the file by which plans are judged with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvopt.accuracy import curves, labels
from kvopt.accuracy.own import COLUMNS, Own, read_own
from kvopt.accuracy.reading import SCORED, Reading
from kvopt.calibration.outcome import Calibrated, Refused
from kvopt.errors import BadInput
from kvopt.inputs.evidence import TASKS
from kvopt.results import write_atomically
from kvopt.validation.accuracy import retained

TABLE = ("method", "task", "model", "n", "kept", "before", "measured", "after", "90 % of one run")
_NUMBERS = ("context_len", "kept_fraction", "bits", "score", "baseline")


@dataclass(frozen=True)
class Means:
    """Means over some readings of one method, task and model, in shares of the baseline."""

    readings: tuple[Reading, ...]
    measured: float
    before: tuple[float, float, float]  # predicted by the published evidence: middle, and the ends of the 90 % interval of one run
    after: tuple[float, float, float]  # with the readings

    @property
    def data(self) -> dict[str, Any]:
        """What --json prints."""
        first, kept = self.readings[0], [(one.key + one.value) / 2 for one in self.readings]
        ends = ("retained", "lower", "upper")
        return {
            "method": first.method,
            "dimension": first.dimension,
            "question": first.question if first.pool in SCORED else None,
            "task": first.task,
            "model": first.model,
            "readings": len(self.readings),
            "kept": [min(kept), max(kept)],
            "before": dict(zip(ends, self.before, strict=True)),
            "measured": self.measured,
            "after": dict(zip(ends, self.after, strict=True)),
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        first, (least, most) = self.readings[0], self.data["kept"]
        unit = " bits" if first.dimension == "bits" else ""
        kept = f"{least:g}{unit}" if least == most else f"{least:g} to {most:g}{unit}"
        figures = (f"{self.before[0]:.3f}", f"{self.measured:.3f}", f"{self.after[0]:.3f}", f"{self.after[1]:.3f} to {self.after[2]:.3f}")
        return (first.selection, first.task, first.model, str(len(self.readings)), kept, *figures)


def calibrated(file: str, model: str | None) -> tuple[Calibrated, Own]:
    """The published evidence with the file's rows. Raises `BadInput` where none of them can be used."""
    own = read_own(file, "accuracy", model)
    changed = changes(own.readings)
    refused = tuple(Refused(line, why) for line, why in own.refused)
    data = {"readings": len(own.readings), "changed": [one.data for one in changed]}
    return Calibrated("accuracy", own.source, None, TABLE, tuple(one.cells for one in changed), _notes(own), refused, data), own


def changes(own: Sequence[Reading]) -> list[Means]:
    """What the readings change, by method, question, task and model in the order of the tasks."""
    found: list[Means] = []
    for dimension in dict.fromkeys(one.dimension for one in own):
        mine = [one for one in own if one.dimension == dimension]
        before, after = (_predicted(mine, known) for known in ((), tuple(own)))
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, one in enumerate(mine):
            groups.setdefault((one.selection, one.task, one.model), []).append(place)
        for places in groups.values():
            measured = float(np.mean([mine[i].retained for i in places]))
            ends = [tuple(float(row[places].mean()) for row in rows) for rows in (before, after)]
            found.append(Means(tuple(mine[i] for i in places), measured, *ends))  # type: ignore[arg-type]
    return sorted(found, key=lambda one: (TASKS.index(one.readings[0].task), one.readings[0].dimension, one.readings[0].selection))


def _predicted(readings: Sequence[Reading], known: tuple[Reading, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    middle, _, lower, upper = retained(curves.fitted(readings[0].dimension, known), readings)
    return middle, lower, upper


def _notes(own: Own) -> tuple[str, ...]:
    """What a row cannot do."""
    said = []
    for row, one in zip(own.rows, own.readings, strict=True):
        if labels.find(row.text("method"), one.dimension) is None:
            said.append(f"{row.text('method')}: not a {one.dimension} method of the catalog: it informs its dimension, and no plan can use it")
        elif "?" in one.pool:
            said.append(f"{row.text('method')}: the catalog has no kind for it: no plan is judged by it")
    return tuple(dict.fromkeys(said))


def text_of(own: Own) -> str:
    """The file's text: the rows that were used, one a line, as they were written."""
    about = {
        "source": own.source,
        "note": f"{len(own.readings)} accuracies measured by oneself; they count beside the published ones: --accuracy-evidence FILE",
    }
    rows = [{name: _value(name, row.text(name)) for name in COLUMNS if row.text(name)} for row in own.rows]
    lines = [yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).strip() for row in rows]
    heading = f"# Written by kvopt calibrate --accuracy on {date.today()} from {own.source}.\n"
    return (
        heading
        + yaml.safe_dump(about, sort_keys=False, width=10_000, allow_unicode=True)
        + "readings:\n"
        + "".join(f"  - {line}\n" for line in lines)
    )


def _value(column: str, text: str) -> str | float:
    """Numbers as numbers; everything else as it was written."""
    if column not in _NUMBERS:
        return text
    number = float(text)
    return int(number) if number.is_integer() else number


def write(own: Own, path: Path) -> None:
    """Writes the file whole or not at all. Raises `BadInput` where it cannot be written."""
    try:
        write_atomically(path, text_of(own))
    except OSError as error:
        raise BadInput("out", path, f"cannot be written ({error.strerror or error.__class__.__name__})") from None
