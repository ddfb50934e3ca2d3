"""One method of compressing the KV cache: what it cuts, what it costs, what runs it, and what is known of its accuracy."""

from __future__ import annotations

from functools import cache
from typing import Literal, Self

from pydantic import Field, model_validator

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs.evidence import Frozen
from kvopt.inputs.sourced import Sourced, Tag, checked

Dimension = Literal["layer", "head", "token", "rank", "bits", "prefill"]
DIMENSIONS: tuple[Dimension, ...] = ("layer", "head", "token", "rank", "bits", "prefill")
Where = Literal["engine-ready", "research library", "needs a trained checkpoint"]
POOLS: dict[Dimension, tuple[str, ...]] = {
    "layer": ("shared", "merged", "trained-sharing", "removed"),
    "head": ("static-heads", "head-budgets", "fewer-kv-heads"),
    "token": ("scored", "agnostic", "reconstruction", "window", "random", "prompt", "retrieval", "decoding"),
    "rank": ("one-shot", "cross-layer", "trained-latent"),
    "bits": ("careful", "plain", "float4"),
    "prefill": ("sparse-attention",),
}
"""Kinds of method within a dimension: what a method with few measurements of its own borrows from.

token: scored by attention (SnapKV, H2O), without looking at the question (norms, expected attention), by reconstructing the context (KVzip), a window
(StreamingLLM), random, compression of the prompt's text, retrieval at every step (Quest, InfLLM: nothing is dropped), eviction while decoding.
"""
RESELECT = "+reselect"  # ending of a method's id: it keeps the whole cache and sees every question


class CutsSpec(Frozen):
    """Which of the four sums the kept share applies to: 1 in full, 0 not at all."""

    stored: float = Field(ge=0, le=1, description="bytes held")
    read: float = Field(ge=0, le=1, description="bytes read per decoded token")
    moved: float = Field(ge=0, le=1, description="bytes moved when a session is parked or transferred")
    prefill: float = Field(ge=0, le=1, description="prefill work")
    source: str = Field(min_length=3)
    tag: Tag


class Format(Frozen):
    """One pair of precisions that a bits method can store, without scales."""

    key_bits: float = Field(ge=1, le=16)
    value_bits: float = Field(ge=1, le=16)


