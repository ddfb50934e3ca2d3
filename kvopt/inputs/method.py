"""One method of compressing the KV cache: what it cuts, what it costs, what runs it, and what is known of its accuracy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kvopt import catalog
from kvopt.inputs.evidence import BitsCurve, Curve, Frozen, KeepCurve
from kvopt.inputs.sourced import Sourced, Tag, checked

Dimension = Literal["layer", "head", "token", "rank", "bits", "prefill"]
DIMENSIONS: tuple[Dimension, ...] = ("layer", "head", "token", "rank", "bits", "prefill")
Where = Literal["engine-ready", "research library", "needs a trained checkpoint"]


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
    cuts: CutsSpec
    allowed: Keeps | None = None
    formats: tuple[Format, ...] = ()
    full_until_prefilled: bool = Field(False, description="tokens are evicted only once the whole prompt is prefilled")
    edge_layers_16bit: int = Field(0, ge=0, description="first and last layers, this many each, that stay in 16 bits")
    streaming_tokens: Sourced[float] | None = Field(None, description="sink + recent tokens kept by a streaming head")
    scale_bits_per_element: Sourced[float] | None = Field(None, description="group-wise scales and zeros, bits per stored element")
    scale_bits_per_vector: Sourced[float] | None = Field(None, description="scales per token, head and tensor [bits]")
    read_efficiency: Sourced[float] | None = Field(None, description="bytes/s of reading this cache over those of a 16-bit one; absent: 1")
    score_read: Sourced[float] | None = Field(None, description="share of the full K read at every step to choose what to read")
    reconstruct: bool = Field(False, description="low-rank K and V are expanded at every step")
    extra_prefill: Sourced[float] | None = Field(None, description="extra prefill work, share of the prompt's own")
    keep_curves: tuple[KeepCurve, ...] = ()
    bits_curves: tuple[BitsCurve, ...] = ()

    @model_validator(mode="after")
    def _fits_its_dimension(self) -> Self:
        if self.dimension == "bits" and (not self.formats or self.allowed is not None or self.keep_curves):
            raise ValueError("a bits method has formats and bits_curves, not allowed and keep_curves")
        if self.dimension != "bits" and (self.formats or self.allowed is None or self.bits_curves):
            raise ValueError("a method that keeps a share has allowed and keep_curves, not formats and bits_curves")
        if self.where == "engine-ready" and not self.runs_in:
            raise ValueError("an engine-ready method names in runs_in what runs it")
        return self

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The evidence of its accuracy; empty where there is none, and then a search must not offer it."""
        return self.bits_curves if self.dimension == "bits" else self.keep_curves

    def runs_on(self, engine: str) -> bool:
        """Whether a plan with this method can be deployed on the engine today."""
        return self.where == "engine-ready" and any(entry.engine == engine for entry in self.runs_in)


def load(name: str) -> MethodSpec:
    """The catalog's method of this id. Raises `BadInput` for an unknown id or a faulty file."""
    return checked(MethodSpec, catalog.read("methods", name), "method", f"the catalog's method {name}")


def load_all() -> tuple[MethodSpec, ...]:
    """Every method of the catalog, sorted by id."""
    return tuple(load(name) for name in catalog.ids("methods"))
