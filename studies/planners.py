"""The study `planners`: kvopt and aiconfigurator side by side, on benchmarks that neither of kvopt's fits has seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.plots import write_figure
from kvopt.search.pipeline import Progress
from kvopt.validation.latency import predict
from kvopt.validation.rows import Row
from studies.evidence import AICONFIGURATOR, LATENCY, table
from studies.left_out import left_out, rows_of, summary
from studies.planners_plot import figure
from studies.result import StudyResult

QUESTION = "How far are kvopt and aiconfigurator from measured TTFT and TPOT, each group of settings left out of kvopt's fit?"
OUTSIDE = "not in kvopt's evidence"
COLUMNS = {"ttft_s": "aic_predicted_ttft_ms", "tpot_ms": "aic_predicted_tpot_ms"}


def run(out: Path | None = None, progress: Progress | None = None, path: Path = LATENCY) -> StudyResult:
    """One row per accelerator and engine, dense models and mixtures apart; rows whose precision is not known are left out.

    `path`: the measurements. `out`: folder for the picture. aiconfigurator's predictions are those committed beside the measurements: it need not be installed.
    """
    if progress is not None:
        progress("fitting with each group of settings left out", 0.0)
    found = left_out("settings", path)
    case_of = {one.line: case for case, one in enumerate(found.data.measurements)}
    by_id = {row.text("source_id"): case_of[row.line] for row in table(path).rows if row.text("source_id") and row.line in case_of}
    pairs = []
    unknown, missing = 0, 0
    for row in table(AICONFIGURATOR).rows:
        case = by_id.get(row.text("id"))
        if not row.text("precision"):
            unknown += 1
        elif case is None:
            missing += 1
        else:
            pairs.append((case, row))
    predicted = rows_of(found, [case for case, _ in pairs])
    errors: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for case, row in pairs:
        one = found.data.measurements[case]
        kind = "mixtures of experts" if one.model.routed else "dense"
        for name in (f"all {kind}", f"{one.accelerator.id} {one.engine} {one.weights} {'MoE' if one.model.routed else 'dense'}"):
            for quantity, column in COLUMNS.items():
                measured = one.measured[quantity] / (1e3 if quantity == "tpot_ms" else 1.0)
                theirs = row.number(column)
                if quantity in predicted[case] and theirs:
                    pair = (math.log(predicted[case][quantity] / measured), math.log(theirs / 1e3 / measured))
                    errors.setdefault(name, {}).setdefault(quantity, []).append(pair)
    unseen, refused = outside()
    errors |= unseen
    order = sorted(errors, key=lambda name: (name.startswith(OUTSIDE), not name.startswith("all"), name))
    pairs_of = {name: {quantity: np.array(both) for quantity, both in errors[name].items()} for name in order}
    rows = [_row(name, quantity, pairs_of[name][quantity]) for name in order for quantity in COLUMNS if quantity in pairs_of[name]]
    if out is not None:
        write_figure(figure(pairs_of, order), out, "planners")
    notes = (
        f"{len(pairs)} rows of kvopt's evidence; {unknown} of unknown precision are left out, {missing} are not in its evidence",
        f"{OUTSIDE}: predicted by the catalog's profiles, which were fitted to none of them; {refused} of unknown models are left out",
        "each group of rows that differ in tensor parallelism, batch and engine version alone is predicted by profiles fitted without it",
        "aiconfigurator 0.12.0 (Apache-2.0): its own script over its own sample, kernel tables of the nearest engine version",
    )
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=notes)


def outside() -> tuple[dict[str, dict[str, list[tuple[float, float]]]], int]:
    """ln(predicted / measured) of kvopt and of aiconfigurator for rows of its sample that kvopt's evidence does not hold, and how many kvopt refuses."""
    held = {row.text("source_id") for row in table(LATENCY).rows}
    rows = [row for row in table(AICONFIGURATOR).rows if row.text("precision") and row.text("id") not in held]
    outcomes = predict([Row(row.line, _cells(row)) for row in rows], 0.5) if rows else []
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row, outcome in zip(rows, outcomes, strict=True):
        kind = "MoE" if "MoE" in outcome.group else "dense"
        for prediction in outcome.predictions:
            theirs = row.number(COLUMNS[prediction.quantity])
            if theirs and prediction.measured:
                milliseconds = prediction.measured * (1e3 if prediction.quantity == "ttft_s" else 1.0)
                pair = (math.log(prediction.predicted / prediction.measured), math.log(theirs / milliseconds))
                found.setdefault(f"{OUTSIDE}, {kind}", {}).setdefault(prediction.quantity, []).append(pair)
    return found, sum(outcome.refused for outcome in outcomes)


def _cells(row: Row) -> dict[str, str]:
    """A row of its sample under the names of a measurements file."""
    names = {"model": "model_path", "gpu": "system", "engine": "backend", "version": "backend_version", "weight_dtype": "precision"}
    names |= {"prompt_len": "isl", "output_len": "osl", "batch": "batch_size", "tp": "tp_size", "num_gpus": "tp_size", "tpot_ms": "silicon_tpot_ms"}
    cells = {name: row.text(column) for name, column in names.items()}
    return {**cells, "ttft_s": str(float(row.text("silicon_ttft_ms")) / 1e3), "note": "InferenceMAX" if cells["engine"] == "trtllm" else ""}


def _row(name: str, quantity: str, pairs: np.ndarray) -> dict[str, Any]:
    ours, theirs = summary(pairs[:, 0]), summary(pairs[:, 1])
    return {
        "rows": name,
        "quantity": "TTFT" if quantity == "ttft_s" else "TPOT",
        "n": int(ours["n"]),
        "kvopt median %": ours["median %"],
        "kvopt 90th pct %": ours["90th pct %"],
        "aiconfigurator median %": theirs["median %"],
        "aiconfigurator 90th pct %": theirs["90th pct %"],
    }
