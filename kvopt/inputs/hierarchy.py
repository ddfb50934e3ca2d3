"""The parameters that a profile holds, and what they are taken to depend on: one hierarchical model of all accelerators, engines and weight formats.

A parameter's logarithm is a sum of effects: one for the accelerator's class, one for the accelerator, one for the engine and its generation, one for the
weight format, one for their combination. Where no row tells an effect it stays 0, and what it could have been widens the interval: a card that nobody measured
gets its class's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt.inputs.accelerator import AcceleratorSpec

FACTORS = ("class", "accelerator", "family", "engine", "weights", "class and weights", "kind", "group")
"""What a parameter may depend on, from the general to the particular: the class of the accelerator and the accelerator, the engine and its generation, the
weight format, whether the model routes to experts, and the group (accelerator, engine generation, weights)."""
BEND = 0.6  # shares of a peak above this are bent so that they approach 1 and never exceed it
GRAPHICS_MEMORY = ("rtx", "l4", "a10", "a40", "t4", "arc")  # ids that begin so have no HBM


@dataclass(frozen=True)
class Parameter:
    """One parameter of a profile: where the fit begins, and how far each factor may move its logarithm (standard deviations, in the order of `FACTORS`)."""

    about: str
    unit: str
    start: float
    spread: tuple[float, ...]
    share: bool = False
    start_spread: float = 0.3  # how far all rows together may move the logarithm


_OVERHEAD = (0.3, 0.2, 0.4, 0.6, 0.15, 0.0, 0.3, 0.3)
PARAMETERS = {
    "mfu": Parameter("dense products, share of the peak", "share", 0.55, (0.25, 0.12, 0.15, 0.2, 0.25, 0.2, 0.0, 0.12), True),
    "mfu_attention": Parameter("prefill attention, share of the 16-bit peak", "share", 0.55, (0.25, 0.1, 0.1, 0.15, 0.0, 0.0, 0.0, 0.1), True),
    "mfu_experts": Parameter("products of routed experts, share of the peak", "share", 0.4, (0.3, 0.15, 0.2, 0.3, 0.3, 0.2, 0.0, 0.2), True),
    "mbu": Parameter("reading weights, share of the memory bandwidth", "share", 0.85, (0.1, 0.08, 0.05, 0.05, 0.06, 0.06, 0.0, 0.06), True, 0.05),
    "mbu_kv": Parameter("reading the cache, share of the memory bandwidth", "share", 0.8, (0.1, 0.08, 0.05, 0.05, 0.0, 0.0, 0.0, 0.06), True),
    "unhidden": Parameter(
        "of reading and multiplying weights, share of the shorter that shows", "share", 0.1, (0.5, 0, 0.3, 0.5, 0.5, 0, 0, 0.3), True
    ),
    "ramp_tokens": Parameter("tokens by which dense products are rounded up", "tokens", 60.0, (0.5, 0.3, 0.3, 0.4, 0.4, 0.0, 0.0, 0.3)),
    "expert_ramp_tokens": Parameter("the same for each routed expert that is touched", "tokens", 8.0, (0.5, 0.3, 0.3, 0.4, 0.4, 0.0, 0.0, 0.3)),
    "prefill_layer_s": Parameter("per layer of a step with prompt tokens", "s", 80e-6, _OVERHEAD),
    "decode_layer_s": Parameter("per layer of a decode step", "s", 35e-6, _OVERHEAD),
    "parallel_layer_s": Parameter("more per layer where ranks share it", "s", 20e-6, _OVERHEAD),
    "sequence_s": Parameter("per request and step", "s", 8e-6, _OVERHEAD),
    "server_s": Parameter("constant in TTFT", "s", 30e-3, _OVERHEAD),
    "allreduce": Parameter("all-reduce, share of the one-way scale-up bandwidth", "share", 0.5, (0.2, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.1), True),
    "waves": Parameter("requests that a benchmark's client sends in a row", "requests", 10.0, (0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.0, 0.15)),
    "ahead": Parameter("prompts before one's own where a benchmark's requests are all alike", "prompts", 0.2, (0.2, 0, 0.5, 1.0, 0.2, 0, 0.5, 0.7)),
}
"""What a profile holds. `waves` and `ahead` say how benchmarks are run; the other names are those of `objectives.types.Efficiency`."""

WEIGHT_CLASSES = {
    **dict.fromkeys(("bf16", "fp16", "fp32"), "16-bit"),
    **dict.fromkeys(("int4", "int4-g32", "w4", "w4a16", "mxfp4"), "int4"),
    **dict.fromkeys(("int8", "w8a16", "w8a8"), "int8"),
    **dict.fromkeys(("q4_0", "q4_k_m"), "gguf4"),
    "q8_0": "gguf8",
    "fp8": "fp8",
    "nvfp4": "fp4",
}
"""Weight formats whose kernels are alike."""


def accelerator_class(accelerator: AcceleratorSpec) -> str:
    """The generation of an accelerator and its kind of memory: cards with graphics memory are a class of their own."""
    fast = accelerator.memory_bandwidth_gbs.value >= 1000 and not accelerator.id.startswith(GRAPHICS_MEMORY)
    return f"{accelerator.arch} HBM" if fast and accelerator.arch else accelerator.arch or "unknown"


def levels(accelerator: AcceleratorSpec, engine: str, weights: str, routed: bool) -> dict[str, str]:
    """Which level of each factor a case is at. `engine` is a generation such as vllm-0.6; `routed`: the model has routed experts."""
    of_weights = WEIGHT_CLASSES.get(weights, weights)
    of_accelerator = accelerator_class(accelerator)
    return {
        "class": of_accelerator,
        "accelerator": accelerator.id,
        "family": engine.split("-")[0],
        "engine": engine,
        "weights": of_weights,
        "class and weights": f"{of_accelerator} {of_weights}",
        "kind": "routed" if routed else "dense",
        "group": group(accelerator.id, engine, weights),
    }


def is_eager(engine: str) -> bool:
    """Whether an engine generation launches its kernels one by one, without CUDA graphs."""
    return engine.endswith("-eager")


def group(accelerator: str, engine: str, weights: str) -> str:
    """The name of a group: accelerator id, engine generation and weight class."""
    return f"{accelerator} {engine} {WEIGHT_CLASSES.get(weights, weights)}"


def natural(parameter: str, log_value: Any, xp: Any = np) -> Any:
    """The value of a parameter from its logarithm: shares of a peak are bent above `BEND` and stay below 1. `xp`: numpy or jax.numpy."""
    value = xp.exp(log_value)
    if not PARAMETERS[parameter].share:
        return value
    above = BEND + (1 - BEND) * xp.tanh((log_value - np.log(BEND)) * BEND / (1 - BEND))
    return xp.where(log_value < np.log(BEND), value, above)


def narrowing(parameter: str, value: float) -> float:
    """Standard deviation of the logarithm of a value over that of the logarithm that `natural` takes: below 1 where shares are bent."""
    if not PARAMETERS[parameter].share or value < BEND:
        return 1.0
    return BEND * (1 - ((value - BEND) / (1 - BEND)) ** 2) / value


def composed(parameter: str, effects: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], at: Mapping[str, str]) -> tuple[float, float]:
    """(logarithm, its standard deviation) of a parameter at these levels, from fitted effects; an effect that no row tells is 0 with its prior's spread."""
    log_value, variance = 0.0, 0.0
    for factor, spread in zip(FACTORS, PARAMETERS[parameter].spread, strict=True):
        mean, sd = effects.get(factor, {}).get(at[factor], {}).get(parameter, (0.0, spread))
        log_value, variance = log_value + mean, variance + sd**2
    return log_value, float(np.sqrt(variance))
