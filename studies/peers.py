"""The study `peers`: kvopt and aiconfigurator side by side, on benchmarks that neither of kvopt's fits has seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.calibration.fit import routed
from studies.evidence import AICONFIGURATOR, LATENCY, table
from studies.left_out import left_out, rows_of, summary
from studies.result import StudyResult

QUESTION = "How far are kvopt and aiconfigurator from measured TTFT and TPOT, each group of settings left out of kvopt's fit?"
COLUMNS = {"ttft_s": "aic_predicted_ttft_ms", "tpot_ms": "aic_predicted_tpot_ms"}


def run(out: Path | None = None, path: Path = LATENCY) -> StudyResult:
    """One row per accelerator and engine, dense models and mixtures apart; rows whose precision is not known are left out. `path`: the measurements."""
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
        kind = "mixtures of experts" if routed(one) else "dense"
        for name in (f"all {kind}", f"{one.accelerator.id} {one.engine} {one.weights} {'MoE' if routed(one) else 'dense'}"):
            for quantity, column in COLUMNS.items():
                measured = one.measured[quantity] / (1e3 if quantity == "tpot_ms" else 1.0)
                theirs = row.number(column)
                if quantity in predicted[case] and theirs:
                    pair = (math.log(predicted[case][quantity] / measured), math.log(theirs / 1e3 / measured))
                    errors.setdefault(name, {}).setdefault(quantity, []).append(pair)
    order = sorted(errors, key=lambda name: (not name.startswith("all"), name))
    rows = [_row(name, quantity, np.array(errors[name][quantity])) for name in order for quantity in COLUMNS]
    notes = (
        f"{len(pairs)} rows; {unknown} of unknown precision and {missing} that cannot be read or fitted are left out",
        "each group of rows that differ in tensor parallelism, batch and engine version alone is predicted by profiles fitted without it",
        "aiconfigurator 0.12.0 (Apache-2.0): its own script over its own sample, kernel tables of the nearest engine version",
    )
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=notes)


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
