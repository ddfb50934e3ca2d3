"""Rows of measurements: which benchmark each is, in which formats, and what is refused."""

from __future__ import annotations

import pytest

from kvopt.calibration.measurement import UNCHUNKED, generation, kv_bits, read
from kvopt.errors import BadInput

ROW = {"model": "llama-3.1-8b", "gpu": "h100-sxm", "engine": "vLLM", "version": "0.19.0", "prompt_len": "1024", "output_len": "128", "tpot_ms": "9"}


def row(**changes: str) -> dict[str, str]:
    """A decode step, but for the changes."""
    return {**ROW, **changes}


@pytest.mark.parametrize(
    ("changes", "experiment"),
    [
        ({}, "steps"),
        ({"note": "closed-loop, 32 clients", "batch": "32"}, "closed loop"),
        ({"ttft_s": "0.3"}, "closed loop"),
        ({"e2e_s": "3"}, "batch"),
        ({"tpot_ms": "", "prefill_s": "0.2"}, "batch"),
        ({"tpot_ms": "", "e2e_s": "3", "kind": "offload"}, "transfer"),
        ({"tpot_ms": "", "throughput_tok_s": "900", "batch": "64"}, "closed loop"),
        ({"tpot_ms": "", "throughput_tok_s": "900"}, "max load"),
    ],
)
def test_the_experiment_follows_from_what_was_measured(changes: dict[str, str], experiment: str) -> None:
    found = read(row(**changes), 7)
    assert found.experiment == experiment
    assert found.line == 7


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, {"new": 1024, "cached": 0, "output": 128, "batch": 1, "gpus": 1, "tp": 1, "pp": 1, "stream": 1, "measured": {"tpot_ms": 9.0}}),
        ({"batch": "8", "num_gpus": "4", "tp": "2"}, {"batch": 8, "gpus": 4, "tp": 2}),
        ({"cached_len": "1000"}, {"new": 24, "cached": 1000}),
        ({"cached_len": "1024"}, {"new": 0, "cached": 1024}),
        ({"note": "24 new on top of 1000 cached"}, {"new": 24, "cached": 1000}),
        ({"note": "on top of 1000 cached", "cached_len": "500"}, {"new": 524, "cached": 500}),
        ({"pp": "4"}, {"pp": 4}),
        ({"note": "PP=2, TP=4"}, {"pp": 2}),
        ({"stream_interval": "20"}, {"stream": 20}),
        ({"engine": "TensorRT-LLM", "version": "1.2", "output_len": "1024", "note": "InferenceMAX"}, {"stream": 20}),
        ({"engine": "TensorRT-LLM", "version": "1.2", "output_len": "1024", "note": "InferenceMAX", "tp": "8"}, {"stream": 1}),
        ({"throughput_basis": "output_per_gpu"}, {"per_gpu": True, "counts_prompt": False}),
        ({"throughput_basis": "total"}, {"per_gpu": False, "counts_prompt": True}),
        ({"weight_dtype": "BFloat16"}, {"weights": "bf16"}),
        ({"weight_dtype": "int4-awq"}, {"weights": "int4"}),
        ({"weight_dtype": "", "model": "deepseek-v3"}, {"weights": "fp8"}),
    ],
)
def test_what_a_row_says(changes: dict[str, str], fields: dict[str, object]) -> None:
    found = read(row(**changes), 2)
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("engine", "version", "named"),
    [
        ("vLLM", "", "vllm"), ("vLLM", "0.19.0", "vllm"), ("vLLM", "v0.8.5", "vllm"), ("vLLM", "0.7.3", "vllm-0.6"), ("vLLM", "0.4.2", "vllm-0.4"),
        ("vLLM-ROCm", "0.9", "vllm-rocm"), ("vLLM eager", "0.9", "vllm-eager"), ("TensorRT-LLM", "0.9.0", "trtllm-0"), ("trtllm", "1.2.0rc6", "trtllm"),
        ("TensorRT-LLM", "gpt-oss-dev", "trtllm"), ("SGLang", "0.4.6", "sglang-0.4"), ("sglang", "0.5.9", "sglang"), ("llama.cpp", "b4000", "llama.cpp"),
        ("LMDeploy (TurboMind)", "0.6", "lmdeploy"),
    ],
)  # fmt: skip
def test_generations_of_engines(engine: str, version: str, named: str) -> None:
    assert generation(engine, version) == named


def test_bits_of_the_cache_as_stated_or_as_the_engine_chooses() -> None:
    assert (kv_bits("fp8", "vllm", "bf16"), kv_bits("bf16", "vllm", "fp8"), kv_bits("int8", "trtllm-0", "fp16")) == (8, 16, 8)
    assert (kv_bits("", "vllm", "bf16"), kv_bits("", "vllm", "fp8"), kv_bits("", "trtllm", "nvfp4")) == (16, 8, 8)
    assert (kv_bits("", "vllm-0.6", "fp8"), kv_bits("", "trtllm-0", "fp8")) == (16, 16)


@pytest.mark.parametrize(
    ("engine", "version", "gpu", "chunk"),
    [
        ("vLLM", "0.19", "h100-sxm", 8192), ("vLLM", "0.19", "b200", 16384), ("vLLM", "0.19", "rtx-4090", 2048), ("SGLang", "0.5.9", "h200-sxm", 8192),
        ("vLLM", "0.6.3", "h100-sxm", UNCHUNKED), ("TensorRT-LLM", "1.0", "h100-sxm", 8192), ("TensorRT-LLM", "0.9", "h100-sxm", UNCHUNKED),
        ("llama.cpp", "", "rtx-4090", 512),
    ],
)  # fmt: skip
def test_the_chunk_is_the_engines_default(engine: str, version: str, gpu: str, chunk: float) -> None:
    assert read(row(engine=engine, version=version, gpu=gpu), 2).chunk == chunk


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ""}, "model: missing"),
        ({"model": "nobody/never-heard-of-9b"}, "never-heard-of-9b: not known"),
        ({"gpu": ""}, "gpu: missing"),
        ({"gpu": "NVIDIA H999"}, "NVIDIA H999: not known"),
        ({"engine": " "}, "engine: missing"),
        ({"engine": "internal, context parallel x4"}, "engine: internal, context parallel x4: one prompt over several groups"),
        ({"prompt_len": ""}, "prompt_len: missing"),
        ({"prompt_len": "-1"}, "prompt_len: -1: must be a number above 0, or 0"),
        ({"batch": "-4"}, "batch: -4: must be a number above 0"),
        ({"batch": "0"}, "batch: 0: must be a number above 0"),
        ({"cached_len": "2000"}, "cached_len: 2000: must not exceed prompt_len, 1024"),
        ({"tpot_ms": "fast"}, "tpot_ms: fast: must be a number above 0"),
        ({"tpot_ms": "nan"}, "tpot_ms: nan"),
        ({"tpot_ms": "inf"}, "tpot_ms: inf"),
        ({"tpot_ms": "0"}, "tpot_ms: 0"),
        ({"output_len": "1e999"}, "output_len: 1e999"),
        ({"num_gpus": "0"}, "num_gpus: 0"),
        ({"tp": "two"}, "tp: two"),
        ({"pp": "-1"}, "pp: -1"),
        ({"stream_interval": "nan"}, "stream_interval: nan"),
        ({"weight_dtype": "ternary"}, "weight format: ternary"),
        ({"tpot_ms": ""}, "row: 3: holds none of prefill_s"),
    ],
)
def test_refusals_name_the_field_and_its_value(changes: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(row(**changes), 3)
    assert said in str(refused.value)
