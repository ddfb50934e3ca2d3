"""The study `benchmark`, on few evaluations."""

from __future__ import annotations

import pytest

from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from studies import benchmark


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "VALUES", 16)
    monkeypatch.setattr(benchmark, "GRADIENTS", 8)
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    value, gradient, compiled = benchmark.rates(resolve(Scenario.of()))
    assert value > 0
    assert gradient > 0
    assert compiled > 0


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rates(problem, per_layer=False):
        asked.append((len(problem.workload.atoms), per_layer))
        return 100.0, 25.0, 1.0

    monkeypatch.setattr(benchmark, "rates", rates)
    monkeypatch.setattr(benchmark, "front_times", lambda: (60.0, 30.0))
    result = benchmark.run()
    assert asked == [(1, False), (32, False), (1, True)]
    assert {row["gradient / value"] for row in result.rows[:3]} == {4.0}
    assert [row["seconds"] for row in result.rows[3:5]] == [60.0, 30.0]
    assert 0 < result.rows[5]["seconds"] < 30
    assert len(benchmark.run(front=False).rows) == 4
