"""What was measured: rates, latencies and how busy things were, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvopt.simulation.request import Request

PERCENTILES = (50, 90, 95, 99)


def spread(values: Sequence[float] | np.ndarray, mean: float | None = None) -> dict[str, float | None]:
    """Mean and percentiles; `None` of nothing. `mean`: where it is not that of the values."""
    if not len(values):
        return {"mean": None, **{f"p{p}": None for p in PERCENTILES}}
    found = np.percentile(values, PERCENTILES)
    return {"mean": float(np.mean(values)) if mean is None else mean, **{f"p{p}": float(x) for p, x in zip(PERCENTILES, found, strict=True)}}


def worse(first: dict[str, float | None], second: dict[str, float | None]) -> dict[str, float | None]:
    """The larger of two spreads, entry by entry; what is unknown is left out."""
    return {name: max((x for x in (first[name], second[name]) if x is not None), default=None) for name in first}


def latencies(finished: Sequence[Request]) -> dict[str, Any]:
    """[s] of the requests. TPOT leaves the first token out and is a mean over tokens; its percentiles are over requests of two tokens and more."""
    ttft = np.array([request.first_s - request.arrival_s for request in finished])
    opening = np.array([request.turn == 0 for request in finished], bool)
    decoded = [(request.finished_s - request.first_s, request.answer - 1) for request in finished if request.answer > 1]
    tokens = sum(count for _, count in decoded)
    first, later = spread(ttft[opening]), spread(ttft[~opening])
    return {
        "ttft_s": spread(ttft),
        "ttft_first_s": first,
        "ttft_follow_up_s": later,
        "ttft_worse_s": worse(first, later),
        "tpot_s": spread([took / count for took, count in decoded], sum(took for took, _ in decoded) / tokens if tokens else None),
        "queueing_s": spread([request.admitted_s - request.arrival_s for request in finished]),
        "e2e_s": spread([request.finished_s - request.arrival_s for request in finished]),
    }


def rates(finished: Sequence[Request], span_s: float, groups_per_gpu: float) -> dict[str, float]:
    """Completed per GPU: sessions an hour, each turn its share of one, and answered tokens a second."""
    per_s = groups_per_gpu / span_s if span_s > 0 else 0.0
    return {
        "sessions_per_gpu_hour": 3600 * per_s * sum(request.share for request in finished),
        "output_tokens_per_gpu_s": per_s * sum(request.answer for request in finished),
    }
