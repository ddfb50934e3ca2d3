"""`kvopt calibrate --accuracy`: a person's own measured points change what plans of their model and task are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvopt import api
from kvopt.accuracy.own import read_own
from kvopt.cli import main
from kvopt.errors import BadInput

HEADER = "method,dimension,model,benchmark,context_len,kept_fraction,bits,score,baseline,query_aware"
BETTER = [f"SnapKV (question hidden),token,meta-llama/Llama-3.1-8B-Instruct,RULER-avg,32768,{keep},,{score},94,no"
          for keep, score in ((0.5, 93), (0.25, 92), (0.12, 90))]  # fmt: skip
FP8 = "fp8,bits,Llama-3.1-8B-Instruct,RULER-avg,32768,,8,93.9,94,no"
WRONG = {
    "SnapKV,token,m,RULER-avg,8192,0.25,,120,94,no": "score: 120: must be at most 100",
    "SnapKV,token,m,RULER-avg,8192,0.25,,90,,no": "baseline: missing",
    "SnapKV,token,m,RULER-avg,8192,0.25,,,94,no": "score: missing",
    "SnapKV,width,m,RULER-avg,8192,0.25,,90,94,no": "dimension: width: must be one of",
    "SnapKV,token,m,RULER-avg,8192,1.25,,90,94,no": "kept_fraction: 1.25: must be above 0 and at most 1",
    "SnapKV,token,m,My exam,8192,0.25,,90,94,no": "benchmark: My exam: of no known task family",
    "SnapKV,token,,RULER-avg,8192,0.25,,90,94,no": "model: missing",
}
SCENARIO: dict[str, Any] = {
    "model": "llama-3.1-8b", "accelerator": "h100-80-sxm", "gpus": 1, "methods": "snapkv:0.25", "task": "ruler", "context": "32k", "turns": 3,
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return written(*BETTER, FP8)


def written(*rows: str) -> Path:
    path = Path("mine.csv")
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("table")
def test_what_changed_is_said_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--accuracy", "mine.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["source"], found["written"], found["readings"], found["refused"]) == (
        "accuracy",
        "mine.csv",
        "mine-evidence.yaml",
        4,
        [],
    )
    fp8, snapkv = found["changed"]
    assert (fp8["method"], snapkv["method"], snapkv["question"], snapkv["task"], snapkv["model"]) == (
        "fp8",
        "snapkv",
        "hidden",
        "ruler",
        "llama-3.1-8b",
    )
    assert snapkv["kept"] == [0.12, 0.5]
    assert snapkv["before"]["retained"] < 0.8 < snapkv["measured"]
    assert snapkv["after"]["retained"] == pytest.approx(snapkv["measured"], abs=0.02)
    before, after = (snapkv[name]["upper"] - snapkv[name]["lower"] for name in ("before", "after"))
    assert after < 0.3 * before
    text = Path("mine-evidence.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Written by kvopt calibrate --accuracy on ")
    data = yaml.safe_load(text)
    assert data["source"] == "mine.csv"
    assert data["readings"][0]["kept_fraction"] == 0.5


@pytest.mark.usefixtures("table")
def test_the_written_file_says_what_the_table_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--accuracy", "mine.csv", "--out", "own.yaml"]) == 0
    said = capsys.readouterr().out
    assert "snapkv" in said  # a narrow terminal breaks the cell
    assert "hidden" in said
    assert "--accuracy-evidence own.yaml" in said
    assert read_own("own.yaml", "x").readings == read_own("mine.csv", "x").readings
    hand = yaml.safe_load(Path("own.yaml").read_text(encoding="utf-8"))
    hand["readings"][0]["query_aware"] = False  # as YAML reads a bare no
    Path("own.yaml").write_text(yaml.safe_dump(hand), encoding="utf-8")
    assert read_own("own.yaml", "x").readings == read_own("mine.csv", "x").readings


@pytest.mark.usefixtures("table")
def test_a_file_that_is_there_stays(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine-evidence.yaml").write_text("mine\n", encoding="utf-8")
    assert main(["calibrate", "--accuracy", "mine.csv"]) == 2
    assert capsys.readouterr().err == "kvopt: out: mine-evidence.yaml: is there already; give another --out, or --force to write over it\n"
    assert Path("mine-evidence.yaml").read_text(encoding="utf-8") == "mine\n"
    assert main(["calibrate", "--accuracy", "mine.csv", "--force"]) == 0
    assert "snapkv" in Path("mine-evidence.yaml").read_text(encoding="utf-8").lower()


@pytest.mark.usefixtures("table")
def test_rows_that_cannot_be_used_are_named_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    written(FP8, *WRONG)
    assert main(["calibrate", "--accuracy", "mine.csv", "--json"]) == 0
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert [row["row"] for row in refused] == list(range(3, 3 + len(WRONG)))
    for row, why in zip(refused, WRONG.values(), strict=True):
        assert row["why"].startswith(why)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(("row", "why"), WRONG.items())
def test_nothing_left_is_bad_input(row: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(row)
    assert main(["calibrate", "--accuracy", "mine.csv"]) == 2
    said = capsys.readouterr()
    assert f"accuracy: mine.csv: nothing in it can be used; line 2: {why}" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not Path("mine-evidence.yaml").exists()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--accuracy", "nowhere.csv"], "accuracy: nowhere.csv: cannot be read"),
        (["--accuracy", "mine.csv", "mine.csv"], "takes a FILE, --accuracy FILE or --probe, one of them"),
        (["--accuracy", "mine.csv", "--probe"], "takes a FILE, --accuracy FILE or --probe, one of them"),
        (["--accuracy", "mine.csv", "--tp", "2"], "tp: 2: says nothing of accuracies"),
        (["--accuracy", "mine.csv", "--out", "mine.csv"], "out: mine.csv: must end in .yaml or .yml"),
    ],
)
def test_bad_words_are_one_line(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *words]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("table")
def test_files_that_are_no_evidence() -> None:
    Path("empty.csv").write_text(HEADER + "\n", encoding="utf-8")
    Path("other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("other.yaml").write_text("a: 1\n", encoding="utf-8")
    Path("list.yaml").write_text("source: x\nreadings: 3\n", encoding="utf-8")
    for name, why in (
        ("empty.csv", "has a header and no rows"),
        ("other.csv", "needs the columns"),
        ("other.yaml", "must be given in other.yaml"),
        ("list.yaml", "input should be a valid"),
    ):
        with pytest.raises(BadInput, match=why):
            read_own(name, "accuracy_evidence")


@pytest.mark.usefixtures("table")
def test_a_model_may_be_told_where_the_rows_do_not_say(capsys: pytest.CaptureFixture[str]) -> None:
    written(FP8.replace("Llama-3.1-8B-Instruct", ""))
    assert main(["calibrate", "--accuracy", "mine.csv", "--model", "llama-3.1-8b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"][0]["model"] == "llama-3.1-8b"
    assert not api.analyze(**SCENARIO, accuracy_evidence="mine.csv").warnings  # the scenario's model


@pytest.mark.usefixtures("table")
def test_methods_outside_the_catalog_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    written("My method,token,Llama-3.1-8B-Instruct,RULER-avg,8192,0.25,,90,94,no")
    assert main(["calibrate", "--accuracy", "mine.csv", "--json"]) == 0
    assert "not a token method of the catalog" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.usefixtures("table")
def test_plans_follow_own_measurements() -> None:
    """Much better ones than were published: the plan meets its floor, and its interval is narrower. Table and written file say the same."""
    assert main(["calibrate", "--accuracy", "mine.csv", "--out", "own.yaml"]) == 0
    published, own, again = (api.analyze(**SCENARIO, **more) for more in ({}, {"accuracy_evidence": "mine.csv"}, {"accuracy_evidence": "own.yaml"}))
    before, after = (result.data["metrics"] for result in (published, own))
    assert not published.feasible
    assert own.feasible
    assert (before["accuracy_retained"] or 0) < 0.7
    assert after["accuracy_retained"] > 0.95
    assert after["accuracy_retained"] - after["accuracy_lower"] < 0.02
    assert again.data["metrics"] == after
    assert (published.data["evidence"], own.data["evidence"]) == ("extrapolated", "interpolated")
    assert own.data["scenario"]["accuracy_evidence"] == "mine.csv"


@pytest.mark.usefixtures("table")
def test_what_own_measurements_cannot_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    written(*BETTER, next(iter(WRONG)))
    other = api.analyze(**{**SCENARIO, "model": "qwen2.5-7b-instruct", "accuracy_evidence": "mine.csv"})
    assert any("line 5 not used: score: 120" in said for said in other.warnings)
    assert any("none of its 3 readings is of qwen2.5-7b-instruct" in said for said in other.warnings)
    assert main(["analyze", "--accuracy-evidence", "nowhere.csv"]) == 2
    assert capsys.readouterr().err == "kvopt: accuracy_evidence: nowhere.csv: cannot be read (No such file or directory)\n"
    Path("asked.yaml").write_text("accuracy_evidence: nowhere.yaml\n", encoding="utf-8")
    assert main(["analyze", "--config", "asked.yaml"]) == 2
    assert "accuracy_evidence: nowhere.yaml: cannot be read" in capsys.readouterr().err
