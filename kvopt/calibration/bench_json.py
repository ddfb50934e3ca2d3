"""What `vllm bench serve --save-result` writes, as rows with the columns of a CSV of measurements. SGLang's `bench_serving` writes the same keys.

Keys as in vllm/benchmarks/serve.py (0.6 to 0.31): one JSON object per run, or one per line where runs are appended.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvopt.capacity.logs import LABELS
from kvopt.errors import BadInput
from kvopt.inputs.model_names import resolve_measured

NEEDED = ("completed", "total_input_tokens", "total_output_tokens", "mean_ttft_ms", "mean_tpot_ms")
ENGINES = {"openai": "vllm", "openai-chat": "vllm", "vllm-chat": "vllm", "tensorrt-llm": "trtllm", "sglang-native": "sglang", "sglang-oai": "sglang"}
"""Back ends whose name is that of a protocol: the engine that is meant where none is given."""


def is_bench(text: str) -> bool:
    """Whether a text is JSON at all: no other JSON is read."""
    return text.lstrip()[:1] in ("{", "[")


def rows(text: str, where: str, given: Mapping[str, str]) -> list[tuple[int, dict[str, str] | BadInput]]:
    """(Line or number of the run, its row or why it is none). `given` holds the columns that a run does not state: gpu, tp, engine, model.

    TTFT and TPOT are means over requests. Raises `BadInput` where the file is not JSON.
    """
    found: list[tuple[int, dict[str, str] | BadInput]] = []
    for number, run in _runs(text, where):
        try:
            found.append((number, _row(run, given)))
        except BadInput as error:
            found.append((number, error))
    return found


def _runs(text: str, where: str) -> list[tuple[int, Any]]:
    """One object, a list of them, or one per line."""
    try:
        data = json.loads(text)
        return list(enumerate(data if isinstance(data, list) else [data], start=1))
    except json.JSONDecodeError as first:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        try:
            return [(number, json.loads(line)) for number, line in lines]
        except json.JSONDecodeError:
            raise BadInput("file", where, f"not JSON, line {first.lineno}") from None


def _row(run: Any, given: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(run, Mapping):
        raise BadInput("run", run, "must be a JSON object, as vllm bench serve --save-result writes it")
    missing = [name for name in NEEDED if name not in run]
    if missing:
        raise BadInput("bench JSON", "missing", f"{', '.join(missing)}: not the result of vllm bench serve --save-result")
    completed = _number(run, "completed")
    concurrency = run.get("max_concurrency")
    if concurrency is None:
        raise BadInput("max_concurrency", "missing", "requests in flight are not known; run with --max-concurrency N")
    rate = run.get("request_rate", "inf")
    if rate is not None and math.isfinite(float(rate)):
        raise BadInput("request_rate", rate, "requests in flight are fewer than max_concurrency; run without --request-rate")
    backend = str(run.get("backend") or run.get("endpoint_type") or "vllm")
    gpus, named = given.get("tp") or "1", str(run.get("model_id") or "")
    return {
        "model": given.get("model") or resolve_measured(named) or resolve_measured(Path(named).name) or named,
        "gpu": given.get("gpu", ""),
        "engine": given.get("engine") or ENGINES.get(backend, backend),
        "version": "",
        "weight_dtype": _format(named),
        "num_gpus": gpus,
        "tp": gpus,
        "prompt_len": f"{_number(run, 'total_input_tokens') / completed:.6g}",
        "output_len": f"{_number(run, 'total_output_tokens') / completed:.6g}",
        "batch": f"{_number(run, 'max_concurrency'):g}",
        "ttft_s": f"{_number(run, 'mean_ttft_ms') / 1e3:.6g}",
        "tpot_ms": f"{_number(run, 'mean_tpot_ms'):.6g}",
        "throughput_tok_s": f"{_number(run, 'output_throughput'):.6g}" if "output_throughput" in run else "",
        "kind": "serving",
        "note": "closed-loop",
    }


def _format(named: str) -> str:
    """The weight format that a checkpoint's name states (`-FP8`, `-AWQ`); empty where it is the model's own."""
    return next((name for pattern, name in LABELS if name != "bf16" and re.search(pattern, named.lower())), "")


def _number(run: Mapping[str, Any], name: str) -> float:
    """A number above zero. Raises `BadInput` with the key."""
    value = run[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BadInput(name, value, "must be a number above 0")
    return float(value)
