"""Fits all profiles to a file of measurements and writes what the catalog holds of them.

python -m kvopt.calibration.publish latency_points.csv kvopt/catalog/profiles/fitted.yaml
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvopt.calibration import fit as fitting
from kvopt.calibration.fit import Design, Effects
from kvopt.calibration.folds import folds
from kvopt.calibration.measurement import Measurement, read
from kvopt.errors import BadInput
from kvopt.inputs.hierarchy import FACTORS, PARAMETERS, group, is_eager
from kvopt.results import write_atomically
from kvopt.validation.rows import read_table

ENDS = (5.0, 95.0)
TOLD = 0.98  # an effect whose spread the rows have narrowed to less than this share of the prior's is worth writing down
FEWEST = 40  # left-out readings below which a quantity's spread is that of all quantities
LEFT_OUT = {"model": ("row", "settings"), "group": ("model",), "none": ("group",)}
"""What is left out of the fit to see how far kvopt errs with so much evidence (`kvopt.calibration.folds`)."""

Pairs = dict[str, dict[str, tuple[float, float]]]


def rows_for_fit(path: Path) -> tuple[list[Measurement], list[str]]:
    """The measurements of a file that are marked for fitting (column `fitted`), with the source of each. What cannot be read is left out."""
    found, sources = [], []
    for row in read_table(path).rows:
        if row.cells.get("fitted", "1") != "1":
            continue
        try:
            one = read(row.cells, row.line)
        except BadInput:
            continue
        if one.experiment != "transfer":
            found.append(one)
            sources.append(row.cells.get("source", path.name))
    return found, sources


def spread(data: Design, effects: Effects) -> Pairs:
    """Quantiles of ln(measured / predicted) of left-out rows, by quantity and evidence.

    Evidence `model`: other rows of the same group and (dense) model were fitted, of other settings or the same; `group`: rows of the group with other models,
    or a mixture of experts; `none`: no row of the group.
    """
    errors = {name: [-fitting.left_out(data, effects, folds(data.measurements, by)) for by in ways] for name, ways in LEFT_OUT.items()}
    models: dict[str, set[str]] = collections.defaultdict(set)
    names = [group(one.accelerator.id, one.engine, one.weights) for one in data.measurements]
    for name, one in zip(names, data.measurements, strict=True):
        models[name].add(one.model.id)
    several = np.array([len(models[name]) > 1 for name in names])[data.readings.case]
    graphs = np.array([not is_eager(one.engine) for one in data.measurements])[data.readings.case]  # launching one by one varies far more
    dense = np.array([not one.model.routed for one in data.measurements])[data.readings.case]  # mixtures get the wider spread
    counted = {"model": graphs & dense, "group": several & graphs, "none": np.ones_like(several)}
    found: Pairs = {}
    for quantity in sorted(set(data.readings.quantity.tolist())):
        found[quantity], low, high = {}, np.inf, -np.inf
        for evidence, found_errors in errors.items():
            of_this = counted[evidence] & (data.readings.quantity == quantity)
            chosen = of_this if of_this.sum() >= FEWEST else counted[evidence]
            ends = np.percentile(np.concatenate([error[chosen] for error in found_errors]), ENDS)
            low, high = min(low, ends[0]), max(high, ends[1])  # less evidence is never a narrower spread
            found[quantity][evidence] = (float(low), float(high))
    return found


def fitted(data: Design, sources: Sequence[str], about: str) -> dict[str, Any]:
    """The content of the catalog's file, see `kvopt.inputs.profile.Fitted`."""
    effects = fitting.fit(data)
    covariance = fitting.covariance(data, effects)
    width = len(covariance) // len(PARAMETERS)
    start, told, group_sd = {}, _nested(), _nested()
    names = [group(one.accelerator.id, one.engine, one.weights) for one in data.measurements]
    for number, (parameter, prior) in enumerate(PARAMETERS.items()):
        block = covariance[number * width : (number + 1) * width, number * width : (number + 1) * width]
        deviation = np.sqrt(np.diag(block))
        start[parameter] = round(float(np.log(prior.start) + prior.start_spread * effects["start"][number]), 4)
        place = 1
        for factor, scale in zip(FACTORS, prior.spread, strict=True):
            for level, value in zip(data.names[factor], np.asarray(effects[factor][number]), strict=True):
                if scale and deviation[place] < TOLD:
                    told[factor][level][parameter] = [round(float(scale * value), 4), round(float(scale * deviation[place]), 4)]
                place += 1
        design = fitting.one_hot(data, number)
        for name in sorted(set(names)):
            row = design[names.index(name)]
            group_sd[name][parameter] = round(float(np.sqrt(row @ block @ row)), 4)
    spreads = spread(data, effects)
    members = {name: [place for place, other in enumerate(names) if other == name] for name in sorted(set(names))}
    groups = {
        name: {
            "rows": len(places),
            "models": sorted({data.measurements[place].model.id for place in places}),
            "sources": sorted({sources[place] for place in places}),
        }
        for name, places in members.items()
    }
    rounded = {quantity: {name: [round(end, 4) for end in ends] for name, ends in pairs.items()} for quantity, pairs in spreads.items()}
    return {"source": about, "start": start, "effects": told, "groups": groups, "group_sd": group_sd, "spread": rounded}


def _nested() -> Any:
    return collections.defaultdict(lambda: collections.defaultdict(dict))


def text(content: Mapping[str, Any]) -> str:
    """The file: one line a level or group."""
    lines = [
        "# Written by `python -m kvopt.calibration.publish`: do not edit by hand. Units and meaning: kvopt/inputs/hierarchy.py, kvopt/inputs/profile.py."
    ]
    lines.append(f"source: {_line(content['source'])}")
    lines.append(f"start: {_line(content['start'])}")
    lines.append("effects:")
    for factor, by_level in content["effects"].items():
        lines += [f"  {factor}:", *(f"    {_line(level)}: {_line(dict(values))}" for level, values in by_level.items())]
    for name in ("groups", "group_sd", "spread"):
        lines += [f"{name}:", *(f"  {_line(key)}: {_line(dict(value))}" for key, value in content[name].items())]
    return "\n".join(lines) + "\n"


def _line(value: Any) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()


def main(words: Sequence[str]) -> None:
    """Fits the file named first and writes the one named second."""
    source, target = Path(words[0]), Path(words[1])
    measurements, sources = rows_for_fit(source)
    data = fitting.design(measurements)
    about = f"{len(data.readings.case)} readings of {len(measurements)} rows of {source.name}, all published by others; each group names its own"
    write_atomically(target, text(fitted(data, sources, about)))


if __name__ == "__main__":
    main(sys.argv[1:])
