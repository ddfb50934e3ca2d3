"""`--engine any`: the engine that serves most, what each would give, and both optima."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

import kvopt
from kvopt import cli
from kvopt.report import text

ONE = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
WORDS = [f"--{name}={value}" for name, value in ONE.items()]


def rates(data):
    return {row["engine"]: row["sessions_per_gpu_hour"] for row in data["engines"]}


@pytest.fixture(scope="module")
def anyone(tmp_path_factory):
    """One run of the command line, which prints and writes the same."""
    folder, printed = tmp_path_factory.mktemp("any"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["optimize", *WORDS, "--engine", "any", "--json", "--out", str(folder)]) == 0
    found = kvopt.load(folder)
    assert json.loads(printed.getvalue()) == found.data
    assert "fp8: engine-ready" in (folder / "points.csv").read_text()
    return found


def test_optimize_takes_the_best_engine(anyone):
    data = anyone.data
    assert data["scenario"]["engine"] == "any"
    found = rates(data)
    assert set(found) == {"hf", "lmdeploy", "sglang", "trtllm", "vllm"}
    assert max(found, key=found.get) == data["plan"]["engine"] == data["engines"][0]["engine"]
    assert data["metrics"]["sessions_per_gpu_hour"] == pytest.approx(max(found.values()))
    best = max(row["research_sessions_per_gpu_hour"] for row in data["engines"])
    assert data["research"]["metrics"]["sessions_per_gpu_hour"] == pytest.approx(best)
    more = 100 * (best / max(found.values()) - 1)
    assert data["gap"]["sessions_per_gpu_hour_percent"] == pytest.approx(more)
    assert set(data["gap"]["methods"]) <= set(data["research"]["plan"]["methods"])


def test_any_is_no_less_than_one_engine(anyone):
    alone = kvopt.optimize(**ONE, engine="vllm")
    assert alone.data["metrics"]["sessions_per_gpu_hour"] == pytest.approx(rates(anyone.data)["vllm"])
    assert "engines" not in alone.data
    assert all(entry["engine"] == "vllm" for entry in alone.data["plan"]["settings"])


def test_the_report_names_the_engine_and_the_others(anyone):
    said = text(anyone)
    assert f"Today     {anyone.data['plan']['engine']} with " in said
    assert "By engine" in said
    assert "Gap " in said
    assert all(any(line.startswith(f"{engine} ") for line in said.splitlines()) for engine in rates(anyone.data))
    again = kvopt.evaluate(anyone.data["plan"], **ONE, engine="any")
    assert again.data["metrics"]["sessions_per_gpu_hour"] == pytest.approx(anyone.data["metrics"]["sessions_per_gpu_hour"], rel=1e-6)


def test_analyze_takes_an_engine_that_runs_the_methods():
    plain = kvopt.analyze(**ONE, engine="any")
    assert plain.data["plan"]["engine"] == max(rates(plain.data), key=lambda name: rates(plain.data)[name] or 0)
    rocket = kvopt.analyze(**ONE, engine="any", methods="rocketkv:0.5", turns=1).data
    assert rocket["plan"]["engine"] == "trtllm"
    assert {row["why"] for row in rocket["engines"] if row["engine"] != "trtllm"} == {"does not run these methods"}
    nowhere = kvopt.analyze(**ONE, engine="any", methods="palu:0.5", accuracy_floor=0.5).data
    assert nowhere["plan"]["where"] == "research library"
    assert rates(nowhere)["vllm"] > 0


def test_nothing_fits_any_engine():
    found = kvopt.optimize(model="llama-3.1-70b", accelerator="h100-sxm", gpus=1, engine="any")
    assert not found.feasible
    assert {row["why"] for row in found.data["engines"]} == {"the weights do not fit"}
    assert found.data["gap"]["methods"] == []
    assert "the weights do not fit" in text(found)


def test_simulate_plays_the_best_engines_plan():
    found = kvopt.simulate(**ONE, engine="any", requests=20)
    assert found.data["plan"]["engine"] in rates(kvopt.analyze(**ONE, engine="any").data)
