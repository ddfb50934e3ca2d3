from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kvopt import study
from kvopt.errors import BadInput
from kvopt.scale.hosts import Hosts
from studies import sweep

CELLS = {"models": ["llama-3.1-8b", "qwen2.5-72b"], "contexts": ["16k", "32k"], "accelerator": "h100-sxm", "gpus": 1}


def files(folder: Path) -> dict[str, bytes]:
    """All that a sweep writes but the seconds that it took."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "seconds"
    }


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Cells answered by a stand-in: the first model serves, the other does not."""
    solved: list[str] = []

    def answer(cell):
        solved.append(cell.name)
        if cell.fields["model"] != "llama-3.1-8b":
            return {"status": "infeasible", "reason": "too large", "warnings": [], "result": {"metrics": {"sessions_per_gpu_hour": 0.0}}}
        point = {"front": "research", "plan": {"methods": ["fp8"]}, "metrics": {"sessions_per_gpu_hour": float(cell.seed)}}
        best = {"plan": {"methods": []}, "metrics": {"sessions_per_gpu_hour": 3.0}, "baseline": {"sessions_per_gpu_hour": 2.0}}
        return {"status": "feasible", "reason": None, "warnings": ["mind"], "result": {**best, "points": [point]}}

    monkeypatch.setattr(sweep, "solve", answer)
    return solved


def test_every_cell_is_a_row_and_what_cannot_be_met_says_why(asked):
    result = sweep.run(**CELLS)
    assert [(row["model"], row["context"], row["status"]) for row in result.rows] == [
        (model, context, status) for model, status in (("llama-3.1-8b", "feasible"), ("qwen2.5-72b", "infeasible")) for context in ("16k", "32k")
    ]
    assert [row["gain_over_baseline"] for row in result.rows] == [1.5, 1.5, None, None]
    assert result.rows[3]["reason"] == "too large"
    assert result.rows[3]["sessions_per_gpu_hour"] is None
    assert result.notes == ("4 cells: 2 feasible, 2 infeasible", "mind")
    assert result.ok


def test_a_sweep_goes_on_where_it_was_broken_off(asked, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    for out in (whole, again):
        study.run("sweep", out, **CELLS)
    assert len(asked) == 8
    (lost,) = again.glob("cells/qwen2.5-72b-16k-*.json")
    lost.unlink()
    (again / "result.json").unlink()
    for half in (again / "cells" / f".{lost.name}.abc", again / "seconds" / f".{lost.name}.def", again / ".table.csv.ghi"):
        half.write_text("half")
    study.run("sweep", again, **CELLS)
    assert asked[8:] == [lost.stem]
    assert files(again) == files(whole)
    assert not list(again.rglob(".*"))
    points = csv.DictReader((whole / "points.csv").read_text().splitlines())
    rows = json.loads((whole / "result.json").read_text())["rows"]
    assert [point["sessions_per_gpu_hour"] for point in points] == [str(float(row["seed"])) for row in rows[:2]]


def test_a_run_of_another_study_in_the_folder_is_kept(asked, tmp_path):
    (tmp_path / "result.json").write_text("{}")
    for _ in range(2):
        study.run("sweep", tmp_path, **CELLS)
    assert (tmp_path / "previous-1" / "result.json").read_text() == "{}"
    assert not (tmp_path / "previous-2").exists()


def test_more_models_keep_the_answers_to_the_others(asked, tmp_path):
    study.run("sweep", tmp_path, **CELLS)
    study.run("sweep", tmp_path, **{**CELLS, "models": ["mistral-7b-v0.3", *CELLS["models"]]})
    assert len(asked) == 6
    assert all(name.startswith("mistral") for name in asked[4:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verb": "optimise"}, "verb: optimise: not known; did you mean optimize"),
        ({"modles": ["x"]}, "modles: not known"),
        ({"models": ["x"], "model": "y"}, "given twice"),
        ({"verb": "pareto", "objective": "ttft_s"}, "objective: ttft_s: is not an option of pareto"),
        ({"models": ["no-such-model"], "contexts": ["1k", "2k"]}, "2 cells: none can be read; the first: model: no-such-model"),
        ({"hosts": 3}, "hosts: not known"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        study.run("sweep", **options)


def test_several_processes_need_a_folder():
    with pytest.raises(BadInput, match="needs a folder that all of them see"):
        sweep.run(**CELLS, hosts=Hosts(0, 2))


def test_a_study_of_one_process_is_not_distributed():
    with pytest.raises(BadInput, match="this study runs in one process"):
        study.run("paper", distributed=True)


def started(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "kvopt.cli", "study", "run", *arguments]
    return subprocess.Popen(words, env={**os.environ, "JAX_PLATFORMS": "cpu", **environment}, stdout=-1, stderr=-1, text=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_processes_write_what_one_does(tmp_path):
    asked = {"study": "sweep", "verb": "analyze", **CELLS, "models": ["llama-3.1-8b", "no-such-model"]}
    question = tmp_path / "sweep.yaml"
    question.write_text(json.dumps(asked))
    joined = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2", "KVOPT_CACHE": str(tmp_path / "programs")}
    both = [started([str(question), "--distributed", "--out", str(tmp_path / "two")], JAX_PROCESS_ID=str(n), **joined) for n in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "written to" in said[0][0]
    assert said[1][0] == ""
    assert ["cell 1 of 4" in errors for _, errors in said] == [True, False]
    assert ["cell 2 of 4" in errors for _, errors in said] == [False, True]
    study.run(str(question), tmp_path / "one")
    assert files(tmp_path / "two") == files(tmp_path / "one")
