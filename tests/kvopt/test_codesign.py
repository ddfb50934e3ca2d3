"""Co-design: slopes against finite differences, and an optimum that neither the card nor random cards beat."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kvopt import codesign, named
from kvopt.card_costs import fitted
from kvopt.codesign import HOPELESS, QUANTITIES, Codesign, Shared, best_card, slopes, values
from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search.lanes import stacked, take
from kvopt.search.pipeline import given

QUESTION: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 2, "tp": 2, "context": "64k"}


@pytest.fixture(scope="module")
def best() -> Codesign:
    return best_card(**QUESTION)


def test_slopes_are_those_of_finite_differences() -> None:
    problem = resolve(Scenario.of(**QUESTION))
    choice, x = named.cases(problem)[0]
    shared = Shared(given(problem, ()), problem.targets, fitted("price").model)
    designs = np.column_stack([np.random.default_rng(1).uniform(-0.7, 0.7, (6, len(QUANTITIES))), np.linspace(0.02, 0.4, 6)])
    step, size = 1e-5, designs.shape[1]
    moved = np.concatenate([designs, *(designs + sign * step * np.eye(size)[place] for place in range(size) for sign in (-1, 1))])
    lanes = take(stacked(problem, [choice]), np.zeros(len(moved), int))
    found = values(shared, lanes, np.repeat(x[None], len(moved), axis=0), moved)
    assert np.all(found.worth > HOPELESS)
    slope = slopes(shared, take(lanes, np.arange(6)), designs, codesign.Values(*(leaf[:6] for leaf in found)))
    sides = found.worth[6:].reshape(size, 2, 6)
    assert slope == pytest.approx(((sides[:, 1] - sides[:, 0]) / (2 * step)).T, rel=2e-3, abs=2e-4)
    assert np.any(np.abs(slope) > 0.1)


def test_the_optimum_beats_the_card_and_random_cards(best: Codesign) -> None:
    assert best.feasible
    assert best.worth > 1.2 * best.reference_worth > 0
    assert best.worth >= best.random_worth > best.reference_worth


def test_the_optimum_lies_in_the_box(best: Codesign) -> None:
    assert set(best.numbers) == set(QUANTITIES)
    assert all(1 / codesign.BOX * 0.999 <= number.factor <= codesign.BOX * 1.001 for number in best.numbers.values())
    assert 0 <= best.idle_resident <= 1
    assert best.worth == pytest.approx(best.sessions_per_gpu_hour / best.cost)
    assert best.binding


def test_at_the_optimum_a_number_is_worth_what_it_costs(best: Codesign) -> None:
    """A step up gains no more than it costs, unless the box stops it; a step down saves no more than it loses, unless the box stops that."""
    for number in best.numbers.values():
        if number.factor < 0.99 * codesign.BOX:
            assert number.right <= number.cost_share + 0.03
        if number.factor > 1.01 / codesign.BOX:
            assert number.left >= number.cost_share - 0.03


def test_the_same_seed_gives_the_same_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codesign, "STEPS", 8)
    once, again = (best_card(per="joule", **QUESTION) for _ in range(2))
    assert dataclasses.astuple(dataclasses.replace(once, fit=None)) == dataclasses.astuple(dataclasses.replace(again, fit=None))  # type: ignore[arg-type]
    assert once.per == "joule"
    assert once.evaluations == 8 * codesign.STARTS


def test_targets_that_no_card_meets_are_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codesign, "STEPS", 4)
    found = best_card(**QUESTION, ttft="1ms")
    assert not found.feasible
    assert (found.worth, found.reference_worth, found.random_worth, found.sessions_per_gpu_hour) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "field"), [({"per": "euro"}, "per"), ({"box": 1.0}, "box"), ({"accelerator": "rtx-3060", "gpus": 1, "tp": 1}, "accelerator")]
)
def test_bad_input_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as error:
        best_card(**{**QUESTION, **fields})
    assert error.value.field == field
