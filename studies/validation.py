"""The study `validation`: how far kvopt is from what others measured, as the README publishes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.calibration.measurement import Measurement
from kvopt.errors import unknown
from kvopt.inputs import profile
from kvopt.inputs.hierarchy import group
from kvopt.plots import write_figure
from kvopt.search.pipeline import Progress
from studies.evidence import LATENCY
from studies.left_out import LeftOut, left_out, summary
from studies.result import StudyResult
from studies.validation_plot import figure

QUESTION = "How far is kvopt from measurements that it was not fitted to?"
QUANTITIES = {"prefill_s": "prefill", "e2e_s": "end to end", "tpot_ms": "decode, TPOT", "ttft_s": "TTFT"}
MODES = {"fitted": "nothing", "row left out": "row", "settings left out": "settings", "model left out": "model"}


def run(out: Path | None = None, progress: Progress | None = None, modes: str = ",".join(MODES), path: Path = LATENCY) -> StudyResult:
    """One row per kind of reading and way of leaving rows out, of the measurements of `path`.

    `modes`: some of fitted, row left out, settings left out, model left out; comma between. `out`: folder for the picture. Raises `BadInput`.
    """
    rows: list[dict[str, Any]] = []
    errors: dict[str, dict[str, np.ndarray]] = {}
    asked = [name.strip() for name in modes.split(",")]
    for mode in asked:
        if mode not in MODES:
            raise unknown("modes", mode, MODES)
    for place, mode in enumerate(asked):
        if progress is not None:
            progress(mode, place / len(asked))
        found = left_out(MODES[mode], path)
        for name, chosen in slices(found).items():
            if chosen.any():
                rows.append({"rows": mode, "readings": name, **_numbers(found, chosen, mode)})
                errors.setdefault(name, {})[mode] = found.error[chosen]
    if out is not None:
        write_figure(figure(errors), out, "validation")
    notes = (
        "all: prefill, end to end, decode, TPOT and TTFT together; maximum load, where memory sets the batch, apart",
        "row left out: other rows of the same model on the same accelerator and engine were fitted; model left out: none of that model anywhere",
        "in interval: share of the readings inside the 90 % interval that kvopt prints for such a case",
        "readings: published by others, studies/evidence/latency.csv; each row names its source",
    )
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=notes)


def slices(found: LeftOut) -> Mapping[str, np.ndarray]:
    """Readings that are reported together."""
    load, mixture, listed = found.max_load, found.mixture, found.listed
    hopper = np.array([one.accelerator.arch == "Hopper" for one in found.measurements])
    fp4 = np.array([one.weights == "nvfp4" for one in found.measurements])
    return {
        "all": listed & ~load,
        **{label: listed & found.of(quantity) & ~load for quantity, label in QUANTITIES.items()},
        "prompts of 16K and more": listed & found.long & ~load,
        "mixtures of experts": listed & mixture & ~load,
        "maximum load, Hopper, dense": load & hopper & ~mixture,
        "maximum load, Blackwell FP4, dense": load & fp4 & ~mixture,
        "maximum load, mixtures of experts": load & mixture,
        "serving sweeps of mixtures, TPOT": ~listed & found.of("tpot_ms"),
        "serving sweeps of mixtures, TTFT": ~listed & found.of("ttft_s"),
    }


def _numbers(found: LeftOut, chosen: np.ndarray, mode: str) -> dict[str, Any]:
    numbers = summary(found.error[chosen])
    chosen_rows = zip(found.error[chosen], found.data.readings.quantity[chosen], np.array(found.measurements)[chosen], strict=True)
    inside = [low <= -error <= high for error, quantity, one in chosen_rows for low, high in [_interval(one, str(quantity), mode)]]
    return {**numbers, "n": int(numbers["n"]), "in interval %": 100 * float(np.mean(inside))}


def _interval(one: Measurement, quantity: str, mode: str) -> profile.Pair:
    """The 90 % interval of ln(measured / predicted) that kvopt prints for a row of which so much was fitted."""
    fit = profile.fitted()
    known = fit.groups.get(group(one.accelerator.id, one.engine, one.weights))
    others = set(known.models) - {one.model.id} if known else set()
    evidence = ("group" if one.model.routed else "model") if MODES[mode] != "model" else "group" if others else "none"
    return fit.spread[quantity][evidence]
