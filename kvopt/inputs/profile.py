"""How much of an accelerator's peaks an engine reaches: fitted profiles, and the theory's, in which everything reaches everything."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kvopt import catalog
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.inputs.engine import EngineSpec
from kvopt.inputs.sourced import NonNegative, Positive, Sourced, checked
from objectives.types import Efficiency

GIB = 2.0**30
SAMPLER_BYTES = 14.15  # per sequence and vocabulary entry: slope of the sampler's peak in vLLM >= 0.17 start-up logs (Qwen3-14B: 2.23 GiB at 1024)
ACTIVATION_BYTES = 2.0  # 16-bit activations: vLLM logs of Llama-3.1-8B, 110.6 kB per token = 2 B * (3 * 14336 + 3 * 4096)
CONTEXT_GIB, GRAPHS_GIB, SAMPLER_BASE_GIB = 0.25, 0.5, 0.18  # per GPU, vLLM >= 0.21 start-up logs, medians
PARALLEL_GIB = {True: 1.85, False: 0.15}  # more per GPU of a group: with NVLink-class links, over PCIe (2.1 and 0.4 in all)
MEMORY_SD_GIB = 0.5  # half a GiB more covers 95 % of 57 logs of vLLM >= 0.17
HOST_LINK = 0.65  # share of the nominal link that engine-level offload reaches: LMCache 41-44 GB/s of 64, a DRAM hit on H20 40
ALLREDUCE = 0.6  # share of the one-way scale-up bandwidth, same fit as the profiles


class Profile(BaseModel):
    """One fitted profile as its catalog file writes it. Empty lists match everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    about: str
    archs: tuple[str, ...] = Field((), description="accelerator generations, as their catalog files write `arch`")
    accelerators: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    weights: tuple[str, ...] = Field((), description="weight formats")
    mfu: Sourced[Positive] = Field(description="share of the peak that prefill reaches")
    mbu: Sourced[Positive] = Field(description="share of the memory bandwidth that decoding reaches")
    prefill_layer_us: Sourced[NonNegative] = Field(description="[us] per layer and step with prompt tokens")
    decode_layer_us: Sourced[NonNegative] = Field(description="[us] per layer and decode step")
    parallel_layer_us: Sourced[NonNegative] = Field(description="[us] more per layer where ranks share it")
    server_ms: Sourced[NonNegative] = Field(description="[ms] constant in TTFT")
    prefill_log_sd: Sourced[NonNegative] = Field(description="spread of ln(measured / predicted), prefill and TTFT")
    decode_log_sd: Sourced[NonNegative] = Field(description="the same, decode and TPOT")

    def match(self, accelerator: AcceleratorSpec, engine: str, weights: str) -> int:
        """How closely the profile speaks of a case: -1 not at all, else more for each thing that it names."""
        asked = (
            (self.accelerators, accelerator.id, 8),
            (self.archs, accelerator.arch, 4),
            (self.weights, weights, 2),
            (self.engines, engine, 1),
        )
        if any(named and value not in named for named, value, _ in asked):
            return -1
        return sum(points for named, _, points in asked if named)

    def efficiency(self, accelerator: AcceleratorSpec, memory_fraction: float) -> Efficiency:
        """The profile as the mathematics takes it, float64 leaves; memory reserves as vLLM's start-up logs show them."""
        linked = bool(accelerator.scaleup_link) and "pcie" not in accelerator.scaleup_link.lower()
        values = {
            "mfu": self.mfu.value,
            "mfu_attention": self.mfu.value,
            "mbu": self.mbu.value,
            "mbu_kv": self.mbu.value,
            "prefill_layer_s": self.prefill_layer_us.value * 1e-6,
            "decode_layer_s": self.decode_layer_us.value * 1e-6,
            "parallel_layer_s": self.parallel_layer_us.value * 1e-6,
            "server_s": self.server_ms.value * 1e-3,
            "allreduce": ALLREDUCE,
            "host_link": HOST_LINK,
            "exposed_switch": 0.0,  # connectors copy while the group computes; the request that waits for its cache still waits
            "append_only": 1.0,
            "memory_fraction": memory_fraction,
            "context_bytes": (CONTEXT_GIB + GRAPHS_GIB + SAMPLER_BASE_GIB) * GIB,
            "parallel_bytes": PARALLEL_GIB[linked] * GIB,
            "sampler_bytes": SAMPLER_BYTES,
            "activation_bytes": ACTIVATION_BYTES,
            "prefill_log_sd": self.prefill_log_sd.value,
            "decode_log_sd": self.decode_log_sd.value,
            "memory_sd_bytes": MEMORY_SD_GIB * GIB,
        }
        return Efficiency(**{name: np.float64(value) for name, value in values.items()})


def peak() -> Efficiency:
    """The theory of arXiv 2405.08944: every peak reached, no overheads, communication free, context switches exposed and whole."""
    ones = dict.fromkeys(("mfu", "mfu_attention", "mbu", "mbu_kv", "host_link", "exposed_switch", "memory_fraction"), 1.0)
    zeros = {name: 0.0 for name in Efficiency.__dataclass_fields__ if name not in ones}
    return Efficiency(**{name: np.float64(value) for name, value in {**zeros, **ones, "allreduce": 1e12}.items()})


@cache
def load_all() -> tuple[Profile, ...]:
    """Every profile of the catalog."""
    return tuple(checked(Profile, catalog.read("profiles", name), "profile", f"{name}.yaml") for name in catalog.ids("profiles"))


def closest(accelerator: AcceleratorSpec, engine: str, weights: str) -> Profile:
    """The profile that speaks most closely of this accelerator, engine and weight format; the default one speaks of all."""
    return max(load_all(), key=lambda profile: profile.match(accelerator, engine, weights))


def memory_fraction(engine: EngineSpec) -> float:
    """Share of all memory that the engine takes for weights, activations and caches; 0.9 where it computes it itself."""
    return engine.memory.share if engine.memory.share is not None and engine.memory.base == "total memory" else 0.9
