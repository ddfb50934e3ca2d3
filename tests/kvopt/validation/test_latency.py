"""Latency rows: the published measurements are predicted within stated errors and intervals, and rows that say too little are refused by line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from kvopt import cli
from kvopt.validation.errors import errors
from kvopt.validation.outcome import Outcome
from kvopt.validation.run import Validation, validate

EVIDENCE = Path(__file__).parents[3] / "studies" / "evidence" / "latency.csv"
BOUNDS = {"prefill_s": (4, 16), "e2e_s": (6, 18), "tpot_ms": (7, 21), "ttft_s": (11, 48)}  # median and 90th percentile of the error, percent
GOOD = {
    "model": "llama-3.1-8b",
    "gpu": "h100-sxm",
    "engine": "vLLM",
    "version": "0.19.0",
    "weight_dtype": "bf16",
    "prompt_len": "1024",
    "tpot_ms": "9",
}
COLUMNS = (
    "model",
    "gpu",
    "engine",
    "version",
    "weight_dtype",
    "prompt_len",
    "output_len",
    "batch",
    "kind",
    "ttft_s",
    "tpot_ms",
    "throughput_tok_s",
    "e2e_s",
)


@pytest.fixture(scope="module")
def middle() -> Validation:
    """All published measurements in one call."""
    return validate("latency", EVIDENCE)


@pytest.fixture(scope="module")
def listed(middle: Validation) -> list[Outcome]:
    """Those that the collection marks for fitting."""
    return [outcome for row, outcome in zip(middle.table.rows, middle.outcomes, strict=True) if row.text("use_for_fit") == "1"]


def table(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_whole_file_in_one_call(middle: Validation) -> None:
    data = middle.data
    assert data["rows"] == len(middle.table.rows) > 2000
    assert data["predicted"] >= 0.95 * data["rows"]
    assert data["predicted"] + len(data["refused"]) == data["rows"]
    assert all(math.isfinite(p.predicted) and 0 < p.lower < p.predicted < p.upper for outcome in middle.outcomes for p in outcome.predictions)
    assert not any("NaN" in part or "Infinity" in part for part in [middle.to_json()])


def test_rows_marked_for_fitting_are_within_stated_errors(listed: list[Outcome]) -> None:
    assert np.mean([not outcome.refused for outcome in listed]) >= 0.9
    found = errors(listed, {})
    assert set(BOUNDS) <= set(found)
    for quantity, (median, ninetieth) in BOUNDS.items():
        assert found[quantity]["median_abs_pct"] < median, quantity
        assert found[quantity]["p90_abs_pct"] < ninetieth, quantity
        assert abs(found[quantity]["bias_pct"]) < median, quantity


def test_intervals_of_90_percent_hold_about_so_many(listed: list[Outcome]) -> None:
    for quantity, found in errors(listed, {}).items():
        assert 0.85 <= found["interval_coverage"] <= 0.97, quantity


def test_most_errors_are_of_tails_not_of_every_row(listed: list[Outcome]) -> None:
    """The bounds above would not hold of predictions that are a quarter off."""
    quarter = [
        Outcome(o.line, predictions=tuple(type(p)(p.quantity, p.measured, 1.25 * p.predicted, p.lower, p.upper) for p in o.predictions))
        for o in listed
    ]
    found = errors(quarter, {})
    assert all(found[quantity]["median_abs_pct"] > median for quantity, (median, _) in BOUNDS.items())


def test_confidence_quotes_longer_times_and_lower_rates(middle: Validation) -> None:
    quoted = validate("latency", EVIDENCE, 0.9)
    for one, other in zip(middle.outcomes, quoted.outcomes, strict=True):
        for here, there in zip(one.predictions, other.predictions, strict=True):
            if here.quantity == "throughput_tok_s":
                assert there.predicted < here.predicted
            else:
                assert there.predicted > here.predicted
            assert (there.lower, there.upper) == (here.lower, here.upper)


def test_refused_rows_carry_line_and_reason(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "prompt_len": "-5"}, {**GOOD, "model": "nobody/never-heard-of-9b"}, {**GOOD, "tpot_ms": ""}, {**GOOD, "batch": "4"}]
    data = validate("latency", table(tmp_path, *rows)).data
    assert data["predicted"] == 2
    assert [entry["row"] for entry in data["refused"]] == [3, 4, 5]
    for entry, said in zip(data["refused"], ("prompt_len: -5", "never-heard-of-9b: not known", "holds none of prefill_s"), strict=True):
        assert said in entry["why"]


def test_nothing_but_refused_rows_is_an_answer(tmp_path: Path) -> None:
    data = validate("latency", table(tmp_path, {**GOOD, "gpu": ""})).data
    assert (data["predicted"], data["errors"]) == (0, {})


def test_copies_between_host_and_accelerator(middle: Validation) -> None:
    """H20 over PCIe 5, caches of 1K to 64K tokens, as published."""
    found = [p for outcome in middle.outcomes if outcome.group == "host copies" and "h20," in outcome.label for p in outcome.predictions]
    assert len(found) >= 4
    for one in found:
        assert one.measured is not None
        assert one.predicted == pytest.approx(one.measured, rel=0.03)


def test_what_was_never_fitted_is_said(tmp_path: Path) -> None:
    rows = [{**GOOD, "gpu": "gaudi3"}, {**GOOD, "batch": "5000"}]
    data = validate("latency", table(tmp_path, *rows)).data
    assert [entry["row"] for entry in data["notes"]] == [2, 3]
    assert "nothing of this accelerator" in data["notes"][0]["note"]
    assert "more requests at once" in data["notes"][1]["note"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert cli.main(["validate", "latency", str(table(tmp_path, GOOD, {**GOOD, "prompt_len": "x"})), "--predictions", str(out)]) == 0
    assert "1 of 2 rows" in capsys.readouterr().out
    lines = list(csv.DictReader(out.read_text().splitlines()))
    assert float(lines[0]["lower_tpot_ms"]) < float(lines[0]["predicted_tpot_ms"]) < float(lines[0]["upper_tpot_ms"])
    assert lines[1]["predicted_tpot_ms"] == ""
