"""What a point says of its own arithmetic: where the GPU-seconds of a session go and where its steps lie under the roofline, as plain values for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvopt.explanation.parts import parts
from kvopt.metrics import plain
from kvopt.problem import Problem
from kvopt.search.best import Point


def arithmetic(problem: Problem, point: Point) -> dict[str, Any] | None:
    """GPU-seconds of one session by what they are spent on, and the work of its steps per GPU against the roofline; none where sizes are not known.

    `session`: `gpu_seconds` [s] by stage, `usd_per_gpu_s`, `watt`. `roofline`: peaks and what is reached of them [FLOP/s, bytes/s], and `work`: the mean chunk
    of a prompt, one request decoding, and a step as the plan's load fills it, each with [FLOP], [bytes] and [s] of one GPU.
    """
    found = parts(problem, point)
    if not np.isfinite(found["chunk"]["seconds"]):
        return None
    device, efficiency = problem.device(point.choice.weights), problem.system(point.choice.weights).efficiency
    batched = found["batched"]
    work = [
        ("prefill", f"prefill, chunk of {found['chunk']['tokens']:,.0f} tokens", found["chunk"]),
        ("decode", "decoding, one request", found["alone"]),
        ("decode", f"decoding, {batched['requests']:.3g} requests", batched),
    ]
    return {
        "session": {
            "gpu_seconds": {name: plain(seconds) for name, seconds in found["session"].items()},
            "usd_per_gpu_s": plain(device.price_per_hour / 3600),
            "watt": plain(device.power),
        },
        "roofline": {
            "peak_flops": plain(device.peak_flops),
            "peak_bandwidth": plain(device.memory_bandwidth),
            "reached_flops": plain(device.peak_flops * efficiency.mfu),
            "reached_bandwidth": plain(device.memory_bandwidth * efficiency.mbu),
            "work": [{"name": name, "stage": stage, **{key: plain(one[key]) for key in ("flop", "bytes", "seconds")}} for stage, name, one in work],
        },
    }
