"""Families whose layers differ in kind: latents, sparse and compressed attention, linear attention, Mamba, and layers without attention."""

from __future__ import annotations

from typing import Any

from kvopt.errors import BadInput
from kvopt.inputs.hf_fields import Fields, MissingFields, whole
from kvopt.inputs.hf_layers import FeedForward, Layout, Mixer, attention, feed_forward, gated, head_width, heads, latent, nothing, recurrent
from kvopt.inputs.hf_spans import grouped
from kvopt.inputs.model import LayerKind


def mla(fields: Fields) -> Layout:
    """DeepSeek V2 and V3, Kimi K2: a latent in every layer."""
    return Layout(["latent"] * fields.one("num_hidden_layers"), {"latent": latent(fields)})


def sparse_mla(fields: Fields) -> Layout:
    """DeepSeek V3.2, GLM-5: a latent in every layer, read at the `index_topk` entries that an indexer picks.

    Layers with an indexer of their own are listed in `indexer_types`, or are those below `index_skip_topk_offset` and every
    `index_topk_freq`-th after; the others use the last indexer before them and hold no index keys.
    """
    layers = fields.one("num_hidden_layers")
    listed = fields.per_layer("indexer_types", layers)
    frequency = fields.get("index_topk_freq") or 1
    offset = fields.one("index_skip_topk_offset") if frequency > 1 and listed is None else 1
    if listed is not None:
        unknown = [entry for entry in listed if entry not in ("full", "shared")]
        if unknown:
            raise BadInput("indexer_types", unknown[0], "full or shared")
        own = [entry == "full" for entry in listed]
    else:
        own = [i < offset or (i - offset + 1) % frequency == 0 for i in range(layers)]
    names = ["latent_indexed" if has else "latent_shared_index" for has in own]
    mixers = {"latent_indexed": latent(fields, indexed=True, sparse=True), "latent_shared_index": latent(fields, sparse=True)}
    return Layout(names, mixers)


def compressed(fields: Fields) -> Layout:
    """DeepSeek V4: a window in every layer, and K and V (one shared vector of `head_dim`) of every 4 or 128 tokens merged into one entry.

    Layers of ratio 4 pick `index_topk` entries with index keys, one for each entry. Weights as in the published inference code
    (queries and output through low ranks, a gated compressor); they give 284 B and 1.6 T parameters, as published.
    """
    queries, kv = heads(fields)
    width, window = fields.need("head_dim", "sliding_window")
    layers = fields.one("num_hidden_layers")
    ratios: list[Any] | None = fields.per_layer("compress_ratios", layers)
    if ratios is None:
        fields.need("compress_ratios")
    names = []
    for ratio in ratios or []:
        if isinstance(ratio, bool) or not isinstance(ratio, int) or not 0 <= ratio <= 10**6:
            raise BadInput("compress_ratios", ratio, "whole numbers: 0 for a window alone, else the tokens merged into one entry")
        names.append(f"compressed_{ratio}" if ratio else "window")
    return Layout(names, {name: _compressed(fields, queries, kv, width, window, int(name.partition("_")[2] or 0)) for name in dict.fromkeys(names)})


def _compressed(fields: Fields, queries: int, kv: int, width: int, window: int, ratio: int) -> Mixer:
    indexed = ratio == 4
    index_heads, index_width, select = fields.need("index_n_heads", "index_head_dim", "index_topk") if indexed else (0, 0, None)
    flop = 4.0 * queries * width
    kind = LayerKind(
        query_heads=queries,
        kv_heads=kv,
        key_width=width,
        window=window,
        global_rate=1 / ratio if ratio else 0,
        select=select,
        index_width=index_width,
        index_rate=1 / ratio if indexed else 0,
        index_flop=2.0 * index_heads * index_width,
        attention_flop=flop,
        decode_flop=flop,
    )

    def weights(hidden: int) -> int:
        query_rank, output_rank, groups = fields.need("q_lora_rank", "o_lora_rank", "o_groups")
        attention = hidden * query_rank + query_rank * queries * width + hidden * kv * width
        output = queries * width * output_rank + groups * output_rank * hidden
        overlap = 2 if indexed else 1  # ratio 4 merges overlapping blocks: two projections each for values and gates
        compressor = 2 * hidden * overlap * width if ratio else 0
        index = query_rank * index_heads * index_width + hidden * index_heads + 2 * hidden * overlap * index_width if indexed else 0
        return attention + output + compressor + index

    return Mixer(kind, weights)


