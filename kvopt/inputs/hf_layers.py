"""The building blocks of every family: layers with their KV, state, attention FLOP and weight counts, and feed-forward parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvopt.errors import BadInput
from kvopt.inputs.hf_fields import Fields
from kvopt.inputs.model import LayerKind

STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes per element of a recurrent state; engines keep it in 32 bit unless the config says otherwise."""
CONVOLUTION_BYTES = 2  # bytes per element of a convolution's state: the compute type


@dataclass(frozen=True)
class Mixer:
    """One kind of layer, and the parameters of what mixes its tokens (attention, recurrence), given the model width."""

    kind: LayerKind
    weights: Callable[[int], int]


@dataclass(frozen=True)
class Layout:
    """The kind of each layer, first to last, what the kinds are (some may not occur), and what had to be assumed."""

    names: Sequence[str]
    mixers: dict[str, Mixer]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of one layer: parameters that every token passes, routed experts, and the width one token passes."""

    common: int = 0
    expert: int = 0  # parameters of one routed expert
    experts: int = 0
    per_token: int = 0
    width: int = 0


@dataclass(frozen=True)
class Family:
    """How to read one family: its layers, its feed-forward parts, and what its config class assumes."""

    layout: Callable[[Fields], Layout]
    feed_forward: Callable[[Fields, int], FeedForward]
    tied: bool = False  # whether input embedding and output head are one matrix, where the config does not say
    positions: int = 0  # 1 where positions are a learned table
    defaults: dict[str, Any] = field(default_factory=dict)


def heads(fields: Fields, query: str = "num_attention_heads", kv: str = "num_key_value_heads") -> tuple[int, int]:
    """Query heads and KV heads; without KV heads, as many as query heads (multi-head attention)."""
    queries = fields.one(query)
    shared = fields.get(kv) or queries
    if queries % shared:
        raise BadInput(kv, shared, f"must divide the {queries} query heads")
    return queries, shared


def head_width(fields: Fields, queries: int) -> int:
    """`head_dim`, or the model width divided by the query heads."""
    stated = fields.get("head_dim")
    if stated:
        return stated
    hidden = fields.one("hidden_size")
    if hidden % queries:
        raise BadInput("hidden_size", hidden, f"must be a multiple of the {queries} query heads where head_dim is not given")
    return hidden // queries


def attention(
    queries: int,
    kv: int,
    key: int,
    value: int,
    window: int = 0,
    *,
    stores: bool = True,
    gate: bool = False,
    shared_kv: bool = False,
    state: float = 0,
) -> Mixer:
    """Grouped-query attention; `gate` adds an output gate as wide as the queries' values, `shared_kv` has no V projection.

    Parameters H·q·dk + H·kv·(dk + dv) + q·dv·H (serving reference 2.4); a layer that reads another's cache has no K and V projections.
    """
    flop = 2.0 * queries * (key + value)
    kind = LayerKind(
        query_heads=queries,
        kv_heads=kv,
        key_width=key,
        value_width=value,
        window=window,
        global_rate=0 if window else 1,
        attention_flop=flop,
        decode_flop=flop,
        state_bytes=state,
        stores=stores,
    )
    projected = (kv * (key if shared_kv else key + value)) if stores else 0
    return Mixer(kind, lambda hidden: hidden * (queries * (key + value) + projected + (queries * value if gate else 0)))


def latent(fields: Fields, *, indexed: bool = False, sparse: bool = False, gate: bool = False) -> Mixer:
    """Multi-head latent attention: one latent per token for all heads.

    `sparse` reads `index_topk` entries, `indexed` has the indexer that picks them. Prefill expands the latent
    (2·q·(nope + rope + v) FLOP), decoding absorbs the projections (2·q·(2·latent + rope)).
    """
    rank, rope, nope, value = fields.need("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    queries = fields.get("num_attention_heads") or fields.one("num_key_value_heads")
    query_rank = fields.get("q_lora_rank")
    index_heads, index_width = fields.need("index_n_heads", "index_head_dim") if indexed else (0, 0)
    kind = LayerKind(
        query_heads=queries,
        kv_heads=1,
        key_width=rank + rope,
        global_rate=1,
        select=fields.one("index_topk") if sparse else None,
        index_width=index_width,
        index_rate=1 if indexed else 0,
        index_flop=2.0 * index_heads * index_width,
        attention_flop=2.0 * queries * (nope + rope + value),
        decode_flop=2.0 * queries * (2 * rank + rope),
    )

    def weights(hidden: int) -> int:
        query = hidden * query_rank + query_rank * queries * (nope + rope) if query_rank else hidden * queries * (nope + rope)
        index = (query_rank or hidden) * index_heads * index_width + hidden * (index_width + index_heads) if indexed else 0
        output = queries * value * hidden * (2 if gate else 1)
        return query + hidden * (rank + rope) + rank * queries * (nope + value) + output + index

    return Mixer(kind, weights)


def recurrent(state_elements: int, convolution_elements: int, fields: Fields, weights: Callable[[int], int]) -> Mixer:
    """A layer without attention that keeps a state: linear attention, Mamba."""
    stated = fields.word("mamba_ssm_dtype") or fields.word("mamba_ssm_cache_dtype", "float32")
    if stated not in STATE_BYTES:
        raise BadInput("mamba_ssm_dtype", stated, f"one of {', '.join(STATE_BYTES)}")
    state = state_elements * STATE_BYTES[stated] + convolution_elements * CONVOLUTION_BYTES
    return Mixer(LayerKind(state_bytes=state), weights)


def nothing() -> Mixer:
    """A layer that neither attends nor keeps a state."""
    return Mixer(LayerKind(), lambda hidden: 0)


def gated(fields: Fields, index: int) -> FeedForward:
    """Gate, up and down projection: three matrices."""
    return feed_forward(fields, index, 3)


def plain(fields: Fields, index: int) -> FeedForward:
    """Up and down projection: two matrices, four times the model width where the config does not say."""
    fields.default({"intermediate_size": 4 * fields.one("hidden_size")})
    return feed_forward(fields, index, 2)


def feed_forward(fields: Fields, index: int, matrices: int) -> FeedForward:
    """The feed-forward part of layer `index`: dense, or routed experts with what all tokens share (and the router)."""
    hidden = fields.one("hidden_size")
    if not sparse_layer(fields, index):
        width = fields.get("intermediate_size_mlp") if fields.has("num_experts") else None
        width = width or fields.one("intermediate_size")
        return FeedForward(common=matrices * hidden * width, width=width)
    experts, per_token = fields.need("num_experts", "num_experts_per_tok")
    if per_token > experts:
        raise BadInput("num_experts_per_tok", per_token, f"must be at most the {experts} experts")
    expert_width = fields.get("moe_intermediate_size") or fields.one("intermediate_size")
    shared = fields.count("shared_intermediate_size") or fields.count("n_shared_experts") * expert_width
    inner = fields.get("moe_latent_size") or hidden  # experts may work in a narrower latent, entered and left once per token
    beside = fields.one("intermediate_size") if fields.flag("enable_moe_block") else 0  # Gemma 4: a dense part beside the experts
    common = matrices * hidden * (shared + beside) + hidden * experts + (2 * hidden * inner if inner != hidden else 0)
    width = per_token * expert_width + shared + beside
    return FeedForward(common=common, expert=matrices * inner * expert_width, experts=experts, per_token=per_token, width=width)


def sparse_layer(fields: Fields, index: int) -> bool:
    """Whether layer `index` routes its tokens to experts, by whichever rule the config carries."""
    data = fields.data
    if not fields.has("num_experts") or fields.flag("enable_moe_block", True) is False or fields.count("num_experts") <= 1:
        return False
    layers = fields.one("num_hidden_layers")
    kinds = fields.per_layer("mlp_layer_types", layers)
    if kinds is not None:
        if set(kinds) - {"dense", "sparse"}:
            raise BadInput("mlp_layer_types", sorted(set(map(str, kinds)) - {"dense", "sparse"})[0], "dense or sparse")
        return bool(kinds[index] == "sparse")
    if isinstance(data.get("moe_layer_freq"), list):
        return bool((fields.per_layer("moe_layer_freq", layers) or [])[index])
    if isinstance(data.get("moe_layers_enum"), str):
        return str(index) in data["moe_layers_enum"].replace(" ", "").split(",")
    if fields.has("expert_layer_period"):
        return index % fields.one("expert_layer_period") == fields.count("expert_layer_offset")
    if index < fields.count("first_k_dense_replace") or index in fields.listed("mlp_only_layers"):
        return False
    step = fields.get("decoder_sparse_step") or fields.get("interleave_moe_layer_step") or fields.get("moe_layer_freq") or 1
    return (index if fields.has("moe_layer_freq") else index + 1) % step == 0
