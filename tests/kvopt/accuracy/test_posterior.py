"""What the catalog holds of the fit: it is the fit of the committed table, and what is written is read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvopt.accuracy import posterior, publish, response, spreads
from kvopt.accuracy.pooled import fit
from kvopt.accuracy.reading import Reading

TABLE = Path(__file__).parents[3] / "studies" / "evidence" / "accuracy.csv"


def named(one: Reading) -> tuple[Any, ...]:
    """A reading with the digits that the file has."""
    return tuple(f"{value:.6g}" if isinstance(value, float) else value for value in asdict(one).values())


def test_the_fit_is_of_the_committed_table() -> None:
    held = [one for dimension in publish.FITTED for one in posterior.load(dimension).readings]
    assert Counter(map(named, held)) == Counter(map(named, publish.readings(TABLE)))


@pytest.mark.parametrize("dimension", publish.FITTED)
def test_the_fit_is_at_its_mode(dimension: Any) -> None:
    """The parameters that the weights give are those at which the readings were linearised: the pull of every reading is its weight."""
    model = posterior.load(dimension)
    assert np.all(model.variance > 0)
    kept = np.array([one.retained for one in model.readings], float)
    eta = model.predict(model.readings).eta
    residual = np.clip(kept, 0, 1.15) - np.exp(-response.loss(model.readings, eta))
    assert np.median(np.abs(residual)) < 0.02
    pull = residual - model.variance * model.weight
    assert np.quantile(np.abs(pull), 0.9) < 0.02


def test_what_is_written_is_read_back(make: Callable[..., Reading], tmp_path: Path) -> None:
    readings = [make(key=key, retained=kept, method=name) for name in ("a", "b") for key, kept in ((0.5, 0.97), (0.25, 0.912345), (0.12, 0.8))]
    model = fit(readings, spreads.start("token"))
    posterior.write(tmp_path, {"token": model}, {"source": "made up"})
    again = posterior.read(tmp_path)["token"]
    assert again.readings == readings
    asked = [make(key=0.3, method="a"), make(key=0.3, method="new", model="unknown")]
    first, second = model.predict(asked), again.predict(asked)
    np.testing.assert_allclose(second.eta, first.eta, rtol=1e-5)
    np.testing.assert_allclose(second.covariance, first.covariance, rtol=1e-4, atol=1e-6)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_rows_that_a_table_excludes_are_not_fitted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [
        "SnapKV,token,m,RULER-avg,0.5,90,95,,",
        "SnapKV,token,m,RULER-avg,0.5,90,95,a copy,",
        "SnapKV,token,m,RULER-avg,0.5,90,95,,[exclude-from-fit: odd]",
    ]
    rows += ["SnapKV,token,m,RULER-avg,2,90,95,,", "SnapKV,token,m,RULER-avg,0.5,90,,,"]
    path.write_text(
        "\n".join(("method,dimension,model,benchmark,kept_fraction,score,baseline,excluded,source_where", *rows)) + "\n", encoding="utf-8"
    )
    assert len(publish.readings(path)) == 1
