"""Measurements as an accelerator file: the rows of one accelerator, engine and weight format, and the efficiencies that fit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from kvopt.calibration.cases import READ
from kvopt.calibration.measurement import Measurement, read
from kvopt.calibration.outcome import Calibrated, Refused
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import AcceleratorSpec, read_accelerator
from kvopt.inputs.efficiency import EfficiencySpec
from kvopt.inputs.hierarchy import WEIGHT_CLASSES, group

COLUMNS = {"accelerator": "gpu", "model": "model", "tp": "tp", "engine": "engine"}
"""Options of the command line, and the columns that they fill where a row leaves them out."""
NOTHING = "Nothing written: the rows tell no figure better than the catalog does."


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """What the command line says, by column."""
    return {column: str(options[name]) for name, column in COLUMNS.items() if options.get(name)}


def calibrated(kind: str, source: str, rows: Iterable[tuple[int, Mapping[str, str] | BadInput]], options: Mapping[str, str | None]) -> Calibrated:
    """The accelerator that the rows fit; rows that cannot be used, or belong to another group, are refused by line. Raises `BadInput` where none is left."""
    asked = read_accelerator(str(options["accelerator"])) if options.get("accelerator") else None
    usable: list[Measurement] = []
    refused: list[Refused] = []
    for line, row in rows:
        try:
            usable.append(_measurement(line, row, given(options), asked))
        except BadInput as error:
            refused.append(Refused(line, str(error)))
    if not usable:
        raise BadInput("file", source, f"no usable row of {len(refused)}" + (f"; row {refused[0].row}: {refused[0].why}" if refused else ""))
    chosen = Counter(map(_group, usable)).most_common(1)[0][0]
    used = [row for row in usable if _group(row) == chosen]
    other = "is of another group, {}; the largest is {}: calibrate each by itself"
    refused += [Refused(row.line, other.format(_group(row), chosen)) for row in usable if _group(row) != chosen]
    values = _fitted(used)
    spec = asked or used[0].accelerator
    return Calibrated(
        kind=kind,
        source=source,
        spec=spec.model_copy(update={"efficiency": _efficiency(spec, values, used, source)}) if values else None,
        columns=("what", "fitted", "log standard deviation", "meaning"),
        rows=tuple(
            (name, f"{value:.4g}", f"{log_sd:.2g}", EfficiencySpec.model_fields[name].description or "") for name, (value, log_sd) in values.items()
        ),
        notes=(f"Fitted to {len(used)} of {len(used) + len(refused)} rows: {chosen}.", *(() if values else (NOTHING,))),
        refused=tuple(sorted(refused, key=lambda row: row.row)),
        data={
            "group": chosen,
            "used": [row.line for row in used],
            "fitted": {name: {"value": value, "log_sd": log_sd} for name, (value, log_sd) in values.items()},
        },
    )


def _measurement(line: int, row: Mapping[str, str] | BadInput, filled: Mapping[str, str], asked: AcceleratorSpec | None) -> Measurement:
    """The row with the command line's values where it has none; of the accelerator that is asked for. Raises `BadInput`."""
    if isinstance(row, BadInput):
        raise row
    cells = {**row, **{column: value for column, value in filled.items() if not row.get(column, "").strip()}}
    if "tp" in filled and not row.get("num_gpus", "").strip():
        cells["num_gpus"] = filled["tp"]
    found = read(cells, line)
    if not any((found.experiment, name) in READ for name in found.measured):
        raise BadInput("row", line, f"{', '.join(found.measured)} of {found.experiment} is not fitted")
    if asked and found.accelerator.id != asked.id:
        raise BadInput("gpu", cells["gpu"], f"is {found.accelerator.id}, not the {asked.id} that --accelerator names")
    return found


def _group(row: Measurement) -> str:
    """What one set of efficiencies holds for: accelerator, engine generation and class of weights."""
    return group(row.accelerator.id, row.engine, row.weights)


def _fitted(rows: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """(Value, log standard deviation) by field of `EfficiencySpec`."""
    from kvopt.calibration.refit import refit

    return refit(rows)


def _efficiency(spec: AcceleratorSpec, values: Mapping[str, tuple[float, float]], rows: Sequence[Measurement], source: str) -> EfficiencySpec:
    """The values with their source, in place of those that the accelerator's file held."""
    where = f"fitted to {len(rows)} row{'s' if len(rows) > 1 else ''} of {source} ({date.today()})"
    new = {
        name: {"value": float(f"{value:.4g}"), "source": f"{where}; log standard deviation {log_sd:.2g}", "tag": "measured"}
        for name, (value, log_sd) in values.items()
    }
    engine, weights = rows[0].engine, WEIGHT_CLASSES.get(rows[0].weights, rows[0].weights)
    before = spec.efficiency
    old = before.model_dump(exclude_none=True) if before and (before.engine, before.weights) == (engine, weights) else {}
    return EfficiencySpec.model_validate({**old, "engine": engine, "weights": weights, **new})
