"""Infeasible is an answer: which constraint cannot be met, its value and limit, and the smallest change that would do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kvopt.inputs.model import BYTES_PER_PARAMETER
from kvopt.metrics import LABELS, constraint_rows
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.deployments import divisors
from kvopt.search.lanes import chunk_sizes

GIB = 2.0**30
MOST_GPUS = 4096
LEAST_FLOOR = 0.1  # a floor below it is no advice


def memory_ledger(problem: Problem, gpus: int | None = None, weight_bytes: float | None = None, tp: int | None = None) -> dict[str, float]:
    """[bytes] per GPU when the weights are spread over `gpus`: what the engine may use, reserves, weights, and what is left for caches."""
    system = problem.system()
    efficiency, arch = system.efficiency, system.architecture
    gpus = gpus or problem.scenario.gpus
    ranks = tp or (max(d for d in divisors(gpus) if problem.model.query_heads % d == 0))
    usable = float(efficiency.memory_fraction * system.accelerator.memory_bytes)
    layer = float(efficiency.activation_bytes) * (3 * float(arch.intermediate) / ranks + 3 * float(arch.hidden)) * float(chunk_sizes(problem)[0])
    reserve = float(efficiency.context_bytes) + float(efficiency.parallel_bytes) * (gpus > 1) + layer
    if weight_bytes is None:
        checkpoint = problem.checkpoint(problem.checkpoints[0])
        linear = float(arch.parameters - arch.embedding_parameters) * float(checkpoint.bytes_per_parameter)
        weight_bytes = linear + float(arch.embedding_parameters) * float(checkpoint.bytes_per_embedding)
    return {"usable": usable, "reserve": reserve, "weights": weight_bytes / gpus, "left": usable - reserve - weight_bytes / gpus}


def least_gpus(problem: Problem) -> int | None:
    """The fewest GPUs whose memory leaves room beside the weights, with a tensor-parallel degree that divides the query heads."""
    for gpus in range(problem.scenario.gpus + 1, MOST_GPUS):
        wide = max(d for d in divisors(gpus) if problem.model.query_heads % d == 0)
        if gpus // wide <= problem.model.layers and memory_ledger(problem, gpus, tp=wide)["left"] > 0:
            return gpus
    return None


def lightest_needed(problem: Problem) -> str | None:
    """The weight format with the most bytes that would fit on the GPUs at hand."""
    arch = problem.architecture
    linear, embedding = float(arch.parameters - arch.embedding_parameters), float(arch.embedding_parameters)
    for name in sorted(BYTES_PER_PARAMETER, key=lambda entry: (-BYTES_PER_PARAMETER[entry], entry)):
        size = BYTES_PER_PARAMETER[name]
        if size < 2 and memory_ledger(problem, weight_bytes=linear * size + embedding * 2)["left"] > 0:
            return name
    return None


def weights_do_not_fit(problem: Problem) -> dict[str, Any]:
    """The answer where no grouping of the GPUs holds the weights: the ledger, and the least change."""
    ledger = memory_ledger(problem)
    gpus, lighter = least_gpus(problem), lightest_needed(problem)
    changes = [*([f"--gpus {gpus}"] if gpus else []), *([f"--weights {lighter} (with such a checkpoint)"] if lighter else [])]
    shown = ", ".join(f"{name} {value / GIB:.1f} GiB" for name, value in ledger.items())
    return {
        "constraint": "hbm",
        "value": ledger["weights"] + ledger["reserve"],
        "limit": ledger["usable"],
        "reason": f"the weights of {problem.model.name} do not fit beside the engine's reserve; per GPU: {shown}",
        "ledger": ledger,
        "change": " or ".join(changes) or "an accelerator with more memory",
    }


def explain(problem: Problem, point: Point) -> dict[str, Any]:
    """The answer where the weights fit but no load is light enough: the constraint that is broken most at the least load, and the least change."""
    rows = {row["name"]: row for row in constraint_rows(point.state)}
    broken = np.asarray(point.state.broken)
    name = list(rows)[int(broken.argmax())]
    value, limit = rows[name]["value"], rows[name]["limit"]
    failing = [rows[entry] for entry, excess in zip(rows, broken, strict=True) if excess > 0] or [rows[name]]
    changes = dict.fromkeys(_change(problem, row["name"], row["value"], row["limit"]) for row in failing)
    return {
        "constraint": name,
        "value": value,
        "limit": limit,
        "reason": f"{LABELS[name]}: {_unit(name, value)} where {_unit(name, limit)} is the limit, even at the least load",
        "change": "; and ".join(changes),
    }


def _unit(name: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    if name in ("hbm", "hbm_peak", "host_memory"):
        return f"{value / GIB:.2f} GiB"
    return f"{value:.4g} s" if name.endswith("_s") else f"{value:.4g}"


def _change(problem: Problem, name: str, value: float | None, limit: float | None) -> str:
    if value is None or limit is None:
        return "give what is unknown"
    if name in ("ttft_s", "tpot_s"):
        flag = name.removesuffix("_s")
        step = 10 ** (math.floor(math.log10(value)) - 2)
        rounded = math.ceil(value * 1.0001 / step) * step
        percentile = problem.latency_targets[0 if flag == "ttft" else 1].percentile
        return f"--{flag} {f'p{percentile:g}:' if percentile else ''}{rounded:.6g}s"
    if name == "accuracy":
        floor = math.floor(value * 1000) / 1000
        return f"--accuracy-floor {floor:g}" if floor >= LEAST_FLOOR else "keep more of the cache, or use another method (optimize searches one)"
    if name == "host_memory":
        return (
            f"--host-memory {math.ceil(value / limit * float(problem.device(problem.checkpoints[0]).host_memory_bytes) / 1e9)}"
            if limit
            else "--host-memory"
        )
    if name in ("hbm", "hbm_peak"):
        w = problem.sessions
        fixed = float(np.max(w.turns * (w.question + w.answer)))  # tokens of a session besides its prompt
        shorter = int(0.99 * max(limit, 0) / value * (problem.context + fixed) - fixed)
        gpus = problem.scenario.gpus
        while gpus * max(limit, 0) < value * problem.scenario.gpus and gpus < MOST_GPUS and limit > 0:
            gpus *= 2
        ways = [*([f"--context {shorter}"] if 0 < shorter < problem.context else []), *([f"--gpus {gpus}"] if gpus > problem.scenario.gpus else [])]
        return " or ".join([*ways, "a smaller cache (optimize searches one)"])
    return "--max-num-seqs" if name == "max_sequences" else "fewer turns or a shorter think time"
