"""Files of KV fields alone: no weights, the family's formula named in `_kv_layout.family_formula` with the counts of each kind of layer."""

from __future__ import annotations

from collections.abc import Callable

from kvopt.errors import BadInput
from kvopt.inputs.hf_fields import Fields
from kvopt.inputs.hf_hybrids import gated_delta_net, mla, sparse_mla
from kvopt.inputs.hf_layers import Layout, Mixer, attention, head_width, heads
from kvopt.inputs.hf_spans import full, gemma4_mixers, grouped, own_sliding

SPREAD = "the order of the layers is assumed: evenly spread, each period ending in a full layer (the source holds counts alone)"


def spread(fields: Fields, few: str, many: str, layers: int, few_layers: int) -> list[str]:
    """`few_layers` layers of one kind evenly among `layers`, each at the end of its period."""
    if few_layers > layers:
        raise BadInput("full_attention_layers", few_layers, f"must be at most the {layers} layers")
    return [few if (i + 1) * few_layers // layers > i * few_layers // layers else many for i in range(layers)]


def counts(fields: Fields, many: str) -> tuple[int, int]:
    """Layers that store KV or state, and how many of them are full attention."""
    layout = Fields({"model_type": fields.family, **fields.layout})
    few, rest = layout.count("full_attention_layers", -1), layout.count(many, -1)
    if few < 0 or rest < 0:
        layout.need("full_attention_layers", many)
    stored = layout.get("stored_layers") or fields.one("num_hidden_layers")
    if few + rest != stored:
        raise BadInput(many, rest, f"must make up the {stored} layers together with {few} of full attention")
    return stored, few


def mixed(fields: Fields) -> Layout:
    """Full and sliding layers; the last `num_kv_shared_layers` read the last stored layer of their kind (Gemma 4)."""
    stored, few = counts(fields, "sliding_attention_layers")
    layers = fields.one("num_hidden_layers")
    if stored + fields.count("num_kv_shared_layers") != layers:
        raise BadInput("stored_layers", stored, f"must be the {layers} layers less num_kv_shared_layers")
    names = spread(fields, "full", "sliding", layers, few * layers // stored)
    names = [name if i < stored else f"{name}_shared" for i, name in enumerate(names)]
    if names.count("full") != few:
        raise BadInput("full_attention_layers", few, f"cannot be spread evenly over {stored} stored of {layers} layers")
    mixers = gemma4_mixers(fields) if fields.has("global_head_dim") or stored < layers else {"full": grouped(fields), "sliding": own_sliding(fields)}
    return Layout(names, mixers, (SPREAD,))


def linear_hybrid(fields: Fields) -> Layout:
    """Qwen3.5 on: gated DeltaNet between full layers."""
    layers, few = counts(fields, "linear_attention_layers")
    return Layout(spread(fields, "full", "linear", layers, few), {"linear": gated_delta_net(fields), "full": grouped(fields)}, (SPREAD,))


def inkling(fields: Fields) -> Layout:
    """Inkling: full and sliding layers, each with short convolutions on K, V, and the outputs of attention and feed-forward part.

    Their state is (taps − 1)·(2·kv·width + 2·model width) elements a layer (the source's own formula).
    """
    layers, few = counts(fields, "sliding_attention_layers")
    taps, hidden = fields.need("sconv_kernel_size", "hidden_size")
    element = Fields({"model_type": fields.family, **fields.layout}).one("sconv_state_bytes_per_element")

    def with_state(mixer: Mixer) -> Mixer:
        kind = mixer.kind
        state = float((taps - 1) * (2 * kind.kv_heads * kind.key_width + 2 * hidden) * element)
        return Mixer(kind.model_copy(update={"state_bytes": state}), mixer.weights)

    queries, kv = heads(fields)
    width = head_width(fields, queries)
    mixers = {"full": with_state(attention(queries, kv, width, width)), "sliding": with_state(own_sliding(fields))}
    return Layout(spread(fields, "full", "sliding", layers, few), mixers, (SPREAD,))


FORMULAS: dict[str, Callable[[Fields], Layout]] = {
    "standard_gqa": full,
    "mixed_full_sliding_gqa": mixed,
    "mla": mla,
    "dsa_mla": sparse_mla,
    "qwen_linear_full_hybrid": linear_hybrid,
    "inkling_hybrid": inkling,
}
"""How each `family_formula` is read."""
