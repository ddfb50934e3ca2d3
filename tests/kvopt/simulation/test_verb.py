"""`kvopt simulate` and `kvopt optimize --verify`, from the outside."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

import kvopt
from kvopt import cli
from kvopt.simulation.report import verdict

SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": 4000, "turns": 2, "answer": 40, "think": "2s"}


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compilation cache: that is a choice for the whole process."""
    monkeypatch.setattr(cli, "keep_compiled", lambda: None)


@pytest.fixture(scope="module")
def result() -> kvopt.Result:
    return kvopt.simulate(**SMALL, users=4, requests=150)


def test_same_seed_same_answer(result: kvopt.Result) -> None:
    again = kvopt.simulate(**SMALL, users=4, requests=150)
    assert again.data == result.data
    other = kvopt.simulate(**SMALL, users=4, requests=150, seed=1)
    assert other.data["simulation"] != result.data["simulation"]


def test_the_object(result: kvopt.Result) -> None:
    data = json.loads(result.to_json())
    assert {"scenario", "plan", "traffic", "simulation", "closed_form", "ratio"} <= data.keys()
    for name in ("ttft_s", "tpot_s", "queueing_s", "e2e_s"):
        spread = data["simulation"][name]
        assert spread["p50"] <= spread["p90"] <= spread["p95"] <= spread["p99"]
    assert data["simulation"]["requests"] == 150
    assert all(0 <= share <= 1.0001 for share in data["simulation"]["utilisation"].values())
    assert data["ratio"]["sessions_per_gpu_hour"] == pytest.approx(1, abs=0.1)


def test_littles_law(result: kvopt.Result) -> None:
    found = result.data["simulation"]
    think_s = 2.0 / 2  # one pause in two turns
    cycle_s = found["e2e_s"]["mean"] + think_s
    assert found["requests"] / found["seconds"] * cycle_s == pytest.approx(4, rel=0.1)


def test_rows_save_and_print(result: kvopt.Result, tmp_path: Any) -> None:
    assert [row["figures"] for row in result.rows()] == ["simulation", "closed_form", "ratio"]
    assert kvopt.load(result.save(tmp_path)).data == result.data
    text = str(result)
    assert "4 users of one group" in text
    assert "Per output token" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_rate_and_constant_thinking() -> None:
    found = kvopt.simulate(**SMALL, rate=0.5, duration="200s", thinking="constant").data
    assert found["simulation"]["sessions_per_gpu_hour"] == pytest.approx(0.5 * 3600, rel=0.25)
    assert found["closed_form"]["sessions_per_gpu_hour"] == pytest.approx(0.5 * 3600, rel=0.02)


def test_a_plan_of_a_result(result: kvopt.Result) -> None:
    assert kvopt.simulate(plan=result.data["plan"], **SMALL, users=4, requests=150).data["plan"] == result.data["plan"]


def test_a_prompt_longer_than_the_pool(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--model", "llama-3.1-8b", "--accelerator", "rtx-4090", "--gpus", "1", "--context", "200k", "--users", "1"]
    assert cli._run(cli.arguments.parse(words)) == 1
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) == 1
    assert "blocks of 16" in said[0]
    assert "GiB" in said[0]


@pytest.mark.parametrize("option", ["--users 0", "--rate -1", "--duration 0", "--users 2 --rate 1", "--trace nowhere.csv", "--kv-tokens x"])
def test_bad_input(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", *option.split()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_verdict() -> None:
    found = {
        "ttft_worse_s": {"p95": 1.5},
        "tpot_s": {"p95": 0.02},
        "sessions_per_gpu_hour": 100.0,
        "traffic": {"users": 7},
        "holds_at_p95": True,
    }
    line = verdict(found, {"ttft_s": 2.0, "tpot_s": 0.05})
    assert line.startswith("Simulated with 7 users a group: 100 sessions per GPU-hour; the plan holds its targets at p95: time to first token 1.5")


def test_a_verified_plan() -> None:
    problem = kvopt.api.resolve(kvopt.Scenario.of(**SMALL))  # type: ignore[attr-defined]
    from kvopt import named
    from kvopt.simulation.verb import verified

    found = verified(problem, named.best_case(problem))
    assert isinstance(found["holds_at_p95"], bool)
    assert math.isfinite(found["ttft_worse_s"]["p95"])


def test_the_command_prints_one_object_and_saves(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--model", "llama-3.1-8b", "--accelerator", "h100-sxm", "--gpus", "1", "--context", "4k", "--turns", "1"]
    words = ["simulate", *question, "--users", "2", "--requests", "20", "--json", "--out", str(tmp_path)]
    assert cli._run(cli.arguments.parse(words)) == 0
    assert json.loads(capsys.readouterr().out)["traffic"]["users"] == 2
    assert kvopt.load(tmp_path).kind == "simulate"
    again = ["simulate", *question, "--users", "2", "--requests", "20", "--plan", str(tmp_path)]
    assert cli._run(cli.arguments.parse(again)) == 0
