"""Small results made by hand: plausible numbers, no search."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kvopt.results import Result

GIB = 2.0**30


def plan(*methods: str, **changed: Any) -> dict[str, Any]:
    keeps = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0)
    settings = {
        "engine": "vllm",
        "methods": list(methods),
        "where": "engine-ready",
        **keeps,
        "key_bits": 16.0,
        "value_bits": 16.0,
        "weights": "bf16",
        "weights_retained": 1.0,
    }
    grouping = {"tp": 2, "pp": 1, "replicas": 1, "dcp": 1, "attention_dp": 1, "expert_parallel": False, "prefill_groups": 0}
    schedule = {"idle": "park", "chunk": 2048.0, "max_num_seqs": 9, "decodes_in_flight": 2.4, "idle_resident": 0.25, "prefix_cache_tokens": 0.0}
    return {**settings, **grouping, **schedule, **changed}


def metrics(rate: float, kept: float = 1.0, lower: float = 1.0, **changed: Any) -> dict[str, Any]:
    at_context = {"context_switch_s": 0.295, "decode_s_per_token": 0.0314, "kv_bytes_per_session": 11 * GIB, "kv_bytes_per_token": 240 * 1024.0}
    memory = {
        "kv_pool_bytes": 72 * GIB,
        "reserved_bytes": 6 * GIB,
        "weight_bytes": 64 * GIB,
        "memory_used_bytes": 58 * GIB,
        "host_memory_used_bytes": 0.0,
    }
    rates = {"sessions_per_gpu_hour": rate, "prefill_ceiling_per_gpu_hour": 96.6, "users_per_gpu": rate / 7, "output_tokens_per_gpu_s": rate / 3}
    times = {"prefill_s": 18.5, "decode_step_s": 0.034, "ttft_s": 27.1, "ttft_follow_up_s": 8.6, "tpot_s": 0.0674}
    other = {"concurrency": 12.0, "requests_in_flight": 2.9, "users_thinking": 3.4, "prefill_utilisation": 0.53, "link_utilisation": 0.02}
    priced = {"cost_per_session_usd": 2.45 / rate if rate else None, "energy_per_session_j": 1.44e6 / rate if rate else None}
    return {**at_context, **memory, **rates, **times, **other, **priced, "accuracy_retained": kept, "accuracy_lower": lower, **changed}


CONSTRAINTS = [
    {"name": "hbm", "value": 58 * GIB, "limit": 72 * GIB, "slack": 14 * GIB, "satisfied": True},
    {"name": "host_memory", "value": None, "limit": None, "slack": None, "satisfied": True},
    {"name": "ttft_s", "value": 29.99, "limit": 30.0, "slack": 0.01, "satisfied": True},
    {"name": "accuracy", "value": 0.979, "limit": 0.95, "slack": 0.029, "satisfied": True},
]
SCENARIO = {
    "model": "yi-34b-200k",
    "accelerator": "a100-80-sxm",
    "gpus": 2,
    "context": 50000.0,
    "engine": "vllm",
    "accuracy_floor": 0.95,
    "task": "longbench",
    "confidence": 0.9,
    "ttft": "p95:30s",
    "tpot": None,
    "ttft_s": 30.0,
    "tpot_s": 0.1,
}
RESEARCH = plan("duoattention", "kivi", where="research library", head_keep=0.47, key_bits=4.0, value_bits=2.0)


def answer() -> dict[str, Any]:
    return {
        "plan": plan("fp8", key_bits=8.0, value_bits=8.0),
        "metrics": metrics(60.0, 0.996, 0.979),
        "constraints": CONSTRAINTS,
        "bottleneck": "time to first token; 62 % of the prefill ceiling",
        "baseline": metrics(40.0, concurrency=6.0),
        "research": {
            "plan": RESEARCH,
            "metrics": metrics(90.0, 0.99, 0.957, prefill_s=14.0, prefill_ceiling_per_gpu_hour=120.0),
            "evidence": "extrapolated",
        },
        "evidence": "interpolated",
    }


SEARCH = {"seconds": 66.0, "compile_seconds": 47.0, "evaluations": 1234567}


@pytest.fixture
def optimized() -> Result:
    elasticities = {"hbm_bytes": {"left": 0.5, "right": 0.25}, "host_memory": {"left": None, "right": 0.0}}
    data = {
        "scenario": SCENARIO,
        **answer(),
        "bound": {"sessions_per_gpu_hour": None, "gap_percent": None},
        "elasticities": elasticities,
        "search": SEARCH,
    }
    return Result("optimize", copy.deepcopy(data), ("context: sessions exceed what the model states",))


@pytest.fixture
def fronts() -> Result:
    def point(front: str, rate: float, kept: float, lower: float, *methods: str) -> dict[str, Any]:
        return {
            "front": front,
            "plan": plan(*methods),
            "metrics": metrics(rate, kept, lower, ttft_s=5 + rate, tpot_s=0.1 - rate / 2000),
            "evidence": "interpolated",
        }

    points = [point("deployable", 60, 0.996, 0.979, "fp8"), point("deployable", 40, 1.0, 1.0)]
    points += [point("research", 120 - step * step / 5, 0.8 + step / 100, 0.6 + step / 50, "duoattention", "kivi") for step in range(20)]
    data = {
        "scenario": SCENARIO,
        "points": points,
        "objectives": ["sessions_per_gpu_hour", "accuracy_retained"],
        "answer": answer(),
        "search": SEARCH,
    }
    return Result("pareto", copy.deepcopy(data))


@pytest.fixture
def infeasible() -> Result:
    ledger = {"usable": 21.7 * GIB, "reserve": GIB, "weights": 131.4 * GIB, "left": -110.7 * GIB}
    why = {
        "constraint": "hbm",
        "value": 132.4 * GIB,
        "limit": 21.7 * GIB,
        "reason": "the weights of Llama do not fit beside the engine's reserve; per GPU: usable 21.7 GiB",
        "ledger": ledger,
        "change": "--gpus 7",
    }
    nothing = metrics(0.0, kv_pool_bytes=-110 * GIB)
    data = {"scenario": SCENARIO, **answer(), "metrics": nothing, "baseline": nothing, "research": {"plan": None, "metrics": None}, "infeasible": why}
    return Result("optimize", copy.deepcopy(data), (), False)
