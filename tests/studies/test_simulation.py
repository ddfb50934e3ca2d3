"""The study `simulation`, on few scenarios."""

from __future__ import annotations

import random

import pytest

from studies import simulation


def test_the_closed_form_agrees_on_a_few() -> None:
    result = simulation.run(count=4, requests=800)
    assert result.ok
    assert {"sessions", "TPOT", "TTFT", "TTFT p95"} <= result.rows[0].keys()
    assert all(row["sessions"] == pytest.approx(1, abs=0.1) for row in result.rows)
    assert sum(row["TPOT"] == pytest.approx(1, abs=0.15) for row in result.rows) >= 3
    assert sum(row["TTFT"] == pytest.approx(1, abs=0.3) for row in result.rows) >= 3
    assert len(result.notes) == 6


def test_scenarios_are_those_of_the_seed() -> None:
    assert [simulation.drawn(random.Random(3)) for _ in range(2)] == [simulation.drawn(random.Random(3))] * 2


def test_it_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {name: 1.5 for name in (*simulation.WITHIN, "TTFT p95", "TPOT p95")}
    monkeypatch.setattr(simulation, "compared", lambda *given: row)
    assert not simulation.run(count=2).ok