def sparse_blocks(fields: Fields) -> Layout:
    """MiniMax-M3: grouped-query attention, on sparse layers over the `sparse_topk_blocks` blocks that one index key per token picks."""
    layers = fields.one("num_hidden_layers")
    sparse = fields.block("sparse_attention_config")
    flags = sparse.per_layer("sparse_attention_freq", layers)
    if flags is None:
        sparse.need("sparse_attention_freq")
    names = ["sparse" if flag else "full" for flag in flags or []]
    plain = grouped(fields)
    if "sparse" not in names:
        return Layout(names, {"full": plain})
    blocks, size, index_heads, width = sparse.need("sparse_topk_blocks", "sparse_block_size", "sparse_num_index_heads", "sparse_index_dim")
    picked = {"select": blocks * size, "index_width": width, "index_rate": 1.0, "index_flop": 2.0 * index_heads * width}
    picking = Mixer(plain.kind.model_copy(update=picked), lambda hidden: plain.weights(hidden) + hidden * width * (index_heads + 1))
    return Layout(names, {"full": plain, "sparse": picking})


def delta_net(fields: Fields) -> Layout:
    """Qwen3-Next and 3.5 on: gated DeltaNet, and gated full attention in every `full_attention_interval`-th layer."""
    layers = fields.one("num_hidden_layers")
    listed = fields.per_layer("layer_types", layers)
    if listed is None:
        interval = fields.one("full_attention_interval")
        listed = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]
    known = {"linear_attention": "linear", "full_attention": "full"}
    unknown = [entry for entry in listed if str(entry) not in known]
    if unknown:
        raise BadInput("layer_types", unknown[0], f"not a kind of layer that a {fields.family} config has: {', '.join(known)}")
    mixers = {"linear": gated_delta_net(fields), "full": grouped(fields)}
    return Layout([known[entry] for entry in listed], mixers)


def gated_delta_net(fields: Fields) -> Mixer:
    """State: value heads x dv x dk recurrent, (2·nk·dk + nv·dv)(k − 1) convolution (serving reference 2.3)."""
    key_heads, key, value_heads, value = fields.need("linear_num_key_heads", "linear_key_head_dim", "linear_num_value_heads", "linear_value_head_dim")
    taps = fields.one("linear_conv_kernel_dim")
    mixed = 2 * key_heads * key + value_heads * value
    return recurrent(
        value_heads * value * key,
        mixed * (taps - 1),
        fields,
        lambda hidden: hidden * (mixed + value_heads * value + 2 * value_heads) + mixed * taps + value_heads * value * hidden,
    )


def kimi_linear(fields: Fields) -> Layout:
    """Kimi Linear and K3: Kimi delta attention, and a latent in the layers of `full_attn_layers` (counted from 1)."""
    layers = fields.one("num_hidden_layers")
    linear = fields.block("linear_attn_config")
    listed, delta = ([whole(name, entry, 1) for entry in linear.listed(name)] for name in ("full_attn_layers", "kda_layers"))
    if not listed or max(listed) > layers:
        raise BadInput("full_attn_layers", listed, f"must be a list of layers from 1 to {layers}")
    if delta and sorted([*listed, *delta]) != list(range(1, layers + 1)):
        raise BadInput("kda_layers", delta, f"must be those of the {layers} layers that full_attn_layers leaves out")
    count, width, taps = linear.need("num_heads", "head_dim", "short_conv_kernel_size")
    inner = count * width
    gate = inner if linear.flag("use_full_rank_gate") else 0

    def weights(hidden: int) -> int:
        low_rank = hidden * width + width * inner  # decay, and the output gate where it is not full rank
        return hidden * (4 * inner + count + gate) + 3 * inner * taps + low_rank * (1 if gate else 2)

    mixers = {
        "linear": recurrent(inner * width, 3 * inner * (taps - 1), fields, weights),
        "latent": latent(fields, gate=fields.flag("mla_use_output_gate")),
    }
    names = ["latent" if i + 1 in set(listed) else "linear" for i in range(layers)]
    return Layout(names, mixers)


