"""`kvopt validate accuracy` on the committed evidence and on rows made up."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from kvopt.validation.run import Validation, validate

TABLE = Path(__file__).parents[3] / "studies" / "evidence" / "accuracy.csv"
COLUMNS = "method,dimension,model,benchmark,context_len,kept_fraction,bits,score,baseline,query_aware"


@pytest.fixture(scope="module")
def whole() -> Validation:
    return validate("accuracy", TABLE)


def rows(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join((COLUMNS, *lines)) + "\n", encoding="utf-8")
    return path


def test_nearly_all_published_rows_are_predicted(whole: Validation) -> None:
    data = whole.data
    assert data["predicted"] >= 0.98 * data["rows"]
    found = data["errors"]["retained"]
    assert found["median_abs_pct"] < 2  # points of retained accuracy, of readings that the fit has seen
    assert found["interval_coverage"] > 0.85
    assert {"longbench", "ruler", "needle", "perplexity"} <= set(data["by_group"])


def test_every_prediction_lies_in_its_interval(whole: Validation) -> None:
    for outcome in whole.outcomes:
        for found in outcome.predictions:
            assert np.isfinite([found.predicted, found.lower, found.upper]).all()
            assert 0 <= found.lower <= found.upper
            assert 0 <= found.predicted <= 1


def test_predictions_are_columns(whole: Validation, tmp_path: Path) -> None:
    whole.write_predictions(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0])[-3:] == ["predicted_retained", "lower_retained", "upper_retained"]
    assert len(found) == len(whole.outcomes)
    refused = {row["row"] for row in whole.data["refused"]}
    assert all(bool(row["predicted_retained"]) == (outcome.line not in refused) for row, outcome in zip(found, whole.outcomes, strict=True))


def test_errors_are_points_of_retained_accuracy(tmp_path: Path) -> None:
    result = validate("accuracy", rows(tmp_path, "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,80,100,yes"))
    only = result.outcomes[0].predictions[0]
    assert only.measured == pytest.approx(0.8)
    assert result.data["errors"]["retained"]["median_abs_pct"] == pytest.approx(100 * abs(only.predicted - 0.8))


def test_what_a_plan_would_quote_is_less(tmp_path: Path) -> None:
    path = rows(tmp_path, "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,80,100,yes", "KIVI,bits,Llama-3-8B,LongBench-avg,8192,,2,95,100,no")
    for middle, quoted in zip(validate("accuracy", path).outcomes, validate("accuracy", path, 0.9).outcomes, strict=True):
        assert quoted.predictions[0].predicted < middle.predictions[0].predicted
        assert quoted.predictions[0].lower == middle.predictions[0].lower


def test_a_bad_row_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    good, bad, unmeasured = validate(
        "accuracy",
        rows(
            tmp_path,
            "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,80,100,yes",
            "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,180,100,yes",
            "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,,,yes",
        ),
    ).outcomes
    assert not good.refused
    assert bad.refused
    assert (bad.line, bad.why) == (3, "score: 180: must be at most 100, the most that is possible")
    assert unmeasured.predictions[0].measured is None  # predicted and not judged
    assert unmeasured.predictions[0].predicted == good.predictions[0].predicted


def test_an_unknown_method_is_predicted_with_a_note(tmp_path: Path) -> None:
    known, unknown = validate(
        "accuracy",
        rows(
            tmp_path,
            "SnapKV,token,Llama-3-8B,LongBench-avg,8192,0.25,,,,yes",
            "My method,token,Llama-3-8B,LongBench-avg,8192,0.25,,,,yes",
        ),
    ).outcomes
    assert not known.notes
    assert "My method: not in the catalog, no evidence: predicted as any token method" in unknown.notes[0]
    widths = [outcome.predictions[0].upper - outcome.predictions[0].lower for outcome in (known, unknown)]
    assert widths[1] > 2 * widths[0]
