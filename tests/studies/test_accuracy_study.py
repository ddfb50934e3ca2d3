"""The study `accuracy` on the dimensions that fit fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kvopt.accuracy import posterior, response
from kvopt.accuracy.left_out import SERIES
from kvopt.errors import BadInput
from studies import accuracy


def test_the_study(tmp_path: Path) -> None:
    result = accuracy.run(out=tmp_path, folds=3, dimensions="head, layer")
    rows = {(row["left out"], row["readings"]): row for row in result.rows}
    for way in ("series", "model"):
        everything = rows[way, "all"]
        assert everything["n"] == rows[way, "dimension head"]["n"] + rows[way, "dimension layer"]["n"]
        assert everything["n"] == sum(row["n"] for (left, name), row in rows.items() if left == way and name.startswith("task "))
        assert 0 < everything["RMSE"] < 60
        assert 50 < everything["in interval %"] <= 100
    assert rows["series", "all"]["RMSE"] < rows["model", "all"]["RMSE"]
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
    assert result.rows == accuracy.run(folds=3, dimensions="head, layer").rows


def test_left_out_rows_are_further_off_than_fitted_ones() -> None:
    models = {"head": posterior.load("head")}
    found = accuracy.predictions(models, SERIES, 3)  # type: ignore[arg-type]
    fitted = models["head"].predict(models["head"].readings)
    inside = np.exp(-response.loss(models["head"].readings, fitted.eta)) - found.measured
    assert np.mean(inside**2) < np.mean((found.predicted - found.measured) ** 2)
    assert np.all(found.low <= found.high)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="by: serie: must be some of series, model"):
        accuracy.run(by="serie")
    with pytest.raises(BadInput, match="folds: 1: must be 2 or more"):
        accuracy.run(folds=1)
