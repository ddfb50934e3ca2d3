"""Results made by hand with all that pictures are drawn from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from kvopt.results import Result

STAGES = ("prompt", "follow_up", "recompute", "decode_weights", "decode_kv", "decode_overhead", "switching", "idle")


def arithmetic(scale: float, requests: float) -> dict[str, Any]:
    """30, 1, 0, 20, 10, 5, 0.5 and 0 GPU-seconds by stage, times `scale`; a GPU of 300 TFLOP/s and 2 TB/s."""
    seconds = dict(zip(STAGES, (scale * each for each in (30.0, 1.0, 0.0, 20.0, 10.0, 5.0, 0.5, 0.0)), strict=True))
    work = [
        {"name": f"prefill, chunk of {2048 * scale:,.0f} tokens", "stage": "prefill", "flop": 2e14, "bytes": 4e10, "seconds": 1.0},
        {"name": "decoding, one request", "stage": "decode", "flop": 8e10, "bytes": 4e10, "seconds": 0.025},
        {"name": f"decoding, {requests:g} requests", "stage": "decode", "flop": 8e10 * requests, "bytes": 5e10, "seconds": 0.04},
    ]
    peaks = {"peak_flops": 3e14, "peak_bandwidth": 2e12, "reached_flops": 2.4e14, "reached_bandwidth": 1.8e12}
    return {"session": {"gpu_seconds": seconds, "usd_per_gpu_s": 0.001, "watt": 400.0}, "roofline": {**peaks, "work": work}}


def words_of(axes: Axes) -> str:
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    return " ".join(" ".join(found.get_text().split()) for found in figure.findobj(Text) if found.get_visible())


@pytest.fixture
def words() -> Any:
    """All that is written in the figure of some axes."""
    return words_of


@pytest.fixture
def explained(optimized: Result) -> Result:
    """An answer with arithmetic, elasticities and a plan by KV head."""
    data = optimized.data
    data["arithmetic"] = arithmetic(1.0, 4)
    data["research"]["arithmetic"] = arithmetic(0.5, 9)
    data["baseline_point"] = {"plan": copy.deepcopy(data["plan"]), "metrics": data["baseline"], "arithmetic": arithmetic(2.0, 2)}
    data["research"]["plan"]["blocks"] = {
        "per": "head",
        "token_keep": [[0.25, 0.5], [0.5, 1.0], [0.25, 0.25]],
        "key_bits": [[8.0, 8.0]] * 3,
    }
    data["elasticities"] = {
        "hbm_bytes": {"left": 0.5, "right": 0.25},
        "host_memory": {"left": None, "right": None},
        "flops": {"left": None, "right": 1.0, "left_interval": [1.0, 2.0]},
        "ttft_target": {"left": 0.1, "right": None},
        "think_time": {"left": -0.2, "right": -0.3},
        "accuracy_floor": {"left": -3.0, "right": -2.0},
    }
    return optimized


@pytest.fixture
def played() -> Result:
    """Two users over 10 s."""
    rows = [
        {"user": 0, "begins": [1.0], "spans": [[0.0, 1.0, "think-parked"], [1.0, 4.0, "prefill"], [4.0, 10.0, "decode"]]},
        {"user": 3, "begins": [], "spans": [[0.0, 2.5, "decode"], [2.5, 3.0, "switch"], [3.0, 10.0, "think-parked"]]},
    ]
    scenario = {"model": "yi-34b-200k", "accelerator": "a100-80-sxm", "gpus": 2, "context": 50000.0, "engine": "vllm"}
    return Result("simulate", {"scenario": scenario, "traffic": {"kind": "users", "warmup_s": 60.0}, "timeline": rows})
