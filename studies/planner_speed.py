"""How long the public planners that install from PyPI take for one estimate: prefill and decode of 50,000 + 250 tokens, Llama 3.1 70B on eight H100.

Each is asked in a process of its own, and only where it is installed. They search grids of such estimates; none searches what a cache keeps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LONGEST_S = 300.0  # [s] that a planner may take
TIMED = """
import contextlib, io, json, sys, time
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    {setup}
    def once():
        {once}
    once()
    count, started = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - started < 2:
        once()
        count += 1
    seconds = (time.perf_counter() - started) / count
json.dump({{"seconds": seconds, "count": count}}, sys.__stdout__)
"""


@dataclass(frozen=True)
class Planner:
    """One planner: its distribution on PyPI, and lines of Python that prepare and make one estimate."""

    distribution: str
    setup: str
    once: str


PLANNERS = (
    Planner(
        "aiconfigurator",
        "from aiconfigurator.cli.api import cli_estimate; "
        "asked = dict(backend_name='vllm', isl=50000, osl=250, batch_size=1, tp_size=8, "
        "gemm_quant_mode='bfloat16', kvcache_quant_mode='bfloat16', fmha_quant_mode='bfloat16')",
        "[cli_estimate('meta-llama/Meta-Llama-3.1-70B', 'h100_sxm', mode=mode, **asked) for mode in ('static_ctx', 'static_gen')]",
    ),
    Planner(
        "genz-llm",
        "from GenZ import decode_moddeling, prefill_moddeling; "
        "asked = dict(model='meta-llama/llama-3.1-70b', batch_size=1, input_tokens=50000, system_name='H100_GPU', bits='bf16', tensor_parallel=8)",
        "prefill_moddeling(model_offload=True, **asked), decode_moddeling(output_tokens=250, Bb=1, model_offload=True, **asked)",
    ),
    Planner(
        "llm-analysis",
        "from llm_analysis.analysis import LLMAnalysis; "
        "from llm_analysis.config import ModelConfig, ParallelismConfig, get_dtype_config_by_name, get_gpu_config_by_name; "
        "model = ModelConfig(name='l70', num_layers=80, n_head=64, hidden_dim=8192, vocab_size=128256, max_seq_len=131072, "
        "num_key_value_heads=8, ffn_embed_dim=32768)",  # 0.2.2 knows no gated layers, and widths that are multiples alone
        "LLMAnalysis(model, get_gpu_config_by_name('h100-sxm-80gb'), get_dtype_config_by_name('w16a16e16'), ParallelismConfig(tp_size=8))"
        ".inference(batch_size_per_gpu=1, seq_len=50000, num_tokens_to_generate=250)",
    ),
)


def planner_rows() -> list[dict[str, Any]]:
    """One row a planner: seconds per estimate, or that it is not installed."""
    return [{"problem": "one estimate of a planner", **timed(planner)} for planner in PLANNERS]


def timed(planner: Planner, python: str = sys.executable) -> dict[str, Any]:
    """Its name with its version, and the mean seconds per estimate after a first one, or why there are none."""
    try:
        name = f"{planner.distribution} {version(planner.distribution)}"
    except PackageNotFoundError:
        return {"method": f"{planner.distribution}: not installed"}
    code = TIMED.format(setup=planner.setup, once=planner.once)
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=LONGEST_S, env=None)
    except subprocess.TimeoutExpired:
        return {"method": f"{name}: no answer within {LONGEST_S:g} s"}
    if done.returncode:
        return {"method": f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1][:120]}"}
    return {"method": name, "s/configuration": float(json.loads(done.stdout)["seconds"])}