def jamba(fields: Fields) -> Layout:
    """Jamba: Mamba, and attention in one layer of each `attn_layer_period`. State d_inner·d_state, convolution d_inner·(k − 1)."""
    layers, period = fields.need("num_hidden_layers", "attn_layer_period")
    states, taps, expand = fields.need("mamba_d_state", "mamba_d_conv", "mamba_expand")
    inner = expand * fields.one("hidden_size")
    rank = fields.get("mamba_dt_rank") or -(-fields.one("hidden_size") // 16)
    names = ["full" if i % period == fields.count("attn_layer_offset") else "mamba" for i in range(layers)]

    def weights(hidden: int) -> int:
        return 3 * hidden * inner + inner * (taps + rank + 2 * states) + rank * inner + inner * (states + 1)

    return Layout(names, {"mamba": recurrent(inner * states, inner * (taps - 1), fields, weights), "full": grouped(fields)})


BLOCKS = {"M": "mamba", "*": "full", "-": "dense", "E": "experts", "mamba": "mamba", "attention": "full", "mlp": "dense", "moe": "experts"}
"""The entries of Nemotron-H's `hybrid_override_pattern` (letters) and `layers_block_type` (words)."""


def nemotron_h(fields: Fields) -> Layout:
    """Nemotron-H and Nemotron 3: each layer is Mamba-2, attention, a dense or an expert feed-forward part alone."""
    listed = list(fields.word("hybrid_override_pattern")) or fields.listed("layers_block_type")
    if not listed:
        raise MissingFields(["hybrid_override_pattern"], f"a {fields.family} config")
    unknown = [entry for entry in listed if str(entry) not in BLOCKS]
    if unknown:
        raise BadInput("hybrid_override_pattern", unknown[0], f"one of {' '.join(BLOCKS)}")
    names = [BLOCKS[str(entry)] for entry in listed]
    fields.default({"num_hidden_layers": len(names)})
    if fields.one("num_hidden_layers") != len(names):
        raise BadInput("num_hidden_layers", fields.one("num_hidden_layers"), f"must be the {len(names)} layers of the pattern")
    mixers = {"mamba": mamba2(fields), "full": grouped(fields), "dense": nothing(), "experts": nothing()}
    return Layout(names, mixers)


def mamba2(fields: Fields) -> Mixer:
    """State n·h·s, convolution (n·h + 2·g·s)(k − 1) (serving reference 2.3)."""
    count, width, states, groups, taps = fields.need("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel")
    inner, mixed = count * width, count * width + 2 * groups * states
    return recurrent(
        inner * states, mixed * (taps - 1), fields, lambda hidden: hidden * (inner + mixed + count) + mixed * taps + inner * hidden + 3 * count
    )


def nemotron_feed_forward(fields: Fields, index: int) -> FeedForward:
    """Nemotron-H: two matrices with a squared ReLU between, in the layers that are feed-forward parts."""
    name = nemotron_h(fields).names[index]
    if name not in ("dense", "experts"):
        return FeedForward()
    return feed_forward(fields, index, 2) if name == "experts" or not fields.has("num_experts") else feed_forward(dense_only(fields), index, 2)


def dense_only(fields: Fields) -> Fields:
    """The same config as if it had no experts."""
    return Fields({**fields.data, "num_experts": None, "n_routed_experts": None, "num_local_experts": None, "moe_num_experts": None})


def searched(fields: Fields) -> Layout:
    """Nemotron-NAS: each of `block_configs` has attention of its own group size, a linear layer instead, or none."""
    names, mixers = [], {}
    queries = fields.one("num_attention_heads")
    width = head_width(fields, queries)
    for block in _blocks(fields):
        part = block["attention"]
        if part.get("no_op"):
            name, mixer = "none", nothing()
        elif part.get("replace_with_linear"):
            name, mixer = "linear_map", Mixer(LayerKind(), lambda hidden: hidden * hidden)
        else:
            group = Fields({"model_type": fields.family, **part})
            size, window = group.one("n_heads_in_group"), group.count("window_length")
            if queries % size:
                raise BadInput("n_heads_in_group", size, f"must divide the {queries} query heads")
            name = f"{f'window_{window}' if window else 'full'}_kv{queries // size}"
            mixer = attention(queries, queries // size, width, width, window)
        names.append(name)
        mixers[name] = mixer
    return Layout(names, mixers)


def searched_feed_forward(fields: Fields, index: int) -> FeedForward:
    """Nemotron-NAS: width 2/3 · `ffn_mult` · 2 · model width, rounded up to a multiple of 256; a linear layer instead, or none."""
    part, hidden = _blocks(fields)[index]["ffn"], fields.one("hidden_size")
    if part.get("no_op"):
        return FeedForward()
    if part.get("replace_with_linear"):
        return FeedForward(common=hidden * hidden, width=hidden)
    if not isinstance(part.get("ffn_mult"), (int, float)) or not 0 < part["ffn_mult"] < 1000:
        raise BadInput("ffn_mult", part.get("ffn_mult"), "must be a positive number")
    width = -(-int(2 * part["ffn_mult"] * hidden / 3) // 256) * 256
    return FeedForward(common=3 * hidden * width, width=width)


def _blocks(fields: Fields) -> list[dict[str, dict[str, Any]]]:
    blocks = fields.per_layer("block_configs", fields.one("num_hidden_layers"))
    if blocks is None:
        fields.need("block_configs")
    for block in blocks or []:
        if not isinstance(block, dict) or not all(isinstance(block.get(part), dict) for part in ("attention", "ffn")):
            raise BadInput("block_configs", block, "must each have attention and ffn")
    return blocks or []


def gemma4_feed_forward(fields: Fields, index: int) -> FeedForward:
    """Gemma 4: layers that share another's cache may be twice as wide, and per-layer inputs pass two small matrices."""
    layers, shared = fields.one("num_hidden_layers"), fields.count("num_kv_shared_layers")
    part = gated(fields, index)
    hidden, inputs = fields.one("hidden_size"), fields.count("hidden_size_per_layer_input")
    if fields.flag("use_double_wide_mlp") and index >= layers - shared:
        wide = fields.one("intermediate_size")
        part = FeedForward(part.common + 3 * hidden * wide, part.expert, part.experts, part.per_token, part.width + wide)
    return FeedForward(part.common + 3 * hidden * inputs, part.expert, part.experts, part.per_token, part.width)
