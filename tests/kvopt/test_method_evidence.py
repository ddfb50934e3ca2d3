"""`kvopt catalog methods`: the evidence behind each method beside what its file says."""

from __future__ import annotations

import json

import pytest

from kvopt import catalog, method_evidence
from kvopt.cli import main
from kvopt.inputs import method


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as a wide terminal shows them: a narrow one breaks cells."""
    monkeypatch.setenv("COLUMNS", "220")


def test_the_list_shows_kind_readings_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "dimension", "kind", "readings", "where", "what", "it", "is"]
    found = {line.split()[0]: line for line in lines[1:]}
    assert set(found) == set(catalog.ids("methods"))
    assert found["snapkv"].split()[1:3] == ["token", "scored"]
    assert int(found["snapkv"].split()[3]) > 200
    assert "research library" in found["snapkv"]
    assert "no evidence" in found["minference"]


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "methods", "--json"]) == 0
    found = {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"dimension", "pool", "where", "readings"} <= set(found["snapkv"])
    assert found["minference"]["readings"] == 0


def test_a_method_shows_its_file_and_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "methods", "duoattention"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("id: duoattention\n")
    for words in ("evidence: ", "nvidia/kvpress", "ruler", "at 0.5", "spread: method, model, noise", "other tasks"):
        assert words in said, words
    assert main(["catalog", "methods", "minference"]) == 0
    assert capsys.readouterr().out.endswith("evidence: no evidence\n")


def test_a_method_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "methods", "kivi", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["id"] == "kivi"
    assert sum(row["readings"] for row in data["evidence"]) == data["readings"]
    for row in data["evidence"]:
        assert row["question"] is None
        assert sum(row["spread"].values()) == pytest.approx(1)
        assert [(one["key_bits"], one["value_bits"]) for one in row["predicted"]] == [(4, 4), (2, 2)]
        for one in row["predicted"]:
            assert 0 <= one["lower"] < one["retained"] < one["upper"] <= 1


def test_seen_and_hidden_questions_are_told_apart() -> None:
    rows = {(row["task"], row["question"]): row for row in method_evidence.evidence(method.load("snapkv"))}
    seen, hidden = rows["ruler", "seen"], rows["ruler", "hidden"]
    assert all(a["retained"] > b["retained"] for a, b in zip(seen["predicted"], hidden["predicted"], strict=True))
    assert {question for _, question in rows} == {"seen", "hidden"}
    assert not any(row["question"] == "hidden" for row in method_evidence.evidence(method.load("rocketkv")))  # measured with it seen alone
