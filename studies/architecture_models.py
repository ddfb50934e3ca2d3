"""One dense trunk under ten kinds of attention: as config.json fields that kvopt's own reader takes, with the same number of parameters each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvopt.errors import BadInput
from kvopt.inputs.hf_config import parse_config, read_model
from kvopt.inputs.model import LayerKind, ModelSpec

LONGEST = 2**21  # [tokens] that every config states: the length is what is asked about
MULTIPLE = 16  # of a feed-forward width
WINDOW, LONG_WINDOW = 1024, 4096  # [tokens] of Gemma 3's local layers, and of Mistral 7B v0.1's
PICKED = 2048  # [tokens] that DeepSeek V3.2 reads per query
Fields = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One kind of attention on the trunk. `about`: in words, with the model that it is taken from."""

    name: str
    about: str
    config: Mapping[str, Any]
    model: ModelSpec


def read_trunk(name: str) -> ModelSpec:
    """The model whose size is kept. Raises `BadInput` unless it is dense, of known size, and every layer attends to the whole context."""
    model = read_model(name)
    kind = next(iter(model.kinds.values()))
    plain = len(model.kinds) == 1 and kind.global_rate == 1 and not kind.window and kind.select is None and kind.key_width == kind.value_width
    known = None not in (model.parameters.total, model.parameters.embedding, model.hidden, model.intermediate, model.vocabulary)
    if not plain or model.routed or not known or kind.key_width % 2 or model.query_heads % 2:
        raise BadInput("trunk", name, "must be a dense model of known size with full attention in every layer, as llama-3.1-8b or yi-34b-200k")
    return model


def architectures(trunk: ModelSpec) -> tuple[Architecture, ...]:
    """Every architecture on the trunk: its hidden size, layers, query heads, vocabulary and parameters; the feed-forward width makes up the difference."""
    return tuple(Architecture(name, about, *_sized(trunk, config, name)) for name, (about, config) in _configs(trunk).items())


def _sized(trunk: ModelSpec, config: Fields, name: str) -> tuple[Fields, ModelSpec]:
    """The config with the feed-forward width that gives the trunk's number of parameters, and the model that it reads as."""
    first = parse_config(config, name)
    if first.parameters.total is None or trunk.parameters.total is None:
        raise BadInput("trunk", trunk.id, f"has no known size as {name}")
    column = 3 * config["hidden_size"] * config["num_hidden_layers"]  # gate, up and down projection of every layer
    more = (trunk.parameters.total - first.parameters.total) / column
    width = config["intermediate_size"] + MULTIPLE * round(more / MULTIPLE)
    if width < MULTIPLE:
        raise BadInput("trunk", trunk.id, f"its size leaves no feed-forward part beside {name}")
    sized = config | {"intermediate_size": width}
    return sized, parse_config(sized, name)


def _configs(trunk: ModelSpec) -> dict[str, tuple[str, Fields]]:
    kind = next(iter(trunk.kinds.values()))
    plain, grouped = _plain(trunk, kind), {"model_type": "llama", "num_key_value_heads": kind.kv_heads}
    latent, linear, mamba = _latent(trunk, kind), _linear(trunk, kind), _mamba()
    groups, half = kind.kv_heads, trunk.layers // 2
    spans = {"model_type": "gemma3_text", "sliding_window": WINDOW, "sliding_window_pattern": 6, "num_key_value_heads": groups}
    cross = {"model_type": "gemma4_text", "num_kv_shared_layers": half, "layer_types": ["full_attention"] * trunk.layers, "sliding_window": WINDOW}
    cross |= {"num_key_value_heads": groups, "global_head_dim": kind.key_width}
    sparse = {"model_type": "deepseek_v32", "index_topk": PICKED, "index_n_heads": trunk.query_heads // 2, "index_head_dim": 128}
    table: dict[str, tuple[str, Fields]] = {
        "MHA": ("one KV head per query head (Llama 1)", grouped | {"num_key_value_heads": trunk.query_heads}),
        "GQA": (f"{groups} KV heads (Llama 3)", grouped),
        "shared layers": ("GQA, half of the layers read another layer's cache (cross-layer attention, Gemma 3n)", cross),
        "MQA": ("one KV head (PaLM, Falcon)", grouped | {"num_key_value_heads": 1}),
        "MLA": (f"a latent of {latent['kv_lora_rank']} + {latent['qk_rope_head_dim']} for all heads (DeepSeek V2)", latent),
        "MLA + DSA": (f"the same, {PICKED:,} entries read per query, found by an indexer (DeepSeek V3.2)", latent | sparse),
        "windows 5:1": (f"GQA, five layers of windows of {WINDOW:,} to a full one (Gemma 3)", spans),
        "windows only": (f"GQA, windows of {LONG_WINDOW:,} in every layer (Mistral 7B v0.1)", {**grouped, **_sliding()}),
        "linear 3:1": ("GQA in a quarter of the layers, gated DeltaNet in the others (Qwen3-Next)", linear),
        "Mamba 7:1": ("GQA in an eighth of the layers, Mamba in the others (Jamba)", mamba | {"num_key_value_heads": groups}),
    }
    return {name: (about, plain | config) for name, (about, config) in table.items()}


def _plain(trunk: ModelSpec, kind: LayerKind) -> Fields:
    tied = trunk.parameters.embedding == trunk.parameters.head
    return {
        "hidden_size": trunk.hidden,
        "num_hidden_layers": trunk.layers,
        "num_attention_heads": trunk.query_heads,
        "head_dim": kind.key_width,
        "intermediate_size": trunk.intermediate,
        "vocab_size": trunk.vocabulary,
        "max_position_embeddings": LONGEST,
        "tie_word_embeddings": tied,
    }


def _sliding() -> Fields:
    return {"model_type": "mistral", "sliding_window": LONG_WINDOW}


def _latent(trunk: ModelSpec, kind: LayerKind) -> Fields:
    """Four heads wide, and half a head of rotary positions beside it, as in DeepSeek V2 (arXiv 2405.04434, section 3.1.2: 4 d_h and d_h / 2)."""
    width = kind.key_width
    heads = {"qk_nope_head_dim": width, "qk_rope_head_dim": width // 2, "v_head_dim": width}
    ranks = {"kv_lora_rank": 4 * width, "q_lora_rank": 12 * width}
    return {"model_type": "deepseek_v3", **ranks, **heads, "n_routed_experts": 1, "num_experts_per_tok": 1}


def _linear(trunk: ModelSpec, kind: LayerKind) -> Fields:
    width = kind.key_width
    heads = {"linear_num_key_heads": trunk.query_heads // 2, "linear_num_value_heads": trunk.query_heads}
    sizes = {"linear_key_head_dim": width, "linear_value_head_dim": width, "linear_conv_kernel_dim": 4, "full_attention_interval": 4}
    return {"model_type": "qwen3_next", "num_key_value_heads": kind.kv_heads, "num_experts": 1, "num_experts_per_tok": 1, **heads, **sizes}


def _mamba() -> Fields:
    return {"model_type": "jamba", "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}
