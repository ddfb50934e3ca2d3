"""The study `planners`: both predictors over the same rows, each error its own."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from kvopt.calibration import fit as fitting
from kvopt.calibration.publish import rows_for_fit
from studies import planners
from studies.evidence import AICONFIGURATOR, LATENCY, table
from studies.left_out import LeftOut

CASES = {("Qwen3-235B-A22B", "TensorRT-LLM"), ("Llama-3.1-70B", "vLLM"), ("Qwen3-32B", "vLLM")}  # on H100; the precision of the last is not known


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of three models, all predicted 10 % too long."""
    known = {row.text("id") for row in table(AICONFIGURATOR).rows}
    named = [row for row in table(LATENCY).rows if row.text("source_id") in known]
    rows = [row.cells for row in named if row.text("gpu") == "H100-SXM" and (row.text("model"), row.text("engine")) in CASES]
    file = tmp_path / "some.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    def left_out(by: str, path: Path) -> LeftOut:
        data = fitting.design(rows_for_fit(path)[0])
        return LeftOut(data, np.full(len(data.readings.case), math.log(1.1)), np.ones(len(data.readings.case), bool))

    monkeypatch.setattr(planners, "left_out", left_out)
    return file


def test_both_are_compared_on_the_same_rows(path: Path) -> None:
    result = planners.run(path=path)
    assert {row["quantity"] for row in result.rows} == {"TTFT", "TPOT"}
    assert result.rows[0]["rows"].startswith("all ")
    outside = [row for row in result.rows if row["rows"].startswith(planners.OUTSIDE)]
    assert sum(row["n"] for row in outside) > 50
    seen = [row for row in result.rows if row not in outside]
    for row in seen:
        assert set(row) == set(result.columns)
        assert row["n"] >= 1
        assert row["kvopt median %"] == pytest.approx(10, rel=1e-3)
        assert row["kvopt 90th pct %"] == pytest.approx(10, rel=1e-3)
        assert 0 < row["aiconfigurator median %"] <= row["aiconfigurator 90th pct %"]
    assert not any("qwen3-32b" in row["rows"] for row in result.rows)
    whole = sum(row["n"] for row in seen if row["rows"].startswith("all "))
    assert whole == sum(row["n"] for row in seen if not row["rows"].startswith("all "))


def test_aiconfigurators_errors_are_its_own_numbers(path: Path) -> None:
    theirs = {row.text("id"): row for row in table(AICONFIGURATOR).rows}
    by_hand = [
        abs(float(theirs[row.text("source_id")].text("aic_predicted_tpot_ms")) / float(row.text("tpot_ms")) - 1)
        for row in table(path).rows
        if row.text("model") == "Qwen3-235B-A22B" and theirs[row.text("source_id")].text("aic_predicted_tpot_ms")
    ]
    found = next(row for row in planners.run(path=path).rows if row["rows"] == "all mixtures of experts" and row["quantity"] == "TPOT")
    assert found["n"] == len(by_hand)
    assert found["aiconfigurator median %"] == pytest.approx(100 * float(np.median(by_hand)))
