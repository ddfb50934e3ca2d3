"""Results of `vllm bench serve --save-result` as rows of measurements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvopt.calibration.bench_json import rows
from kvopt.errors import BadInput

GIVEN = {"gpu": "h100-sxm", "tp": "2"}


def run(**changed: Any) -> dict[str, Any]:
    kept = {
        "date": "20250801-101500",
        "endpoint_type": "vllm",
        "label": None,
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "tokenizer_id": "meta-llama/Llama-3.1-8B-Instruct",
        "num_prompts": 320,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": 32,
        "duration": 130.2,
        "completed": 320,
        "total_input_tokens": 327680,
        "total_output_tokens": 40960,
        "request_throughput": 2.45,
        "output_throughput": 314.6,
        "total_token_throughput": 2831.3,
        "mean_ttft_ms": 1210.4,
        "median_ttft_ms": 1180.2,
        "p99_ttft_ms": 2405.1,
        "mean_tpot_ms": 16.2,
        "median_tpot_ms": 16.0,
        "p99_tpot_ms": 19.9,
    }
    return {**kept, **changed}


def only(data: Any, **given: str) -> Any:
    ((_, found),) = rows(json.dumps(data), "bench.json", {**GIVEN, **given})
    return found


def test_a_run_is_a_row_of_means() -> None:
    row = only(run())
    assert row["gpu"] == "h100-sxm"
    assert (row["engine"], row["tp"], row["num_gpus"], row["batch"]) == ("vllm", "2", "2", "32")
    assert (row["prompt_len"], row["output_len"]) == ("1024", "128")
    assert (row["ttft_s"], row["tpot_ms"], row["throughput_tok_s"]) == ("1.2104", "16.2", "314.6")


def test_older_keys_and_quantised_checkpoints() -> None:
    old = {name: value for name, value in run(backend="vllm").items() if name != "endpoint_type"}
    assert only(old)["engine"] == "vllm"
    assert only(run(model_id="RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic"))["weight_dtype"] == "fp8"
    assert only(run(), model="qwen3-8b", engine="sglang")["model"] == "qwen3-8b"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"max_concurrency": None}, "max_concurrency: missing"),
        ({"request_rate": 4.0}, "request_rate: 4.0"),
        ({"mean_ttft_ms": 0.0}, "mean_ttft_ms: 0.0: must be a number above 0"),
        ({"completed": 0}, "completed: 0"),
        ({"mean_tpot_ms": None}, "mean_tpot_ms: None"),
    ],
)
def test_runs_that_cannot_be_used_say_why(changed: dict[str, Any], why: str) -> None:
    found = only(run(**changed))
    assert isinstance(found, BadInput)
    assert why in str(found)


def test_missing_keys_are_named() -> None:
    found = only({name: value for name, value in run().items() if name not in ("mean_ttft_ms", "completed")})
    assert "completed, mean_ttft_ms: not the result of vllm bench serve" in str(found)


def test_appended_runs_are_one_per_line() -> None:
    text = "\n".join(json.dumps(run(max_concurrency=n)) for n in (1, 8))
    found = rows(text, "bench.jsonl", GIVEN)
    assert [(line, row["batch"]) for line, row in found if isinstance(row, dict)] == [(1, "1"), (2, "8")]


def test_no_json_is_refused() -> None:
    with pytest.raises(BadInput, match=r"bench\.json: not JSON, line 1"):
        rows('{"mean_ttft_ms": ', "bench.json", GIVEN)
