"""The ratio of equal cost: at it the costs are equal, and where there is none what remains is more than the short context takes."""

from __future__ import annotations

import pytest

from kvopt.equal_cost import CUTS, EqualCost, ratio_for_equal_cost
from kvopt.errors import BadInput


@pytest.fixture(scope="module")
def found() -> tuple[EqualCost, ...]:
    return ratio_for_equal_cost(model="llama-3.1-8b", accelerator="h100-sxm", gpus=8)


def test_every_way_at_both_fidelities(found: tuple[EqualCost, ...]) -> None:
    assert [(cost.fidelity, cost.cut) for cost in found] == [(fidelity, cut) for fidelity in ("peak", "calibrated") for cut in CUTS]


def test_at_the_ratio_the_costs_are_equal(found: tuple[EqualCost, ...]) -> None:
    equal = [cost for cost in found if cost.hours_ratio is not None]
    assert {cost.cut for cost in equal} >= {"all four, along tokens", "all four, along layers"}
    for cost in equal:
        assert cost.long_hours == pytest.approx(cost.short_hours, rel=0.01)
        assert cost.remains <= 1 < cost.before


def test_bytes_are_equal_where_tokens_are(found: tuple[EqualCost, ...]) -> None:
    for cost in found:
        assert cost.bytes_ratio == pytest.approx(2**20 / 2**12, rel=1e-4)


def test_no_ratio_touches_prefill_that_is_not_cut(found: tuple[EqualCost, ...]) -> None:
    for cost in found:
        if cost.cut in ("stored and read", "stored, read, moved"):
            assert cost.hours_ratio is None
            assert 100 < cost.prefill <= cost.remains < cost.before
            assert cost.long_hours == pytest.approx(cost.remains * cost.short_hours)


def test_cutting_more_leaves_no_more(found: tuple[EqualCost, ...]) -> None:
    for fidelity in ("peak", "calibrated"):
        remains = {cost.cut: cost.remains for cost in found if cost.fidelity == fidelity}
        assert remains["stored and read"] >= remains["stored, read, moved"] * (1 - 1e-6)
        assert remains["stored, read, moved"] > remains["all four, along heads"] > remains["all four, along layers"]


def test_bad_input_names_its_field() -> None:
    for field, fields in (("short", {"short": "8K", "long": "4K"}), ("context", {"context": "4k"}), ("methods", {"methods": "fp8"})):
        with pytest.raises(BadInput) as error:
            ratio_for_equal_cost(**fields)  # type: ignore[arg-type]
        assert error.value.field == field
