"""What a fit leaves behind: predictions of rows whose source was left out, and the catalog's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import yaml

from kvopt.capacity import constants
from kvopt.capacity.fit import PRIORS, Observation, Values, generations, source_of
from kvopt.capacity.fit_spread import Residual, fit_spread, spread_values
from kvopt.results import write_atomically
from kvopt.validation.capacity import predict_row
from kvopt.validation.outcome import Outcome
from kvopt.validation.rows import Row

SPREAD_FIELDS = ("base_gib", "share_of_reserve", "share_of_weights", "low", "high")


def left_out_outcomes(rows: Sequence[Row], others: Mapping[str, tuple[Values, list[Residual]]], confidences: Sequence[float]) -> list[list[Outcome]]:
    """For each confidence every row, predicted with constants and spreads that its source had no part in; the catalog's where it gave nothing to fit."""
    tuned = {}
    for source, (values, _) in others.items():
        spreads = fit_spread([residual for name, (_, rest) in others.items() if name != source for residual in rest])
        full = {name: {**held, **{f"spread.{key}": value for key, value in spread_values(spreads, name).items()}} for name, held in values.items()}
        tuned[source] = generations(full)
    return [[predict_row(row, confidence, tuned.get(source_of(row))) for row in rows] for confidence in confidences]


def write_catalog(
    rows: Sequence[Observation], values: Values, deviations: Mapping[tuple[str, str], float], spreads: Mapping[str, dict[str, float]]
) -> None:
    """The fitted constants into `kvopt/catalog/capacity`, with their deviations and what they are from; everything else stays."""
    counts = {name: [row for row in rows if row.deployment.generation.id == name] for name in values}
    for name, held in values.items():
        path = Path(str(resources.files("kvopt.catalog") / "capacity" / f"{name}.yaml"))
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = f"{len(counts[name])} start-up logs of {len({row.source for row in counts[name]})} sources"
        for field, value in held.items():
            why = next(prior.why for prior in PRIORS if prior.field == field and name in prior.generations)
            data[field] = _constant(value, value * deviations[name, field], f"fitted to {own} and those of like versions, from: {why}", "derived")
        for field, value in spreads[name].items():
            data["spread"][field] = _constant(value, 0.3 * value, "pools of sources left out of the fit (kvopt.capacity.fit)", "derived")
        write_atomically(path, dump(data))
        constants.load.cache_clear()


def _constant(value: float, spread: float, source: str, tag: str) -> dict[str, object]:
    return {"value": float(f"{value:.3g}"), "spread": float(f"{spread:.2g}"), "source": source, "tag": tag}


def dump(data: Mapping[str, object]) -> str:
    """The text of a catalog file, one constant a line."""
    lines = []
    for name, value in data.items():
        if name == "spread" and isinstance(value, dict):
            lines += ["spread:", *(f"  {field}: {_flow(entry)}" for field, entry in value.items())]
        else:
            lines.append(f"{name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).replace("\n...\n", "").strip()
