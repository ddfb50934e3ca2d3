"""Least hardware and least compression: the answer serves, a little less does not, and what cannot be met is said."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest

from kvopt import named
from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.inverse import ACCURACY, HARDWARE, least, served
from kvopt.problem import Problem, resolve

QUESTION: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "64k"}


def with_hbm(size: float) -> Problem:
    """The question on a card with another memory, written into its specification."""
    problem = resolve(Scenario.of(**QUESTION))
    card = problem.accelerator
    number = card.logged_bytes
    assert number is not None
    return changed(problem, accelerator=card.model_copy(update={"logged_bytes": number.model_copy(update={"value": size})}))


def users(problem: Problem) -> float:
    return served(problem, named.best_case(problem))


def test_the_least_memory_serves_and_a_little_less_does_not() -> None:
    found = least("hbm_bytes", 55, **QUESTION)
    assert found.feasible
    assert found.value is not None
    assert found.value > found.at_hand
    assert found.constraint == "hbm"
    assert found.found == pytest.approx(found.limit, rel=1e-6)
    assert users(with_hbm(found.value)) == pytest.approx(found.served, rel=1e-6)
    assert found.served >= 55 > users(with_hbm(0.98 * found.value))


def test_the_least_of_each_is_monotone_in_the_users() -> None:
    for quantity in ("hbm_bandwidth", "flops"):
        values = [least(quantity, wanted, **QUESTION).value for wanted in (20, 30, 40)]
        assert all(value is not None and value > 0 for value in values)
        assert values == sorted(values)  # type: ignore[type-var]
    shares = [least("kept", wanted, **QUESTION).value for wanted in (40, 60, 100, 150)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
    assert len(set(shares)) == len(shares)


def test_what_is_served_already_needs_nothing() -> None:
    found = least("kept", 10, **QUESTION)
    assert (found.value, found.times) == (1.0, 1.0)
    assert found.at_edge
    assert found.served == pytest.approx(found.served_at_hand)


def test_no_memory_makes_up_for_prefill() -> None:
    found = least("kept", 1e4, **QUESTION)
    assert not found.feasible
    assert found.value is None
    assert found.times is None
    assert found.constraint in ("prefill_utilisation", "ttft_s")
    assert found.found == pytest.approx(found.limit, rel=1e-3)
    assert found.served_at_hand < found.served < 1e4


def test_a_named_method_keeps_to_the_accuracy_floor() -> None:
    loose, strict = (least("kept", 60, method="duoattention", accuracy_floor=floor, **QUESTION) for floor in (0.5, 0.999))
    assert loose.feasible
    assert loose.value is not None
    assert 0 < loose.value < 1
    assert loose.served >= 60
    assert not strict.feasible
    assert strict.constraint == "accuracy"
    assert strict.found < strict.limit == 0.999
    assert strict.served < 60


def test_bits_are_those_of_a_format() -> None:
    found = least("kept", 60, method="fp8", **QUESTION)
    assert found.value == 0.5
    assert found.point.x[named.FIELDS.index("key_bits")] == 8
    assert found.served > found.served_at_hand or found.at_edge


def test_every_hardware_number_is_that_of_the_card() -> None:
    device = with_hbm(1e11).device(resolve(Scenario.of(**QUESTION)).checkpoints[0])
    assert all(float(getattr(device, field)) > 0 for field in HARDWARE.values())
    assert float(device.memory_bytes) == 1e11
    assert ACCURACY == 8


@pytest.mark.parametrize(
    ("quantity", "wanted", "fields", "named_field"),
    [
        ("memory", 10, {}, "quantity"),
        ("kept", 0, {}, "users"),
        ("kept", float("nan"), {}, "users"),
        ("hbm_bytes", 10, {"method": "fp8"}, "method"),
        ("kept", 10, {"method": "no-such"}, "method"),
        ("kept", 10, {"model": "no-such"}, "model"),
    ],
)
def test_bad_input_names_its_field(quantity: str, wanted: float, fields: dict[str, Any], named_field: str) -> None:
    with pytest.raises(BadInput) as error:
        least(quantity, wanted, **{**QUESTION, **fields})
    assert error.value.field == named_field
    assert np.isnan(wanted) or str(error.value)
