"""One serving engine: which settings it has, what it fills in where none is given, and what it cannot do."""

from __future__ import annotations

from functools import cache
from typing import Literal, Self

from pydantic import Field, model_validator

from kvopt import catalog
from kvopt.inputs.evidence import Frozen
from kvopt.inputs.sourced import checked

Fate = Literal["recompute", "park"]


class KvFormat(Frozen):
    """A bits method that the engine can run, and where."""

    method: str = Field(description="id of a bits method")
    setting: str = Field(min_length=2)
    archs: tuple[str, ...] = Field((), description="accelerator generations with kernels for it, as their catalog files write `arch`; empty: all")
    not_on: tuple[str, ...] = Field((), description="accelerator ids that begin so have none, although of such a generation")
    full_attention: bool = Field(False, description="only for models whose layers all keep the whole context")
    source: str = Field(min_length=3)


class ByMemory(Frozen):
    """A default that depends on the accelerator's memory: the first entry whose threshold is met holds."""

    at_least_gib: float = Field(ge=0, description="accelerator memory [GiB]")
    not_on: tuple[str, ...] = Field((), description="accelerator ids that begin so are passed over")
    value: int = Field(ge=1)


class Parallelism(Frozen):
    """How a model can be spread over accelerators, each with its setting; absent where the engine has none."""

    tensor: str | None = None
    pipeline: str | None = None
    decode_context: str | None = Field(None, description="ranks of the tensor-parallel group that split the tokens of a KV head")
    decode_context_rule: Literal["none", "divides tp; GQA: dcp <= tp / kv_heads", "divides tp"] = "none"
    attention_data: str | None = Field(None, description="ranks of the group that hold whole sessions")
    expert: str | None = None
    replicas: str | None = None
    source: str = Field(min_length=3)

    def decode_context_sizes(self, tensor_parallel: int, kv_heads: int, latent: bool) -> tuple[int, ...]:
        """The decode-context-parallel sizes allowed for a group; `latent`: the cache is one latent per token (MLA)."""
        if self.decode_context is None:
            return (1,)
        limit = tensor_parallel
        if not latent and self.decode_context_rule.startswith("divides tp; GQA"):
            limit = tensor_parallel // kv_heads
        return tuple(size for size in range(1, tensor_parallel + 1) if tensor_parallel % size == 0 and size <= max(1, limit))


class MemoryShare(Frozen):
    """The default share of memory that an engine takes, and of what: the three bases must never be mixed."""

    share: float | None = Field(gt=0, le=1, description="absent: computed by the engine from the reserve")
    base: Literal["total memory", "memory free after weights", "weights and KV pool of total memory"]
    setting: str
    source: str = Field(min_length=3)


class Chunking(Frozen):
    """How many prompt tokens a step carries."""

    setting: str
    on_by_default: bool
    defaults: tuple[ByMemory, ...] = Field(description="[tokens]")
    smallest: int = Field(ge=1, description="[tokens]")
    largest: int = Field(ge=1, description="[tokens]")
    multiple: int = Field(ge=1, description="a chunk is a multiple of this [tokens]")
    source: str = Field(min_length=3)

    @property
    def candidates(self) -> tuple[int, ...]:
        """Chunk sizes worth trying: powers of two from the smallest to the largest [tokens]."""
        return tuple(size for size in (2**power for power in range(30)) if self.smallest <= size <= self.largest and size % self.multiple == 0)


class MaxSequences(Frozen):
    """How many requests an engine runs at once at most."""

    setting: str
    defaults: tuple[ByMemory, ...]
    source: str = Field(min_length=3)


class Feature(Frozen):
    """Something an engine has or has not."""

    available: bool
    on_by_default: bool = False
    setting: str | None = None
    source: str = Field(min_length=3)


class EngineSpec(Frozen):
    """An engine as its catalog file writes it."""

    id: str
    name: str
    version: str = Field(description="version that settings and defaults were read from")
    fitted_as: str = Field("", description="the engine's name in measurements, where it is not its id")
    vendors: tuple[str, ...] = Field(
        (), description="makers of the accelerators that it runs on, as their catalog files write them; empty: not restricted"
    )
    kv_formats: tuple[KvFormat, ...] = Field((), description="precisions of the cache besides 16 bit")
    parallelism: Parallelism
    idle: tuple[Fate, ...] = Field(min_length=1, description="what can become of an idle session's cache once it must leave HBM")
    parking: Feature
    prefix_caching: Feature
    per_layer_precision: Feature
    disaggregated_prefill: Feature
    chunking: Chunking
    max_sequences: MaxSequences
    memory: MemoryShare
    block_tokens: int = Field(ge=1, description="tokens of a cache block by default")

    @model_validator(mode="after")
    def _parks_with_something(self) -> Self:
        if ("park" in self.idle) != self.parking.available:
            raise ValueError("idle has park exactly where parking is available")
        return self

    @property
    def generation(self) -> str:
        """The engine as profiles name it."""
        return self.fitted_as or self.id

    def formats_on(self, arch: str, accelerator: str = "", windowed: bool = False) -> tuple[str, ...]:
        """Ids of the bits methods that it can run on an accelerator of this generation and id; `windowed`: for a model with sliding-window layers."""
        fitting = [entry for entry in self.kv_formats if (not entry.archs or arch in entry.archs) and not (windowed and entry.full_attention)]
        return tuple(entry.method for entry in fitting if not _begins(accelerator, entry.not_on))

    def chunk(self, memory_gib: float, accelerator: str = "") -> int:
        """Default prompt tokens per step on an accelerator of this memory [GiB] and id."""
        return _default(self.chunking.defaults, memory_gib, accelerator)

    def sequences(self, memory_gib: float, accelerator: str = "") -> int:
        """Default cap on requests in flight on an accelerator of this memory [GiB] and id."""
        return _default(self.max_sequences.defaults, memory_gib, accelerator)


@cache
def load(name: str) -> EngineSpec:
    """The catalog's engine of this id. Raises `BadInput` for an unknown id or a faulty file."""
    return checked(EngineSpec, catalog.read("engines", name), "engine", f"the catalog's engine {name}")


@cache
def load_all() -> tuple[EngineSpec, ...]:
    """Every engine of the catalog, sorted by id."""
    return tuple(load(name) for name in catalog.ids("engines"))


def _default(entries: tuple[ByMemory, ...], memory_gib: float, accelerator: str) -> int:
    for entry in entries:
        if memory_gib >= entry.at_least_gib and not _begins(accelerator, entry.not_on):
            return entry.value
    return entries[-1].value


def _begins(accelerator: str, prefixes: tuple[str, ...]) -> bool:
    return accelerator.lower().startswith(prefixes)
