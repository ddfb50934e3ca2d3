"""The numbers of arXiv 2405.08944: those that reproduce do, those that do not are shown as such, and another input is noticed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from studies import paper
from studies.result import StudyResult


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return paper.run()


@pytest.fixture(scope="module")
def rows(result: StudyResult) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in result.rows:
        found.setdefault(row["quantity"], []).append(row)
    return found


def test_all_is_as_recorded(result: StudyResult) -> None:
    assert result.ok
    assert {row["as recorded"] for row in result.rows} == {"yes"}


@pytest.mark.parametrize(
    ("quantity", "expected", "digits"),
    [
        ("KV cache per token", [245_760], 0),
        ("KV cache, 100K", [22.888], 3),
        ("KV cache, 4K", [0.9155], 4),
        ("critical batch", [156], 6),
        ("an answer, 50K", [9.844], 3),
        ("an answer, 4K", [8.458], 3),
        ("context switch, 50K", [1.144], 3),
        ("context switch, 4K", [0.092], 3),
        ("sessions in 1 card, 50K", [1, 1], 0),
        ("sessions in 1 card, 4K", [18, 13], 0),
        ("sessions in 2 cards, 50K", [8, 8], 0),
        ("sessions in 2 cards, 4K", [105, 100], 0),
        ("sessions in 2 cards, 100K", [4, 4], 0),
        ("prefill FLOP, 50K", [4.334], 3),
        ("prefill, 50K, true width", [17.79], 2),
        ("a session's busy time, 50K", [68.6], 1),
        ("sessions an hour, 50K", [52.5], 1),
        ("a session's busy time, 4K", [43.9], 1),
        ("sessions an hour, 4K", [82.0], 1),
    ],
)
def test_computed(rows: dict[str, list[Any]], quantity: str, expected: list[float], digits: int) -> None:
    assert [round(row["computed"], digits) for row in rows[quantity]] == expected


def test_what_reproduces_and_what_does_not(rows: dict[str, list[Any]]) -> None:
    verdicts = {quantity: {row["verdict"] for row in found} for quantity, found in rows.items()}
    for quantity in (
        "KV cache, 100K",
        "KV cache, 4K",
        "critical batch",
        "an answer, 50K",
        "an answer, 4K",
        "context switch, 50K",
        "sessions in 2 cards, 4K",
    ):
        assert verdicts[quantity] == {"reproduces"}, quantity
    for quantity in ("prefill, 50K", "prefill, 50K, true width", "sessions in 1 card, 4K", "sessions in 2 cards, 100K"):
        assert verdicts[quantity] == {"does not reproduce"}, quantity
    assert rows["prefill, 50K, true width"][0]["error %"] == pytest.approx(26.1, abs=0.1)
    assert verdicts["sessions an hour, 50K"] == {"not published"}


@pytest.mark.parametrize("changed", [{"model": "meta-llama-3.1-70b"}, {"accelerator": "h100-sxm"}, {"answer": 300}])
def test_another_input_fails(changed: dict[str, Any]) -> None:
    found = paper.run(**changed)
    assert not found.ok
    assert any(row["as recorded"].startswith("NO") for row in found.rows)
    assert any("no longer" in note for note in found.notes)


def test_no_global_flag_is_set(result: StudyResult) -> None:
    assert not jax.config.jax_enable_x64


def test_saved_and_printed(result: StudyResult, tmp_path: Path) -> None:
    result.save(tmp_path / "paper")
    data = json.loads((tmp_path / "paper" / "result.json").read_text())
    table = list(csv.DictReader(io.StringIO((tmp_path / "paper" / "table.csv").read_text())))
    assert data["ok"] is True
    assert [row["quantity"] for row in table] == [row["quantity"] for row in result.rows]
    assert sorted(path.name for path in (tmp_path / "paper").iterdir()) == ["result.json", "table.csv"]
    console = Console(file=io.StringIO(), width=200)
    result.print(console)
    assert "critical batch" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_table_with_unknown_numbers(tmp_path: Path) -> None:
    StudyResult(title="t", columns=("a", "b"), rows=({"a": float("nan")}, {"a": 1.5, "b": "x"})).save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["rows"] == [{"a": None, "b": None}, {"a": 1.5, "b": "x"}]
