"""A row of somebody's measurements as a benchmark that the mathematics can repeat: names resolved, formats known, the kind of experiment told."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from kvopt.errors import BadInput
from kvopt.inputs.accelerator import AcceleratorSpec, read_accelerator
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.model import ModelSpec

FORMATS = {
    "f16": "fp16",
    "float16": "fp16",
    "bfloat16": "bf16",
    "fp4": "nvfp4",
    "fp8_block": "fp8",
    "fp8_e4m3": "fp8",
    "int4-gptq": "int4",
    "int4-awq": "int4",
    "awq": "int4",
    "gptq": "int4",
    "int8-gptq": "int8",
    "w8a16": "int8",
}
"""Weight formats as logs write them, under the catalog's names."""
UNCHUNKED = 1e7  # tokens
QUANTITIES = ("prefill_s", "ttft_s", "tpot_ms", "e2e_s", "throughput_tok_s")


@dataclass(frozen=True)
class Measurement:
    """One row, resolved."""

    line: int
    model: ModelSpec
    accelerator: AcceleratorSpec
    engine: str  # generation, see `generation`
    weights: str
    kv_bits: float
    gpus: float
    tp: float
    pp: float
    new: float
    cached: float
    output: float
    batch: float
    chunk: float
    stream: float  # tokens that the server sends at a time
    experiment: str  # batch, steps, closed loop, max load, transfer
    measured: Mapping[str, float]
    per_gpu: bool  # throughput is stated per GPU
    counts_prompt: bool  # throughput counts the prompt's tokens too


def generation(engine: str, version: str) -> str:
    """The engine's name and, where its step times changed much, its generation: vllm-0.4, vllm-0.6, trtllm-0, sglang-0.4."""
    name, number = engine.lower(), _version(version)
    if "eager" in name:
        return f"{re.split('[^a-z.]', name)[0]}-eager"
    if name.startswith("vllm"):
        if "rocm" in name:
            return "vllm-rocm"
        return "vllm" if number is None or number >= (0, 8) else "vllm-0.6" if number >= (0, 5) else "vllm-0.4"
    if name.startswith(("tensorrt", "trt")):
        return "trtllm-0" if number is not None and number < (0, 15) else "trtllm"
    if name.startswith("sglang"):
        return "sglang-0.4" if number is not None and number < (0, 5) else "sglang"
    return name.split("+")[0].split("(")[0].strip()


def _version(text: str) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)", text.strip())
    return tuple(int(part) for part in found.groups()) if found else None


