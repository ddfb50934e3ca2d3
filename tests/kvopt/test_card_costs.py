"""What accelerators cost: coefficients that made the data come back, and the catalog's cards."""

from __future__ import annotations

import numpy as np
import pytest

from kvopt.card_costs import EVEN, fit, fitted
from objectives.codesign import QUANTITIES


def test_exact_data_give_their_coefficients_back() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.ones(30), rng.uniform(1, 10, (30, 3))])
    true = np.array([0.5, 0.2, 0.0, 1.0])
    assert fit(rows, rows @ true, even=0.0) == pytest.approx(true, abs=1e-9)


def test_what_the_data_do_not_tell_is_shared_evenly() -> None:
    size = np.linspace(1, 5, 20)
    rows = np.column_stack([np.ones(20), size, size])  # two numbers that always rise together
    found = fit(rows, 2 * size + 1, even=0.01)
    assert found[1] == pytest.approx(found[2], rel=1e-6)


@pytest.mark.parametrize(("kind", "fewest", "card", "worst"), [("price", 15, 4.76, 0.6), ("power", 40, 700, 0.35)])
def test_the_catalog_is_fitted_without_giving_anything_away(kind: str, fewest: int, card: float, worst: float) -> None:
    found = fitted(kind)  # type: ignore[arg-type]
    assert EVEN > 0
    assert len(found.cards) >= fewest
    assert "h100-sxm" in found.cards
    assert found.tag == "derived"
    assert found.model.per_unit.shape == (len(QUANTITIES),)
    assert np.all(np.asarray(found.model.per_unit) > 0)  # a plain fit gives memory away
    assert 0 < found.median_error < worst
    assert found.left_out_median < 1.3 * worst
