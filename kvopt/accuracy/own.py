"""A person's own measurements of accuracy: a CSV with the columns of `studies/evidence/accuracy.csv`, or the YAML that `calibrate --accuracy` writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kvopt.accuracy.reading import Reading, model_key, read
from kvopt.errors import BadInput
from kvopt.inputs import model_names
from kvopt.inputs.evidence import Frozen
from kvopt.inputs.sourced import checked, read_mapping
from kvopt.validation.rows import Refusal, Row, read_table

COLUMNS = ("method", "dimension", "model", "benchmark", "context_len", "kept_fraction", "bits", "score", "baseline", "query_aware", "source")
"""What a reading is stated by; a table may have more."""
NEEDED = ("method", "dimension", "benchmark", "score", "baseline")
WARNED = 5  # refused rows that are named one by one beside an answer


class OwnFile(Frozen):
    """The YAML file: rows as their table had them."""

    source: str
    note: str = ""
    readings: tuple[dict[str, str | float | bool | None], ...]


@dataclass(frozen=True)
class Own:
    """The readings of a file with the rows that they came from, and what was refused."""

    file: str
    source: str  # the table that the rows are of: their harness, where a row names none
    rows: tuple[Row, ...]
    readings: tuple[Reading, ...]  # one per row
    refused: tuple[tuple[int, str], ...]  # line (or place in a YAML file, from 1), and why

    def warnings(self, model: str) -> list[str]:
        """What a person should know who uses them for a model (catalog id)."""
        said = [f"accuracy_evidence: line {line} not used: {why}" for line, why in self.refused[:WARNED]]
        if len(self.refused) > WARNED:
            said.append(f"accuracy_evidence: and {len(self.refused) - WARNED} more rows not used")
        if not any(reading.model == model_key(model) for reading in self.readings):
            said.append(f"accuracy_evidence: none of its {len(self.readings)} readings is of {model}: they count as those of other models")
        return said


def read_own(file: str | Path, field: str, model: str | None = None) -> Own:
    """The readings of a file. `model`: of the rows that name none. Raises `BadInput` where it is no such file, or where nothing in it can be used."""
    path = Path(file)
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        written = checked(OwnFile, read_mapping(path, field), field, path.name)
        source, rows = written.source, [Row(place, _cells(row)) for place, row in enumerate(written.readings, start=1)]
    else:
        source, rows = path.name, _table(path, field)
    own = _of(str(file), source, rows, model)
    if not own.readings:
        why = f"nothing in it can be used; line {own.refused[0][0]}: {own.refused[0][1]}" if own.refused else "has a header and no rows"
        raise BadInput(field, path, why)
    return own


def _table(path: Path, field: str) -> list[Row]:
    try:
        return list(read_table(path, NEEDED).rows)
    except BadInput as error:
        raise BadInput(field, error.value, error.allowed) from None


def _of(file: str, source: str, rows: Iterable[Row], model: str | None) -> Own:
    used: list[Row] = []
    readings: list[Reading] = []
    refused: list[tuple[int, str]] = []
    for row in rows:
        filled = Row(row.line, {**row.cells, "model": row.text("model") or model or "", "source": row.text("source") or source})
        try:
            readings.append(_reading(filled))
        except Refusal as refusal:
            refused.append((row.line, str(refusal)))
        else:
            used.append(filled)
    return Own(file, source, tuple(used), tuple(readings), tuple(refused))


def _reading(row: Row) -> Reading:
    """A reading of what was measured, its model by the name that plans know it by. Raises `Refusal`."""
    if row.text("excluded"):
        raise Refusal(f"excluded: {row.text('excluded')}")
    one = read(row)
    for column in ("score", "baseline"):
        row.need(column)
    return replace(one, model=model_key(model_names.resolve(row.text("model")) or row.text("model")))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Cells as a table would have them; YAML reads a bare yes or no as a truth value."""
    return {
        name: "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else f"{value}".strip() for name, value in row.items()
    }