def read(row: Mapping[str, str], line: int) -> Measurement:
    """The measurement of one row. Raises `BadInput` with the field that is missing, impossible or not known."""
    model, accelerator = _model(_text(row, "model")), _accelerator(_text(row, "gpu"))
    note = row.get("note", "")
    eager = " (eager)" if "eager" in note else ""
    engine = generation(_text(row, "engine") + eager, row.get("version", ""))
    weights = row.get("weight_dtype", "").lower() or model.weight_format
    weights = FORMATS.get(weights, weights)
    model.checkpoint(weights)
    measured = {name: _number(row, name) for name in QUANTITIES if row.get(name, "").strip()}
    if not measured:
        raise BadInput("row", line, f"holds none of {', '.join(QUANTITIES)}")
    prompt, output = _number(row, "prompt_len", zero=True), _number(row, "output_len", zero=True, default=0.0)
    batch = _number(row, "batch", default=math.nan)
    on_top, stages = re.search(r"on top of (\d+) cached", note), re.search(r"\bPP=(\d+)", note)
    cached = _number(row, "cached_len", zero=True, default=float(on_top.group(1)) if on_top else 0.0)
    if cached > prompt:
        raise BadInput("cached_len", f"{cached:g}", f"must not exceed prompt_len, {prompt:g}")
    gpus, tp = _number(row, "num_gpus", default=1.0), _number(row, "tp", default=1.0)
    if tp != int(tp) or model.query_heads % int(tp):
        raise BadInput("tp", f"{tp:g}", f"must be a whole number that divides the {model.query_heads} query heads of {model.name}")
    if "context parallel" in engine:
        raise BadInput("engine", row["engine"], "one prompt over several groups (ring attention) is not modelled")
    kind = row.get("kind", "")
    if kind == "offload":
        experiment = "transfer"
    elif measured.keys() & {"e2e_s", "prefill_s"}:
        experiment = "batch"
    elif "ttft_s" in measured or ("tpot_ms" in measured and "closed-loop" in note):
        experiment = "closed loop"
    elif "tpot_ms" in measured:
        experiment = "steps"
    else:
        experiment = "max load" if math.isnan(batch) else "closed loop"
    basis = row.get("throughput_basis", "")
    return Measurement(
        line=line,
        model=model,
        accelerator=accelerator,
        engine=engine,
        weights=weights,
        kv_bits=kv_bits(row.get("kv_dtype", ""), engine, weights),
        gpus=gpus,
        tp=tp,
        pp=_number(row, "pp", default=float(stages.group(1)) if stages else 1.0),
        new=prompt - cached,
        cached=cached,
        output=output,
        batch=1.0 if math.isnan(batch) else batch,
        chunk=chunk(engine, accelerator),
        stream=_number(row, "stream_interval", default=streamed(engine, tp, prompt, output, note)),
        experiment=experiment,
        measured=measured,
        per_gpu=basis == "output_per_gpu",
        counts_prompt=basis == "total",
    )


def kv_bits(stated: str, engine: str, weights: str) -> float:
    """Bits of the cache: as stated; else 8 for FP8 and NVFP4 checkpoints, which bring an FP8 cache in serving benchmarks (the memory that the InferenceMAX
    runs of 70B models need says so), and 16. Before TensorRT-LLM 1.0, vLLM 0.8 and SGLang 0.5 a cache was 16 bit unless stated.
    """
    if stated:
        return 8.0 if "8" in stated else 16.0
    return 8.0 if weights in ("fp8", "nvfp4") and engine in ("trtllm", "vllm", "nim", "sglang") else 16.0


def streamed(engine: str, tp: float, prompt: float, output: float, note: str) -> float:
    """[tokens] that the server sends at a time, where the row does not say: one; 20 in InferenceMAX's TensorRT-LLM runs of 1K prompts and 1K answers on up
    to four accelerators, whose first token comes 17 to 20 decode steps later than that of their twins, on H200 and B200, at every concurrency.
    """
    return 20.0 if engine == "trtllm" and tp < 8 and prompt == output == 1024 and "InferenceMAX" in note else 1.0


def chunk(engine: str, accelerator: AcceleratorSpec) -> float:
    """[tokens] of a prompt per step: the engines' defaults; before vLLM 0.8 and in TensorRT-LLM a prompt goes in whole, up to 8192 tokens."""
    if engine == "llama.cpp":
        return 512.0
    if engine in ("vllm", "vllm-eager", "sglang", "sglang-0.4"):
        big = accelerator.memory.value / 2**30
        return 16384.0 if big >= 160 else 8192.0 if big >= 70 else 2048.0
    return 8192.0 if engine == "trtllm" else UNCHUNKED


_model, _accelerator = cache(read_model), cache(read_accelerator)  # a file of measurements names the same few again and again


def _text(row: Mapping[str, str], name: str) -> str:
    value = row.get(name, "").strip()
    if not value:
        raise BadInput(name, "missing", "must be given")
    return value


def _number(row: Mapping[str, str], name: str, zero: bool = False, default: float | None = None) -> float:
    text = row.get(name, "").strip()
    if not text and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 or (zero and value == 0)) or math.isinf(value):
        raise BadInput(name, text or "missing", "must be a number above 0" + (", or 0" if zero else ""))
    return value
