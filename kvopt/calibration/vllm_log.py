"""What a vLLM server prints when it starts, as numbers: memory by what takes it, the pool, and the settings that it ran with. One start per log.

The lines of vLLM 0.2 to 0.31, as public logs have them. "GB" in them is GiB (vllm/utils: bytes / 2**30). Where ranks differ the fullest one counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kvopt.errors import BadInput

GIB = 2.0**30
SIZE = r"\s*\(?(-?\d+(?:\.\d+)?)\s*(?:GiB|GB)"
SHARE = r"(0?\.\d+|1(?:\.0*)?)(?![\d.])"
COUNT = r"(\d[\d,]*)"


@dataclass(frozen=True)
class StartupLog:
    """Everything found, None where the log does not say. Memory is of one GPU."""

    version: str | None = None
    model: str | None = None
    tp: int | None = None
    pp: int | None = None
    dtype: str | None = None
    quantization: str | None = None  # "None" where the log says that there is none
    kv_cache_dtype: str | None = None
    eager: bool | None = None
    utilisation: float | None = None  # share of all memory that the engine may use
    max_model_len: int | None = None  # [tokens]
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None  # [tokens]
    total_gib: float | None = None  # memory that the driver reports [GiB]
    requested_gib: float | None = None  # share of it that the engine takes [GiB]
    weights_gib: float | None = None
    activation_gib: float | None = None  # peak of the profiled step [GiB]
    non_torch_gib: float | None = None
    graphs_gib: float | None = None  # CUDA graphs [GiB]
    graphs_estimated_gib: float | None = None
    kv_gib: float | None = None  # the pool [GiB]
    kv_tokens: int | None = None  # as printed: see `kvopt.capacity` for what it means where layers differ
    gpu_blocks: int | None = None
    cpu_blocks: int | None = None
    concurrency: float | None = None  # requests of max_model_len
    engine_args: str | None = None  # the line that states the settings

    @property
    def total_bytes(self) -> float | None:
        """Memory of one GPU [bytes], as stated, or as its stated share implies."""
        if self.total_gib:
            return self.total_gib * GIB
        return self.requested_gib / self.utilisation * GIB if self.requested_gib and self.utilisation else None


@dataclass(frozen=True)
class Line:
    """How a field is read: patterns in order of trust, what makes a value of the text, and which value counts where ranks print several."""

    patterns: Sequence[str]
    value: Callable[[str], Any]
    of: Callable[[list[Any]], Any] = lambda values: values[0]


def _gib(*patterns: str, of: Callable[[list[Any]], Any] = max) -> Line:
    return Line(patterns, float, of)


def _count(*patterns: str, of: Callable[[list[Any]], Any] = lambda values: values[0]) -> Line:
    return Line(patterns, lambda text: int(text.replace(",", "")), of)


def _text(*patterns: str) -> Line:
    return Line(patterns, str)


LINES: dict[str, Line] = {
    "version": _text(r"LLM engine \(v([^)\s]+)\)", r"vLLM API server version v?(\S+)", r"\bversion\s+v?(\d+\.\d+\S*)"),
    "model": _text(
        r"with config: model='([^']+)'",
        r"'model': '([^']+)'",
        r"'model_tag': '([^']+)'",
        r"Starting to load model (\S+?)\.\.\.",
        r"\bvllm serve (\S+)",
    ),
    "tp": _count(r"tensor_parallel_size=(\d+)", r"'tensor_parallel_size': (\d+)", r"(?:--tensor-parallel-size|-tp)[= ](\d+)"),
    "pp": _count(r"pipeline_parallel_size=(\d+)", r"'pipeline_parallel_size': (\d+)", r"(?:--pipeline-parallel-size|-pp)[= ](\d+)"),
    "dtype": _text(r"\bdtype=(?:torch\.)?(\w+)"),
    "quantization": _text(r"\bquantization=([\w.-]+)", r"'quantization': '([^']+)'"),
    "kv_cache_dtype": _text(r"\bkv_cache_dtype=([\w.]+)", r"'kv_cache_dtype': '([^']+)'"),
    "eager": Line((r"enforce_eager=(True|False)", r"'enforce_eager': (True|False)", r"(--enforce-eager)"), lambda text: text != "False"),
    "utilisation": Line(
        (
            rf"gpu_memory_utilization\s*\(?{SHARE}\)",
            rf"current --gpu-memory-utilization={SHARE}",
            rf"Desired GPU memory utilization is \({SHARE}",
            rf"Requested memory: {SHARE} \(util\)",
            rf"gpu_memory_utilization(?:=|': |\s+){SHARE}",
            rf"--gpu-memory-utilization[= ]{SHARE}",
        ),
        float,
    ),
    "max_model_len": _count(
        rf"Maximum concurrency for {COUNT} tokens", r"max_seq_len=(\d+)", rf"Using max model len {COUNT}", r"max_model_len(?:=|': )(\d+)"
    ),
    "max_num_seqs": _count(r"max_num_seqs(?:=|': )(\d+)", r"--max-num-seqs[= ](\d+)"),
    "max_num_batched_tokens": _count(r"max_num_batched_tokens(?:=|': )(\d+)", r"--max-num-batched-tokens[= ](\d+)"),
    "block_size": _count(r"\bblock_size(?:=|': )(\d+)", r"--block-size[= ](\d+)", r"Setting attention block size to (\d+) tokens"),
    "total_gib": _gib(rf"total_gpu_memory{SIZE}", rf"Free memory on device \([\d.]+/{SIZE}", of=min),
    "requested_gib": _gib(
        rf"(?:instance can use|Requested memory: [\d.]+ \(util\),|memory utilization is \([\d.]+,){SIZE}",
        rf"gpu_memory_utilization \([\d.]+\) ={SIZE}",
        of=min,
    ),
    "weights_gib": _gib(
        rf"Model loading took{SIZE}",
        rf"Loading model weights took{SIZE}",
        rf"model weights take{SIZE}",
        rf"weights memory:{SIZE}",
        rf"Actual usage is{SIZE} for weight",
    ),
    "activation_gib": _gib(rf"activation peak memory(?: takes)?{SIZE}", rf"torch peak memory increase:{SIZE}", rf"{SIZE} for peak activation"),
    "non_torch_gib": _gib(rf"non_torch_memory(?: takes)?{SIZE}", rf"non-torch forward increase memory:{SIZE}", rf"{SIZE} for non-torch memory"),
    "graphs_gib": _gib(
        rf"CUDA graph pool memory:{SIZE} \(actual\)", rf"Graph capturing finished in \d+ secs?, took{SIZE}", rf"{SIZE} for CUDAGraph memory"
    ),
    "graphs_estimated_gib": _gib(rf"Estimated CUDA graph memory:{SIZE} total"),
    "kv_gib": _gib(
        rf"Available KV cache memory:{SIZE}",
        rf"reserved for KV Cache is{SIZE}",
        rf"available_kv_cache_memory\s{SIZE}",
        rf"Current kv cache memory in use is{SIZE}",
        rf"reserved{SIZE} memory for KV Cache",
        of=min,
    ),
    "kv_tokens": _count(rf"GPU KV cache size: {COUNT} tokens", of=min),
    "gpu_blocks": _count(rf"# (?:GPU|CUDA|cuda) blocks: {COUNT}", of=min),
    "cpu_blocks": _count(rf"# CPU blocks: {COUNT}", of=min),
    "concurrency": Line((rf"Maximum concurrency for {COUNT} tokens per request: ([\d.]+)x",), float, min),
    "engine_args": _text(r"(non-default args: \{.*)", r"(Initializing an? .*LLM engine.*)", r"(\bvllm serve .+)"),
}
"""By field of `StartupLog`."""
POOL = {
    "kv_gib": "Available KV cache memory",
    "kv_tokens": "GPU KV cache size",
    "gpu_blocks": "# GPU blocks",
}
"""Any one of these lines says how large the pool is."""
MARKS = ("LLM engine", "KV cache", "KV Cache", "GPU blocks", "CUDA blocks", "Model loading took", "model weights", "vLLM API server", "vllm serve")


def is_log(text: str) -> bool:
    """Whether a text looks as if a vLLM server had printed it."""
    return any(mark in text for mark in MARKS)


def parse(text: str, where: str) -> StartupLog:
    """The numbers of a start-up log. Raises `BadInput` where no line says how large the pool is."""
    found = {field.name: _read(LINES[field.name], text) for field in fields(StartupLog)}
    log = StartupLog(**{name: value for name, value in found.items() if value is not None})
    if all(getattr(log, name) is None for name in POOL):
        raise BadInput("log", where, f"no line says how large the pool is; missing: {', '.join(POOL.values())} (any one of them)")
    return log


def _read(line: Line, text: str) -> Any:
    """The value of the first pattern that occurs."""
    for pattern in line.patterns:
        found = [match.groups()[-1] for match in re.finditer(pattern, text)]
        if found:
            return line.of([line.value(value) for value in found])
    return None
