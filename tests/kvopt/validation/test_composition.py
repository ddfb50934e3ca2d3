"""`kvopt validate composition` on the committed pairs and on rows made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvopt.validation.run import Validation, validate

TABLE = Path(__file__).parents[3] / "studies" / "evidence" / "composition.csv"
COLUMNS = "combo,method,keep_layer,keep_head,keep_token,keep_rank,bits,retained_joint,retained_1,retained_2"


@pytest.fixture(scope="module")
def whole() -> Validation:
    return validate("composition", TABLE)


def rows(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join((COLUMNS, *lines)) + "\n", encoding="utf-8")
    return path


def test_every_published_pair_whose_parts_were_measured_is_predicted(whole: Validation) -> None:
    data = whole.data
    assert {row["why"] for row in data["refused"]} <= {"retained_1: missing", "retained_2: missing"}
    assert data["predicted"] > 80
    assert data["errors"]["retained_joint"]["median_abs_pct"] < 2  # points of retained accuracy
    assert "token x bits" in data["by_group"]


def test_every_prediction_lies_in_its_interval(whole: Validation) -> None:
    for outcome in whole.outcomes:
        for found in outcome.predictions:
            assert found.lower <= found.predicted <= found.upper


def test_predictions_are_columns(whole: Validation, tmp_path: Path) -> None:
    whole.write_predictions(tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith("predicted_retained_joint,lower_retained_joint,upper_retained_joint")


def test_losses_multiply_where_nothing_more_is_known(tmp_path: Path) -> None:
    found = validate("composition", rows(tmp_path, "head x layer,two,0.75,0.5,1,1,16,0.84,0.9,0.95")).outcomes[0].predictions[0]
    assert found.predicted == pytest.approx(0.9 * 0.95)
    assert found.measured == 0.84


def test_errors_are_points_of_retained_accuracy(tmp_path: Path) -> None:
    result = validate("composition", rows(tmp_path, "head x layer,two,0.75,0.5,1,1,16,0.835,0.9,0.95"))
    assert result.data["errors"]["retained_joint"]["median_abs_pct"] == pytest.approx(2)


def test_two_bits_with_eviction_lose_more_than_the_product(tmp_path: Path) -> None:
    high, low = validate("composition", rows(tmp_path, "token x bits,a,1,1,0.25,1,8,,0.95,0.95", "token x bits,b,1,1,0.25,1,2,,0.95,0.95")).outcomes
    assert low.predictions[0].predicted < high.predictions[0].predicted
    assert high.predictions[0].predicted == pytest.approx(0.95**2, abs=0.01)


def test_what_was_not_measured_together_is_wider(tmp_path: Path) -> None:
    measured, other = validate(
        "composition", rows(tmp_path, "token x bits,a,1,1,0.5,1,8,,0.95,0.95", "layer x token,b,0.75,1,0.5,1,16,,0.95,0.95")
    ).outcomes
    widths = [found.predictions[0].upper - found.predictions[0].lower for found in (measured, other)]
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a,b,1,1,0.5,1,8,0.9,,0.95", "retained_1: missing"),
        ("a,b,1,1,0.5,1,8,0.9,0.95,0", "retained_2: 0: must be above 0"),
        ("a,b,1,1,0.5,1,8,0.9,0.95,1.6", "retained_2: 1.6: must be above 0 and at most 1.5"),
        ("a,b,1,1,1.5,1,8,0.9,0.95,0.9", "keep_token: 1.5: must be above 0 and at most 1"),
        ("a,b,1,1,0.5,1,0.5,0.9,0.95,0.9", "bits: 0.5: must be 1 or more and at most 16"),
        ("a,b,1,1,0.5,1,8,lots,0.95,0.9", "retained_joint: lots: not a number"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, line: str, why: str) -> None:
    refused, good = validate("composition", rows(tmp_path, line, "a,b,1,1,0.5,1,8,0.9,0.95,0.95")).outcomes
    assert refused.refused
    assert why in refused.why
    assert not good.refused
