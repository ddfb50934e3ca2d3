"""`kvopt export ENGINE RUN_FOLDER`: what goes where, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvopt.cli import main
from kvopt.results import Result

Grid = dict[str, Result]


@pytest.fixture
def folder(grid: Grid, tmp_path: Path) -> Path:
    return grid["dense"].save(tmp_path / "run")


def test_the_main_file_goes_to_stdout_and_notes_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "vllm", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("#!/usr/bin/env bash\n")
    assert "vllm serve" in said.out
    assert "GPU KV cache size" in said.err


def test_every_file_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "vllm", str(folder), "--out", str(tmp_path / "launch")]) == 0
    assert {path.name for path in (tmp_path / "launch").iterdir()} == {"vllm.sh", "vllm.yaml"}
    assert "vllm.yaml" in capsys.readouterr().out


def test_one_object_with_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "sglang", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"engine", "files", "notes", "cannot"}
    assert found["engine"] == "sglang"


def test_one_where_something_cannot_be_told(grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "vllm", str(grid["research"].save(tmp_path / "run"))]) == 1
    assert "cannot be told: duoattention" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["vlm"], ["vllm", "--point", "3"]])
def test_two_and_one_line_for_bad_input(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", arguments[0], str(folder), *arguments[1:]]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
