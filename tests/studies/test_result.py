"""How a study's table is printed and written."""

from __future__ import annotations

import io
import json

from rich.console import Console

from studies.result import StudyResult


def printed(result: StudyResult, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    result.print(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_numbers_are_never_broken() -> None:
    columns = ("what is measured", "values per second", "share %", "least bound", "seconds in all", "another number")
    row = {"what is measured": "a rather long text that can be wrapped", **dict.fromkeys(columns[1:], 1234567.0)}
    text = printed(StudyResult("title", columns, (row,)), 80)
    assert text.count("1,234,567") == 5
    assert max(map(len, text.splitlines())) <= 80


def test_footnotes_and_hidden_columns() -> None:
    rows = ({"a": 1, "why": "because", "b": "x"}, {"a": 2, "why": "", "b": "y"}, {"a": 3, "why": "because", "b": "z"})
    result = StudyResult("title", ("a", "why", "b"), rows, ("a note",), footnotes="why", hidden=("b",))
    text = printed(result, 80)
    assert text.count("because") == 1
    assert text.count("[1]") == 3
    assert "- a note" in text
    assert not {"x", "y", "z"} & set(text.split())
    assert [row["b"] for row in json.loads(result.to_json())["rows"]] == ["x", "y", "z"]


def test_json_has_no_nan() -> None:
    result = StudyResult("t", ("a",), ({"a": float("nan")}, {"a": float("inf")}, {}), ok=False)
    assert json.loads(result.to_json()) == {"title": "t", "columns": ["a"], "rows": [{"a": None}] * 3, "notes": [], "ok": False}


def test_a_file_is_wider_than_a_narrow_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    StudyResult("t", ("text",), ({"text": "word " * 20},)).print()
    assert max(map(len, capsys.readouterr().out.splitlines())) > 90
