"""A real run of vLLM 0.19 replayed: RTX 4090, Llama-3.1-8B, 300 requests, 2,588 blocks of 16 tokens."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvopt.problem import Problem
from kvopt.simulation.verb import simulate
from objectives.types import System, replace

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "serving_runs"
FOLDERS = (FOLDER, Path(__file__).parents[4] / "shared" / "data" / "serving_runs")
RUN = "vllm0.19_RTX4090_Llama-3.1-8B"
FOUND = next((folder for folder in FOLDERS if (folder / f"{RUN}_requests.csv").exists()), None)
REACHED = {"mfu": 0.8, "mfu_attention": 0.8, "mbu": 0.95, "mbu_kv": 0.63, "prefill_layer_s": 20e-6, "decode_layer_s": 0.0, "sequence_s": 0.0}
"""Efficiencies at which the run's own step times are met: pure decode steps of its time series, and prefill of its first seconds."""

pytestmark = pytest.mark.skipif(FOUND is None, reason="the collected evidence is not beside the repository")


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    assert FOUND is not None
    with (FOUND / f"{RUN}_requests.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    queued, first, last, tokens = (
        np.array([float(row[name]) for row in rows]) for name in ("queued_ts", "first_token_ts", "last_token_ts", "output_toks")
    )
    return {
        "tokens_s": tokens.sum() / (last.max() - queued.min()),
        "ttft_s": float(np.median(first - queued)),
        "tpot_s": float(np.median((last - first) / (tokens - 1))),
        "preemptions": preempted(rows),
    }


def preempted(rows: list[dict[str, str]]) -> float:
    """At least so many: rises, from one second to the next, in the number of those who wait although they were scheduled before."""
    assert FOUND is not None
    with (FOUND / f"{RUN}_timeseries.csv").open(encoding="utf-8") as file:
        ticks = list(csv.DictReader(file))
    queued, scheduled = (np.array([float(row[name]) for row in rows]) for name in ("queued_ts", "scheduled_ts"))
    start = queued.min()
    again = [float(tick["waiting"]) - np.sum(queued - start <= float(tick["t"])) + np.sum(scheduled - start <= float(tick["t"])) for tick in ticks]
    return float(np.maximum(np.diff(again), 0).sum())


def replayed() -> dict[str, Any]:
    assert FOUND is not None
    meta = json.loads((FOUND / f"{RUN}_meta.json").read_text(encoding="utf-8"))
    engine, cache = meta["engine_kwargs"], meta["kv_cache"]
    result = simulate(
        model="llama-3.1-8b",
        accelerator="rtx-4090",
        gpus=1,
        trace=str(FOUND / f"{RUN}_requests.csv"),
        kv_tokens=cache["num_kv_tokens"],
        chunk=engine["max_num_batched_tokens"],
        max_num_seqs=engine["max_num_seqs"],
    )
    found: dict[str, Any] = result.data["simulation"]
    return found


def check(found: dict[str, Any], measured: dict[str, float]) -> None:
    assert found["requests"] == 300
    assert found["output_tokens_per_gpu_s"] == pytest.approx(measured["tokens_s"], rel=0.10)
    assert found["tpot_s"]["p50"] == pytest.approx(measured["tpot_s"], rel=0.10)
    assert found["ttft_s"]["p50"] == pytest.approx(measured["ttft_s"], rel=0.25)
    assert 0.5 * measured["preemptions"] < found["preemptions"] < 3 * measured["preemptions"]


def test_the_run_is_met_at_its_own_step_times(measured: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    system = Problem.system

    def reached(self: Problem, *given: Any) -> System:
        made = system(self, *given)
        return replace(made, efficiency=replace(made.efficiency, **{name: np.float64(value) for name, value in REACHED.items()}))

    monkeypatch.setattr(Problem, "system", reached)
    check(replayed(), measured)


def test_the_run_is_met_with_the_calibrated_profile(measured: dict[str, float]) -> None:
    check(replayed(), measured)


def test_it_takes_seconds_and_says_the_same_again() -> None:
    started = time.process_time()
    once = replayed()
    assert time.process_time() - started < 10  # compiling included, on a busy machine; 2 s of it are the simulation
    assert replayed() == once
