"""What the generations of serving engines set aside, as data: `kvopt/catalog/capacity`, one file per generation, written by `kvopt.capacity.fit`."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs.sourced import NonNegative, Positive, Sourced, checked

Version = tuple[int, int, int]
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_VLLM_RELEASES: tuple[tuple[tuple[int, int], Version], ...] = (
    ((2023, 9), (0, 1, 0)), ((2024, 2), (0, 2, 0)), ((2024, 5), (0, 4, 0)), ((2024, 11), (0, 5, 0)), ((2025, 4), (0, 7, 0)), ((2026, 1), (0, 10, 0)),
)  # fmt: skip
"""The vLLM release that was current before a month (release notes): "main (Apr 2024)" is 0.4."""


class Constant(Sourced[NonNegative]):
    """One constant; `spread` is one standard deviation, in the value's own unit."""

    spread: NonNegative


class Spread(BaseModel):
    """How far a predicted pool lies from the printed one: s^2 = base^2 + (share_of_reserve * reserve)^2 + (share_of_weights * weights)^2 per GPU.

    The error over s is a two-piece Student t with `dof` degrees of freedom: `low` and `high` are its scales below and above the prediction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_gib: Constant
    share_of_reserve: Constant
    share_of_weights: Constant
    low: Constant = Field(description="scale of the pools that are smaller than predicted")
    high: Constant = Field(description="scale of the pools that are larger than predicted")
    dof: Sourced[Positive]


class Generation(BaseModel):
    """One generation of an engine: which rule sizes its pool, what it takes first, and how it prints the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    engine: Literal["vllm", "sglang", "trtllm"]
    about: str
    since: Version = Field(description="first version")
    rule: Literal["profiled", "static", "free"] = Field(
        description="profiled: share of all memory, less weights and what one dummy step took; static: share of the memory free before loading, less the "
        "weights; free: share of the memory that is free once everything is loaded"
    )
    utilisation: Sourced[Positive] = Field(description="the share, where none is set")
    sampler_bytes: Constant = Field(description="per sequence and vocabulary entry, at the peak of the sampler's pass [bytes]")
    sampler_base_gib: Constant = Field(description="the same pass, whatever its size [GiB]")
    token_pass: Constant = Field(description="share of the widest layer's activations that are alive at once")
    expert_scratch: Constant = Field(description="share of the experts' workspace that stays allocated during the sampler's pass")
    single_gib: Constant = Field(description="non-torch memory of one rank [GiB]")
    linked_gib: Constant = Field(description="more, per rank of a tensor-parallel group with NVLink-class links [GiB]")
    unlinked_gib: Constant = Field(description="more, per rank of a tensor-parallel group over PCIe [GiB]")
    node_gib: Constant = Field(description="more, per rank of a group over several hosts [GiB]")
    graphs_gib: Constant = Field(description="CUDA graphs inside the budget, per 64 layers, captured for 256 sequences and more [GiB]")
    context_gib: Constant = Field(description="outside the budget: CUDA context of one rank [GiB]")
    group_context_gib: Constant = Field(description="outside the budget: context and NCCL of a rank of a group with NVLink-class links [GiB]")
    graphs_outside_gib: Constant = Field(description="outside the budget: CUDA graphs, per 64 layers of a dense model [GiB]")
    spread: Spread
    prints: Literal["blocks", "blocks per group", "concurrency"] = Field(description="what the printed token count is made of")
    hybrid: bool = Field(description="whether layers with a window hold no more than it")
    state_blocks: int = Field(ge=1, description="blocks that a request holds per group of layers with a state")
    batches_in_flight: int = Field(ge=1, description="steps whose tokens a window must hold beside it")
    source: str = Field(min_length=3, description="where the rules are from")


@cache
def load(name: str) -> Generation:
    """The catalog's generation of this id. Raises `BadInput`."""
    return checked(Generation, {"id": name, **catalog.read("capacity", name)}, "capacity", f"{name}.yaml")


def load_all() -> tuple[Generation, ...]:
    """Every generation, sorted by id."""
    return tuple(load(name) for name in catalog.ids("capacity"))


def engines() -> tuple[str, ...]:
    """Ids of the engines whose rules are known, sorted."""
    return tuple(sorted({entry.engine for entry in load_all()}))


def version_of(text: str) -> Version | None:
    """The version in what people write it: 0.19.0, 0.17.1rc1.dev88, v0.10; or of a month, "main (Apr 2024)". None where it says neither."""
    dated = re.search(rf"({'|'.join(_MONTHS)})[a-z]*\.? (20\d\d)", text.lower())
    if dated:
        when = (int(dated[2]), _MONTHS.index(dated[1]) + 1)
        return next((version for before, version in _VLLM_RELEASES if when < before), (0, 11, 0))
    found = re.search(r"(?<![\w.])v?(\d+)\.(\d+)(?:\.(\d+))?", text.lower())
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def generation(engine: str, version: str = "", fallback: str = "") -> Generation:
    """The generation of an engine's version; without a version the generation `fallback`, or the engine's newest. Raises `BadInput`."""
    known = sorted((entry for entry in load_all() if entry.engine == engine), key=lambda entry: entry.since)
    if not known:
        raise BadInput("engine", engine, f"no capacity rules; one of {', '.join(engines())}")
    asked = version_of(version)
    if asked is None:
        return load(fallback) if fallback else known[-1]
    return next((entry for entry in reversed(known) if entry.since <= asked), known[0])


def with_values(base: Generation, values: dict[str, float]) -> Generation:
    """A copy with other values of the named constants (`spread.low` for those inside); used while fitting."""
    update: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for name, value in values.items():
        owner, field = (inner, name.removeprefix("spread.")) if name.startswith("spread.") else (update, name)
        old = getattr(base.spread if owner is inner else base, field)
        owner[field] = old.model_copy(update={"value": value})
    if inner:
        update["spread"] = base.spread.model_copy(update=inner)
    return base.model_copy(update=update)
