"""What the engine will print at start-up for a plan, beside the bytes that an ideal allocator would need."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvopt.capacity import deployed
from kvopt.capacity.constants import engines
from kvopt.capacity.formats import FORMATS
from kvopt.problem import Problem

SIXTEEN_BIT = "auto"


def engine_capacity(problem: Problem, plan: dict[str, Any], session_bytes: float) -> dict[str, Any] | None:
    """Blocks, tokens and maximum concurrency of one group as the engine's version computes them, with 90 % intervals; `session_bytes`: of one session at the
    scenario's context by the model's own formula. None where no rules are known: the theory, other engines, methods that engines have no cache format for.
    """
    kv_format = _format(plan["methods"])
    if problem.scenario.fidelity == "peak" or problem.engine.id not in engines() or kv_format is None or problem.model.parameters.total is None:
        return None
    longest = int(np.max(problem.sessions.prompt + problem.sessions.turns * (problem.sessions.question + problem.sessions.answer)))
    found = deployed(
        problem.model,
        problem.accelerator,
        engine=problem.engine.id,
        version=problem.engine.version,
        tp=plan["tp"],
        pp=plan["pp"],
        dcp=plan["dcp"],
        max_sequences=plan["max_num_seqs"],
        chunk=int(plan["chunk"]),
        max_model_len=longest,
        kv_format=kv_format,
        weights=plan["weights"],
    )
    group = plan["tp"] * plan["pp"]
    return {
        "max_model_len": longest,
        "pool_bytes": found.pool_bytes,
        "pool_bytes_lower": found.lower.pool_bytes,
        "pool_bytes_upper": found.upper.pool_bytes,
        "tokens": found.tokens,
        "tokens_lower": found.lower.tokens,
        "tokens_upper": found.upper.tokens,
        "max_concurrency": found.concurrency,
        "ideal_concurrency": found.pool_bytes * group / session_bytes if session_bytes else None,
        "outside_left_bytes": found.outside.left if found.outside else None,
        "warning": found.warning,
    }


def _format(methods: list[str]) -> str | None:
    """The engine's cache format of a plan's methods: 16 bit without any; none where a method is more than a format."""
    if not methods:
        return SIXTEEN_BIT
    name = methods[0].replace("-", "_")
    return name if len(methods) == 1 and name in FORMATS else None
