"""How an engine cuts its pool into blocks, how many of them a request takes, and what the engine prints.

Rules of vLLM 0.33: v1/core/kv_cache_utils.py, v1/kv_cache_interface.py. Layers of one type are cut into groups of equal size, each with a block
table of its own; a block serves all layers of one group. Models of one type have one group, which is also how SGLang and TensorRT-LLM allocate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvopt.capacity.deployment import Deployment
from kvopt.capacity.formats import layer_bytes, old_vllm
from kvopt.errors import BadInput
from kvopt.inputs.model import LayerKind

Type = Literal["full", "window", "chunk", "state"]
PADDED_BELOW = 1.5  # the larger count is the group size where it is less than this times the smaller
ALIGNMENT = 16  # tokens: block sizes of hybrid models are multiples of it


@dataclass(frozen=True)
class Group:
    """Groups of layers that hold the same part of a context."""

    type: Type
    copies: int  # groups of this type; the last may be padded
    block_tokens: int
    window: int = 0  # tokens


@dataclass(frozen=True)
class Layout:
    """The blocks of a deployment on its fullest rank."""

    groups: tuple[Group, ...]
    block_bytes: float  # of one block on one rank, all layers of a group
    block_tokens: int  # of the groups with the shortest blocks: what the engine calls its block size
    batches_in_flight: int
    state_blocks: int
    chunk: int
    dcp: int

    @property
    def mixed(self) -> bool:
        """Whether the printed tokens are not the capacity: several groups share the blocks."""
        return sum(group.copies for group in self.groups) > 1

    def blocks(self, pool_bytes: float) -> int:
        """Whole blocks in a pool of this size on one rank."""
        return max(int(pool_bytes // self.block_bytes), 0)

    def request_blocks(self, tokens: int) -> int:
        """Blocks that a request of this length takes at admission, its steps in flight included."""
        flying = self.chunk * self.batches_in_flight
        total = 0
        for group in self.groups:
            if group.type == "state":
                held = self.state_blocks
            elif group.type == "window":
                held = math.ceil(min(group.window - 1 + flying, tokens) / group.block_tokens) + 1
            elif group.type == "chunk":
                held = math.ceil(min(group.window + flying, tokens) / group.block_tokens)
            else:
                held = math.ceil(tokens / self.dcp / group.block_tokens)
            total += group.copies * held
        return total

    def concurrency(self, blocks: int, tokens: int) -> float:
        """Requests of this length that the blocks hold: what vLLM prints as maximum concurrency."""
        return blocks / self.request_blocks(tokens)

    def tokens(self, blocks: int) -> int:
        """Tokens of that many blocks, one group's worth: `blocks // groups * block size * dcp`."""
        return blocks // sum(group.copies for group in self.groups) * self.block_tokens * self.dcp


def layout(deployment: Deployment) -> Layout:
    """The blocks of a deployment. Raises `BadInput` for a model whose allocation follows rules of its own."""
    model, generation = deployment.model, deployment.generation
    counts: Counter[str] = Counter()
    for name, repeat in model.order:
        if model.kinds[name].caches and model.kinds[name].stores:
            counts[name] += repeat
    share = 1 / deployment.pp if not deployment.stages else 1.0  # uneven stages: vLLM divides by the bytes of all layers (vllm#34076)
    kinds = [(model.kinds[name], math.ceil(count * share)) for name, count in counts.items()]
    if any(0 < kind.global_rate < 1 for kind, _ in kinds):
        raise BadInput("model", model.id, "compressed attention is allocated by rules of its own; calibrate from a start-up log")
    typed = [(_type(deployment, kind), kind, count) for kind, count in kinds]
    if len({(type_, kind.window if type_ != "full" else 0) for type_, kind, _ in typed}) == 1 or not generation.hybrid:
        groups, block_bytes, block = _one_type(deployment, typed)
    else:
        groups, block_bytes, block = _several_types(deployment, typed)
    return Layout(
        groups=groups, block_bytes=block_bytes, block_tokens=block, batches_in_flight=generation.batches_in_flight,
        state_blocks=generation.state_blocks, chunk=deployment.chunk, dcp=deployment.dcp,
    )  # fmt: skip


def _type(deployment: Deployment, kind: LayerKind) -> Type:
    if kind.kv_heads == 0:
        return "state"
    if not kind.window or kind.global_rate or not deployment.generation.hybrid or old_vllm(deployment, (0, 9, 0)):
        return "full"  # vLLM 0.8 had no groups yet: every layer held the whole context
    # Llama 4: chunked layers hold the whole context unless an environment switch is set (vLLM 0.33)
    return "full" if deployment.model.family.startswith("llama4") else "window"


def _one_type(deployment: Deployment, typed: Sequence[tuple[Type, LayerKind, int]]) -> tuple[tuple[Group, ...], float, int]:
    """One group of all layers, each at its own size. Engines without groups hold a window's layers whole; states are set aside elsewhere."""
    block = deployment.block_tokens
    attention = [(kind, count) for _, kind, count in typed if kind.kv_heads]
    if not attention:
        raise BadInput("model", deployment.model.id, "no layer caches tokens")
    if len(attention) < len(typed):
        raise BadInput("model", deployment.model.id, f"{deployment.generation.id} sets its states aside by rules that are not known here")
    whole = all(type_ == "full" for type_, _, _ in typed) or not deployment.generation.hybrid
    group = Group("full", 1, block) if whole else Group("window", 1, block, attention[0][0].window)
    return (group,), block * sum(count * layer_bytes(deployment, kind) for kind, count in attention), block


def _several_types(deployment: Deployment, typed: Sequence[tuple[Type, LayerKind, int]]) -> tuple[tuple[Group, ...], float, int]:
    """Groups of equal layer counts and pages: attention with smaller entries gets longer blocks, and blocks are as long as the largest state needs."""
    merged: Counter[tuple[Type, int, float]] = Counter()
    for type_, kind, count in typed:
        entry = layer_bytes(deployment, kind) if type_ != "state" else kind.state_bytes / deployment.tp
        merged[type_, kind.window if type_ == "window" else 0, entry] += count
    entries = [entry for type_, _, entry in merged if type_ != "state"]
    state = max((entry for type_, _, entry in merged if type_ == "state"), default=0.0)
    block = deployment.block_tokens
    if not entries:
        raise BadInput("model", deployment.model.id, "no layer caches tokens")
    if state and block <= ALIGNMENT:
        block = math.ceil(state / max(entries) / ALIGNMENT) * ALIGNMENT
    page = block * max(entries)
    least, most = min(merged.values()), max(merged.values())
    size = most if most < PADDED_BELOW * least else least
    groups = tuple(
        Group(type_, math.ceil(count / size), block if type_ == "state" else int(page // entry), window)
        for (type_, window, entry), count in merged.items()
    )
    return groups, size * page, block
