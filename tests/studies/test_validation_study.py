"""The study `validation` and the rows it leaves out, on a few of the published rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kvopt.calibration import fit as fitting
from kvopt.errors import BadInput
from studies import validation
from studies.evidence import LATENCY, table
from studies.left_out import left_out, rows_of, summary

GROUPS = {("A100-80GB", "vLLM"): 14, ("H100-SXM", "TensorRT-LLM"): 14, ("H200-SXM", "TensorRT-LLM"): 14, ("L40S", "TensorRT-LLM"): 10}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Some rows of four groups; few rows need few steps."""
    taken = dict.fromkeys(GROUPS, 0)
    rows = []
    for row in table(LATENCY).rows:
        group = (row.text("gpu"), row.text("engine"))
        if row.text("fitted") == "1" and taken.get(group, 99) < GROUPS.get(group, 0):
            taken[group] += 1
            rows.append(row.cells)
    assert taken == GROUPS
    file = tmp_path_factory.mktemp("evidence") / "some.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 100, "REFIT_STEPS": 100, "REFIT_RATE": fitting.RATE}.items():
            patch.setattr(fitting, name, value)
        yield file


def test_summary() -> None:
    found = summary(np.log([0.5, 0.9, 1.0, 1.1, 1.2]))
    assert found == pytest.approx({"n": 5, "median %": 10, "90th pct %": 38, "bias %": 0})


def test_errors_of_the_fit_and_of_what_it_has_not_seen(path: Path) -> None:
    result = validation.run(modes="fitted, model left out", path=path)
    assert result.columns == ("rows", "readings", "n", "median %", "90th pct %", "bias %", "in interval %")
    modes = {mode: {row["readings"]: row for row in result.rows if row["rows"] == mode} for mode in ("fitted", "model left out")}
    for rows in modes.values():
        assert {"all", "prefill", "decode, TPOT"} & set(rows)
        assert all(row["n"] > 0 and 0 <= row["median %"] <= row["90th pct %"] and 0 <= row["in interval %"] <= 100 for row in rows.values())
    assert modes["fitted"]["all"]["n"] == modes["model left out"]["all"]["n"]
    assert modes["fitted"]["all"]["median %"] < modes["model left out"]["all"]["median %"]
    assert modes["fitted"]["all"]["median %"] < 12
    with pytest.raises(BadInput, match="modes: fited: not known; did you mean fitted"):
        validation.run(modes="fited", path=path)


def test_values_of_left_out_rows(path: Path) -> None:
    found = left_out("nothing", path)
    case = int(found.data.readings.case[0])
    values = rows_of(found, [case])
    name = str(found.data.readings.quantity[0])
    assert values[case][name] == pytest.approx(math.exp(found.data.readings.log_value[0] + found.error[0]))
    assert len(found.measurements) == len(found.error) == len(found.mixture) == len(found.long)
