"""The study `pareto`: its table and notes are those of the fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvopt import api, plots
from kvopt.results import Result
from studies import pareto

METRICS = {
    "sessions_per_gpu_hour": 60.0,
    "users_per_gpu": 9.0,
    "accuracy_retained": 0.99,
    "accuracy_lower": 0.97,
    "ttft_s": 20.0,
    "tpot_s": 0.05,
    "kv_bytes_per_token": 122880.0,
}


def front(feasible: bool = True) -> Result:
    point = {"front": "deployable", "plan": {"methods": ["fp8"]}, "metrics": METRICS}
    bare = {"front": "research", "plan": {"methods": []}, "metrics": {**METRICS, "sessions_per_gpu_hour": 40.0}}
    answer: dict[str, Any] = {"metrics": METRICS, "baseline": {**METRICS, "sessions_per_gpu_hour": 40.0}, "research": {"plan": None, "metrics": None}}
    if not feasible:
        answer |= {"infeasible": {"reason": "too large", "change": "--gpus 4"}, "baseline": {**METRICS, "sessions_per_gpu_hour": 0.0}}
    points = {"points": [point, bare], "hypervolume": 0.2, "reference_point": [40.0, 0.99]}
    return Result(
        "pareto", {**(points if feasible else {"points": [], "hypervolume": None, "reference_point": None}), "answer": answer}, (), feasible
    )


def test_table_and_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = []
    monkeypatch.setattr(api, "pareto", lambda scenario, objectives, progress: front())
    monkeypatch.setattr(plots, "save_all", lambda result, folder: drawn.append(folder))
    result = pareto.run(out=tmp_path, gpus=1)
    assert [row["methods"] for row in result.rows] == ["fp8", "uncompressed"]
    assert all(set(row) == set(result.columns) for row in result.rows)
    assert any("today, serves 1.50 times" in note for note in result.notes)
    assert drawn == [tmp_path]
    assert result.ok


def test_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "pareto", lambda scenario, objectives, progress: front(feasible=False))
    result = pareto.run()
    assert not result.ok
    assert result.rows == ()
    assert result.notes == ("too large; least change: --gpus 4",)
