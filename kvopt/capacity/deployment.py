"""One deployment as an engine starts it: a model on a kind of accelerator with the settings that decide how much memory is left for caches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

from kvopt.capacity.constants import Generation, Version
from kvopt.capacity.towers import Tower
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.inputs.model import ModelSpec

GIB = 2.0**30
RANKS_PER_HOST = 8  # more ranks than this span hosts (assumed: the usual server)


@dataclass(frozen=True)
class Deployment:
    """What decides the pool. Settings left out are the engine's defaults (`with_defaults`)."""

    model: ModelSpec
    generation: Generation
    visible_bytes: float  # that CUDA reports, per GPU
    large: bool = True  # a card that engines give large defaults: 70 GiB and more, and no A100 (vLLM 0.33: arg_utils)
    linked: bool = False  # NVLink-class links between the ranks
    amd: bool = False
    version: Version | None = None
    tp: int = 1
    pp: int = 1
    dp: int = 1  # data-parallel replicas of the attention that share the experts
    stages: tuple[int, ...] = ()  # layers per pipeline stage, where they are not even
    utilisation: float = 0.0
    max_sequences: int = 0
    chunk: int = 0  # most tokens of one step: max_num_batched_tokens
    max_model_len: int = 0
    kv_format: str = "auto"
    block_tokens: int = 0
    weights: str = "bf16"
    experts_only: bool = False  # the weight format holds for the routed experts alone, the rest is 16 bit
    offloaded_bytes: float = 0.0  # weights kept in host memory, per GPU
    eager: bool = False  # no CUDA graphs
    tower: Tower | None = None  # what a multimodal checkpoint has beside the language model
    dcp: int = 1  # decode-context-parallel ranks: the tokens of a sequence are split over them

    @cached_property
    def bytes_per_element(self) -> int:
        """Of activations and of a cache in `auto`: 4 for a model run in 32 bit, else 2."""
        return 4 if self.weights == "fp32" else 2

    @cached_property
    def hosts(self) -> bool:
        """Whether the ranks span hosts."""
        return self.tp * self.pp > RANKS_PER_HOST

    @cached_property
    def chunked(self) -> bool:
        """Whether prompts are cut: always in vLLM V1; in V0 where the step is set below the model's length."""
        return self.chunk < self.max_model_len or (self.generation.rule == "profiled" and self.generation.hybrid)

    def with_defaults(self) -> Deployment:
        """The engine's own values where none is set.

        vLLM V0 cuts prompts only above 32,768 tokens of model length (0.5.5 to 0.8, not on AMD as its guides run it), else one step carries a whole prompt.
        vLLM V1: 8,192 tokens and 1,024 sequences on large cards (sequences from 0.8.5), 2,048 and 256 on others, 16,384 tokens from
        160 GiB on (0.21). TensorRT-LLM: 8,192 tokens and 2,048 sequences.
        """
        length = self.max_model_len or self.model.max_context or 0
        chunk, sequences = self.chunk, self.max_sequences
        engine, new = self.generation.engine, self.generation.hybrid
        if engine == "vllm" and not new:
            cut = length > 32768 and not self.amd and self.generation.id != "vllm-early"
            chunk, sequences = chunk or (2048 if cut else max(length, 2048)), sequences or 256
        elif engine == "vllm":
            huge = self.visible_bytes >= 160 * GIB and self.generation.since >= (0, 21, 0)
            chunk = chunk or (16384 if huge else 8192 if self.large else 2048)
            sequences = sequences or (1024 if self.large and (self.version or (0, 9, 0)) >= (0, 8, 5) else 256)
        else:
            chunk, sequences = chunk or 8192, sequences or 2048
        block = self.block_tokens or {"vllm": 16, "sglang": 1, "trtllm": 32}[engine]
        share = self.utilisation or self.generation.utilisation.value
        return replace(self, chunk=chunk, max_sequences=sequences, max_model_len=length, block_tokens=block, utilisation=share)


class Card(TypedDict):
    """The fields of `Deployment` that an accelerator decides."""

    visible_bytes: float
    large: bool
    linked: bool
    amd: bool


def on_card(accelerator: AcceleratorSpec, visible_gib: float | None = None) -> Card:
    """The fields of `Deployment` that an accelerator decides; `visible_gib` is the memory that was logged, where it was."""
    catalogued = (accelerator.logged_bytes or accelerator.memory).value
    visible = visible_gib * GIB if visible_gib else catalogued
    link = accelerator.scaleup_link.lower()
    return {
        "visible_bytes": visible,
        "large": visible >= 70 * GIB and "a100" not in accelerator.id,
        "linked": bool(link) and "pcie" not in link and "bridge" not in link,
        "amd": accelerator.vendor.lower() == "amd",
    }
