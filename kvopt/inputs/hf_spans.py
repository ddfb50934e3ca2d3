"""Families whose layers differ in reach alone: all full, sliding or chunked between full ones, or sharing another layer's cache."""

from __future__ import annotations

from itertools import cycle, islice

from kvopt.errors import BadInput
from kvopt.inputs.hf_fields import Fields
from kvopt.inputs.hf_layers import Layout, Mixer, attention, head_width, heads

SPANS = {"full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "chunked"}


def grouped(fields: Fields, window: int = 0) -> Mixer:
    """Grouped-query attention as the plain fields say; V may be narrower than K (`v_head_dim`)."""
    queries, kv = heads(fields)
    width = head_width(fields, queries)
    return attention(queries, kv, width, fields.get("v_head_dim") or width, window, gate=fields.flag("attn_output_gate"))


def full(fields: Fields) -> Layout:
    """Every layer attends to the whole context."""
    return Layout(spans(fields, "G", ("full_attention",)), {"full": grouped(fields)})


def windowed(fields: Fields) -> Layout:
    """Every layer slides over the same window (Mistral 7B v0.1); none, or one as long as the context, is full attention."""
    if fields.has("layer_types"):
        return alternating(fields, "G")
    window, longest = fields.count("sliding_window"), fields.get("max_position_embeddings")
    if not window or (longest and window >= longest):
        return full(fields)
    return Layout(["sliding"] * fields.one("num_hidden_layers"), {"sliding": grouped(fields, window)})


def optional_window(fields: Fields) -> Layout:
    """Qwen2 and 3 list a window and say with `use_sliding_window` whether the layers from `max_window_layers` on use it."""
    if fields.has("layer_types"):
        return alternating(fields, "G")
    layers, first = fields.one("num_hidden_layers"), fields.count("max_window_layers")
    if not fields.flag("use_sliding_window") or not fields.has("sliding_window") or first >= layers:
        return full(fields)
    return Layout(["full"] * first + ["sliding"] * (layers - first), used(fields, ["full"] * first + ["sliding"]))


def used(fields: Fields, names: list[str]) -> dict[str, Mixer]:
    """Full layers and sliding ones of the same heads, those of them that occur."""
    mixers = {"full": grouped(fields)} if "full" in names else {}
    return mixers | ({"sliding": grouped(fields, fields.one("sliding_window"))} if "sliding" in names else {})


def spans(fields: Fields, pattern: str, kinds: tuple[str, ...] = ("full_attention", "sliding_attention")) -> list[str]:
    """Which layers slide: `layer_types`, else `sliding_window_pattern` (a period whose last is full, or letters), else the family's pattern.

    A pattern is one letter a layer, repeated: L slides, G is full.
    """
    layers = fields.one("num_hidden_layers")
    listed = fields.per_layer("layer_types", layers)
    if listed is not None:
        unknown = [entry for entry in listed if entry not in kinds]
        if unknown:
            raise BadInput("layer_types", unknown[0], f"not a kind of layer that a {fields.family} config has: {', '.join(kinds)}")
        return [SPANS[entry] for entry in listed]
    stated = fields.data.get("sliding_window_pattern")
    if isinstance(stated, str):
        pattern = stated
    elif stated is not None:
        pattern = "L" * (fields.one("sliding_window_pattern") - 1) + "G"
    if not pattern or set(pattern) - set("LG"):
        raise BadInput("sliding_window_pattern", pattern, "a period, or the letters L (sliding) and G (full)")
    return [{"L": "sliding", "G": "full"}[letter] for letter in islice(cycle(pattern), layers)]


def alternating(fields: Fields, pattern: str) -> Layout:
    """Sliding and full layers of the same heads; all are full where the config has no window."""
    names = spans(fields, pattern)
    if not fields.has("sliding_window") and not (fields.has("layer_types") and "sliding" in names):
        return Layout(["full"] * len(names), {"full": grouped(fields)})
    return Layout(names, used(fields, names))


def llama4(fields: Fields) -> Layout:
    """Llama 4: layers with rotary positions attend within chunks, those without (every 4th) to the whole context."""
    layers = fields.one("num_hidden_layers")
    rotary = fields.per_layer("no_rope_layers", layers) or None
    interval = fields.get("no_rope_layer_interval") or 4
    if fields.has("layer_types"):
        names = spans(fields, "G", ("full_attention", "chunked_attention"))
    else:
        names = ["chunked" if (rotary[i] if rotary else (i + 1) % interval) else "full" for i in range(layers)]
    mixers = {"full": grouped(fields)} if "full" in names else {}
    if "chunked" in names:
        mixers["chunked"] = grouped(fields, fields.one("attention_chunk_size"))
    return Layout(names, mixers)


def gemma4(fields: Fields) -> Layout:
    """Gemma 4: full layers have their own heads and width, and the last `num_kv_shared_layers` read the last stored layer of their kind."""
    layers, shared = fields.one("num_hidden_layers"), fields.count("num_kv_shared_layers")
    if shared >= layers:
        raise BadInput("num_kv_shared_layers", shared, f"must be less than the {layers} layers")
    names = [name + ("_shared" if i >= layers - shared else "") for i, name in enumerate(spans(fields, "LLLLLG"))]
    return Layout(names, gemma4_mixers(fields))


def gemma4_mixers(fields: Fields) -> dict[str, Mixer]:
    """The four kinds of layer of Gemma 4. K and V are both cached even where V's projection is K's (`attention_k_eq_v`)."""
    queries, kv = heads(fields)
    wide_kv = fields.get("num_global_key_value_heads") or kv
    narrow, wide = fields.get("head_dim") or 256, fields.get("global_head_dim") or 512
    if queries % wide_kv:
        raise BadInput("num_global_key_value_heads", wide_kv, f"must divide the {queries} query heads")
    window, same = fields.one("sliding_window"), fields.flag("attention_k_eq_v")
    return {
        "sliding": attention(queries, kv, narrow, narrow, window),
        "full": attention(queries, wide_kv, wide, wide, shared_kv=same),
        "sliding_shared": attention(queries, kv, narrow, narrow, window, stores=False),
        "full_shared": attention(queries, wide_kv, wide, wide, stores=False),
    }


def mimo(fields: Fields) -> Layout:
    """MiMo-V2: `hybrid_layer_pattern` 1 slides with heads of its own (`swa_*`), 0 is full."""
    layers = fields.one("num_hidden_layers")
    flags = fields.per_layer("hybrid_layer_pattern", layers)
    if flags is None:
        fields.need("hybrid_layer_pattern")
    names = ["sliding" if flag else "full" for flag in flags or []]
    return Layout(names, {"full": grouped(fields), "sliding": own_sliding(fields)})


def own_sliding(fields: Fields, state: float = 0) -> Mixer:
    """Sliding layers with heads and widths of their own (`swa_*`), the full layers' where those are absent."""
    for name in ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim"):
        if fields.has(name):
            fields.default({f"swa_{name}": fields.data[name]})
    queries, kv = heads(fields, "swa_num_attention_heads", "swa_num_key_value_heads")
    width = fields.get("swa_head_dim") or head_width(fields, queries)
    return attention(queries, kv, width, fields.get("swa_v_head_dim") or width, fields.one("sliding_window"), state=state)


def step(fields: Fields) -> Layout:
    """Step 3.5 and 3.7: `layer_types`, with the sliding layers' heads in `attention_other_setting` where they differ."""
    names = spans(fields, "GLLL")
    sliding = grouped(fields, fields.one("sliding_window"))
    if fields.has("attention_other_setting"):
        other = fields.block("attention_other_setting")
        other.default({"hidden_size": fields.data.get("hidden_size"), "head_dim": fields.data.get("head_dim")})
        sliding = grouped(other, fields.one("sliding_window"))
    return Layout(names, {"full": grouped(fields), "sliding": sliding})