class Keeps(Frozen):
    """The kept shares that can be deployed: a list of values, or any value in a range."""

    values: tuple[float, ...] = ()
    range: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        given = self.values or self.range or ()
        if bool(self.values) == (self.range is not None):
            raise ValueError("give either values or range")
        if not all(0 < value <= 1 for value in given) or list(given) != sorted(given):
            raise ValueError("kept shares must rise and lie in (0, 1]")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest share."""
        return self.range if self.range is not None else (self.values[0], self.values[-1])


class RunsIn(Frozen):
    """How an engine or a library is told to use the method."""

    engine: Literal["vllm", "sglang", "trtllm", "lmdeploy", "hf"]
    setting: str = Field(min_length=2, description="flag and value, or class")
    version: str = Field(min_length=1, description="engine or library version that this was read from")
    masks_only: str | None = Field(None, min_length=3, description="source that says that what it drops is only masked here: no memory is freed")
    own_code: bool = Field(False, description="code of its own that changes the engine, not the engine as it is installed")


class MethodSpec(Frozen):
    """A method as its catalog file writes it. Exactly one dimension; a keep share (`allowed`) or precisions (`formats`) to choose from."""

    id: str
    name: str
    dimension: Dimension
    about: str = Field(description="one or two sentences, with the paper")
    needs: Literal["none", "training", "question", "extra prefill"] = "none"
    where: Where
    runs_in: tuple[RunsIn, ...] = ()
    excludes: tuple[str, ...] = Field((), description="ids of methods, or dimensions, that it cannot be combined with")
    pool: str = Field("", description="kind of method within its dimension, see POOLS; empty: nothing to borrow accuracy from")
    labels: tuple[str, ...] = Field((), description="how published tables write it, without their remarks in parentheses")
    cuts: CutsSpec
    allowed: Keeps | None = None
    formats: tuple[Format, ...] = ()
    full_until_prefilled: bool = Field(False, description="nothing is cut until the whole prompt is prefilled")
    reselects: bool = Field(False, description="the whole cache is kept, and selected from anew for each question")
    edge_layers_16bit: int = Field(0, ge=0, description="first and last layers, this many each, that stay in 16 bits")
    streaming_tokens: Sourced[float] | None = Field(None, description="sink + recent tokens kept by a streaming head")
    scale_bits_per_element: Sourced[float] | None = Field(None, description="group-wise scales and zeros, bits per stored element")
    scale_bits_per_vector: Sourced[float] | None = Field(None, description="scales per token, head and tensor [bits]")
    read_efficiency: Sourced[float] | None = Field(None, description="bytes/s of reading this cache over those of a 16-bit one; absent: 1")
    score_read: Sourced[float] | None = Field(None, description="share of the full K read at every step to choose what to read")
    reconstruct: bool = Field(False, description="low-rank K and V are expanded at every step")
    extra_prefill: Sourced[float] | None = Field(None, description="extra prefill work, share of the prompt's own")

    @model_validator(mode="after")
    def _fits_its_dimension(self) -> Self:
        if self.dimension == "bits" and (not self.formats or self.allowed is not None):
            raise ValueError("a bits method has formats, not allowed")
        if self.dimension != "bits" and (self.formats or self.allowed is None):
            raise ValueError("a method that keeps a share has allowed, not formats")
        if self.pool and self.pool not in POOLS[self.dimension]:
            raise ValueError(f"pool: a {self.dimension} method is one of {', '.join(POOLS[self.dimension])}")
        if self.where == "engine-ready" and not self.runs_in:
            raise ValueError("an engine-ready method names in runs_in what runs it")
        return self

    def placed(self, engine: str) -> RunsIn | None:
        """How the engine, as it is installed, is told to use the method; none where it cannot, or frees no memory with it."""
        if self.where == "needs a trained checkpoint":
            return None
        return next((entry for entry in self.runs_in if entry.engine == engine and not entry.masks_only and not entry.own_code), None)

    def runs_on(self, engine: str) -> bool:
        """Whether a plan with this method can be deployed on the engine today: who names a research library has it."""
        return self.placed(engine) is not None


def reselecting(method: MethodSpec) -> MethodSpec:
    """The method where it sees every question: it keeps the whole cache and selects from it anew each time, so that only reads shrink.

    Scoring costs no read of its own: a question's tokens attend to the whole cache when they are prefilled.
    """
    kept = CutsSpec(
        stored=0, read=method.cuts.read, moved=0, prefill=0, source="all of the cache stays; the selection is what is read", tag="derived"
    )
    changes = {
        "id": method.id + RESELECT,
        "name": f"{method.name}, selecting anew for each question",
        "where": "research library",
        "runs_in": (),
        "cuts": kept,
        "full_until_prefilled": False,
        "reselects": True,
    }
    return method.model_copy(update=changes)


def can_reselect(method: MethodSpec) -> bool:
    """Whether the selection follows the question, so that seeing it is worth keeping the whole cache."""
    return method.dimension == "token" and method.pool == "scored"


@cache
def load(name: str) -> MethodSpec:
    """The catalog's method of this id; `ID+reselect` where it sees every question. Raises `BadInput` for an unknown id or a faulty file."""
    base = name.removesuffix(RESELECT)
    if base != name:
        method = load(base)
        if not can_reselect(method):
            raise BadInput("methods", name, f"only methods that score tokens by the question's attention can select anew; {base} does not")
        return reselecting(method)
    return checked(MethodSpec, catalog.read("methods", name), "method", f"the catalog's method {name}")


@cache
def load_all() -> tuple[MethodSpec, ...]:
    """Every method of the catalog, sorted by id."""
    return tuple(load(name) for name in catalog.ids("methods"))
