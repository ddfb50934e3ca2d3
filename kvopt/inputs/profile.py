"""How much of an accelerator's peaks an engine reaches: the fitted profile of a case, and the theory's, in which everything reaches everything.

The fit is `kvopt/catalog/profiles/fitted.yaml`, written by `python -m kvopt.calibration.publish`; `kvopt.inputs.hierarchy` says what it depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kvopt import catalog
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.inputs.hierarchy import PARAMETERS, composed, is_eager, levels, natural
from kvopt.inputs.sourced import Sourced, checked
from objectives.types import Efficiency

HOST_LINK = 0.65  # share of the nominal link that engine-level offload reaches
HOST_LINK_SOURCE = "LMCache 41-44 GB/s of 64, a DRAM hit on H20 40"
ONE_SIDED = 1.645  # standard deviations of a normal between the middle and its 95 % quantile
BENCHMARK_ONLY = ("waves", "ahead")  # parameters that say how benchmarks are run

Pair = tuple[float, float]


class Group(BaseModel):
    """What a fitted group rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    models: tuple[str, ...]
    sources: tuple[str, ...]


class Fitted(BaseModel):
    """The fit as its catalog file holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=10)
    start: dict[str, float] = Field(description="logarithm of each parameter before any effect")
    effects: dict[str, dict[str, dict[str, Pair]]] = Field(description="factor, level, parameter: (effect on the logarithm, its standard deviation)")
    groups: dict[str, Group]
    group_sd: dict[str, dict[str, float]] = Field(description="group, parameter: standard deviation of its logarithm, all effects together")
    spread: dict[str, dict[str, Pair]] = Field(
        description="quantity, evidence (model, group, none): 5 and 95 % quantiles of ln(measured / predicted) over left-out rows"
    )


@dataclass(frozen=True)
class Figure:
    """A parameter of a profile: its value, and the standard deviation of its logarithm."""

    value: float
    log_sd: float


@dataclass(frozen=True)
class Profile:
    """The profile of an accelerator, engine and weight format."""

    id: str  # the group
    evidence: str  # model: measured with this (dense) model; group: with others, or a mixture of experts; none: from class, engine and format
    rows: int  # measured in this group
    figures: dict[str, Figure]
    prefill_log_sd: float  # spread of ln(measured / predicted), prefill and TTFT
    decode_log_sd: float  # the same, decode and TPOT
    host_link: float = HOST_LINK

    def efficiency(self, memory: Mapping[str, float]) -> Efficiency:
        """The profile as the mathematics takes it, float64 leaves; `memory`: what the engine keeps from the caches (`kvopt.inputs.reserves`)."""
        values = {
            **{name: figure.value for name, figure in self.figures.items() if name not in BENCHMARK_ONLY},
            "host_link": self.host_link,
            "exposed_switch": 0.0,  # connectors copy while the group computes; the request that waits for its cache still waits
            "append_only": 1.0,
            "prefill_log_sd": self.prefill_log_sd,
            "decode_log_sd": self.decode_log_sd,
            **memory,
        }
        return Efficiency(**{name: np.float64(value) for name, value in values.items()})


def peak() -> Efficiency:
    """The theory of arXiv 2405.08944: every peak reached, no overheads, communication free, context switches exposed and whole."""
    ones = dict.fromkeys(
        ("mfu", "mfu_attention", "mbu", "mbu_kv", "mfu_experts", "host_link", "exposed_switch", "memory_fraction", "pool_fraction"), 1.0
    )
    zeros = {name: 0.0 for name in Efficiency.__dataclass_fields__ if name not in ones}
    return Efficiency(**{name: np.float64(value) for name, value in {**zeros, **ones, "allreduce": 1e12}.items()})


@cache
def fitted() -> Fitted:
    """The catalog's fit."""
    return checked(Fitted, catalog.read("profiles", "fitted"), "profile", "fitted.yaml")


def closest(accelerator: AcceleratorSpec, engine: str, weights: str, model: str = "", routed: bool = False, fit: Fitted | None = None) -> Profile:
    """The profile of a case: fitted where it was measured, else put together from its class, engine and weight format, with a wider spread.

    `engine`: a generation (`vllm`, `vllm-0.6`, ...); `model`: catalog id, which decides how far the evidence speaks of it. What the accelerator's own file
    says it was measured to reach comes first.
    """
    fit = fit or fitted()
    at = levels(accelerator, engine, weights, routed)
    known = fit.groups.get(at["group"])
    evidence = "none" if known is None or is_eager(engine) else "model" if model in known.models and not routed else "group"
    figures = {}
    for name in PARAMETERS:
        log_value, log_sd = composed(name, fit.effects, at)
        log_sd = fit.group_sd.get(at["group"], {}).get(name, log_sd)
        figures[name] = Figure(float(natural(name, fit.start[name] + log_value)), log_sd)
    profile = Profile(
        id=at["group"],
        evidence=evidence,
        rows=known.rows if known else 0,
        figures=figures,
        prefill_log_sd=_log_sd(fit, ("prefill_s", "ttft_s"), evidence),
        decode_log_sd=_log_sd(fit, ("tpot_ms",), evidence),
    )
    return _measured(profile, accelerator, at)


def _log_sd(fit: Fitted, quantities: tuple[str, ...], evidence: str) -> float:
    widths = [abs(end) for quantity in quantities for end in fit.spread[quantity][evidence]]
    return float(np.mean(widths)) / ONE_SIDED


def _measured(profile: Profile, accelerator: AcceleratorSpec, at: Mapping[str, str]) -> Profile:
    """The profile with what the accelerator's own file was measured to reach, where that was with this engine and weight format."""
    own = accelerator.efficiency
    if own is None or own.engine not in ("", at["engine"]) or own.weights not in ("", at["weights"]):
        return profile
    stated = {name: number.value for name in type(own).model_fields if isinstance(number := getattr(own, name), Sourced)}
    scales = {"us": 1e-6, "ms": 1e-3}
    figures = dict(profile.figures)
    for name, value in stated.items():
        stem, _, unit = name.rpartition("_")
        field, value = (f"{stem}_s", value * scales[unit]) if unit in scales else (name, value)
        if field in figures:
            figures[field] = Figure(value, 0.0)
    return Profile(
        id=f"measured: {accelerator.id}",
        evidence="model",
        rows=profile.rows,
        figures=figures,
        prefill_log_sd=stated.get("prefill_log_sd", profile.prefill_log_sd),
        decode_log_sd=stated.get("decode_log_sd", profile.decode_log_sd),
        host_link=stated.get("host_link", profile.host_link),
    )
