"""The study `method_regret` on the cells of one dimension that fits fast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvopt.accuracy.pooled import fit
from studies import method_regret
from studies.method_cells import LIKE, Cell, LeftIn, bins, cells, hidden, loaded, predicted, size
from studies.method_reveal import pools, revealed

MODELS = loaded(["rank", "layer"])
CELLS = cells(MODELS)


def test_bins_hold_like_sizes() -> None:
    made = bins(MODELS["rank"].readings)
    assert sum(map(len, made)) == len(MODELS["rank"].readings)
    assert all(size(group[-1]) <= LIKE * size(group[0]) + 1e-6 for group in made)


def test_a_cell_compares_methods_on_one_thing() -> None:
    assert CELLS
    for cell in CELLS:
        assert len(cell.methods) >= 4
        assert len({(one.model, one.benchmark, one.context, one.question) for one in cell.readings}) == 1
        assert min(cell.regret(i) for i in range(len(cell.methods))) == 0


def test_nothing_of_the_cell_is_left_in_and_picks_agree_with_a_fit() -> None:
    """Taking readings out to first order moves no pick by more than the two fits tell methods apart."""
    left_in = LeftIn(MODELS)
    for cell in CELLS:
        (left,) = left_in.of(cell).values()
        assert not any(hidden(one, cell) for one in left.readings)
        full = {left.readings[0].dimension: fit(left.readings, left.spreads)}
        ours, theirs = (cell.by_method(predicted(models, cell.readings)) for models in (left_in.of(cell), full))
        np.testing.assert_allclose(ours, theirs, atol=0.05)
        assert theirs[ours.argmax()] > theirs.max() - 0.02
        assert left_in.of(cell) is left_in.of(cell)


def test_what_is_measured_is_picked() -> None:
    """Perfect knowledge of the pool leaves little regret; none can be below zero."""
    left_in = LeftIn(MODELS)
    for pool, cell in zip(pools(left_in, CELLS, False), CELLS, strict=True):
        found = revealed(pool, cell)
        assert found == revealed(pool, cell)
        assert min(found.before, found.named, found.drawn, found.everything) >= 0
        assert found.pool >= len(cell.readings)
        assert found.everything <= found.before + 1e-9


def test_a_known_regret() -> None:
    one = CELLS[0].readings[0]
    told = (("a", 0.9), ("b", 0.8), ("c", 0.7), ("a", 0.7))
    made = tuple(replace(one, method=name, question="hidden", pool="one-shot", retained=kept) for name, kept in told)
    cell = Cell("rank", made)
    assert cell.methods == ("a", "b", "c")
    np.testing.assert_allclose(cell.measured, [0.8, 0.8, 0.7])
    assert cell.regret(2) == pytest.approx(10)


def test_the_study() -> None:
    result = method_regret.of(MODELS, CELLS, measurements=True)
    assert result.columns == ("left out", "cells", "who picks", "n", "median", "75th pct", "90th pct", "mean")
    for row in result.rows:
        assert 0 <= row["median"] <= row["75th pct"] <= row["90th pct"]
    rows = {(row["left out"], row["cells"], row["who picks"]): row for row in result.rows}
    assert rows["its benchmark", "all", "the best"]["mean"] == 0
    assert ("its benchmark", "all", "kvopt, 5 that next names") in rows
