"""The families kvopt knows, by the `model_type` of a config.json. Rules: the attention of each, and what its config class assumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from kvopt.inputs import hf_hybrids, hf_spans
from kvopt.inputs.hf_fields import Fields
from kvopt.inputs.hf_layers import Family, Layout, gated, plain


def falcon(fields: Fields) -> Layout:
    """Falcon: one KV head, unless it is the new decoder architecture, which says how many."""
    if fields.flag("multi_query", True) and not fields.flag("new_decoder_architecture"):
        fields.data["num_key_value_heads"] = 1
    return hf_spans.full(fields)


def bigcode(fields: Fields) -> Layout:
    """StarCoder: one KV head unless `multi_query` is off."""
    if fields.flag("multi_query", True):
        fields.data["num_key_value_heads"] = 1
    return hf_spans.full(fields)


def mpt(fields: Fields) -> Layout:
    """MPT: KV heads in `attn_config`."""
    if fields.has("attn_config"):
        fields.default({"num_key_value_heads": fields.block("attn_config").get("kv_n_heads")})
    return hf_spans.full(fields)


def _alternating(pattern: str) -> Callable[[Fields], Layout]:
    return partial(hf_spans.alternating, pattern=pattern)


DENSE = Family(hf_spans.full, gated)
WINDOWED = Family(hf_spans.windowed, gated)
QWEN = Family(hf_spans.optional_window, gated)
GPT = Family(hf_spans.full, plain, tied=True, positions=1)
LATENT = Family(hf_hybrids.mla, gated)
SPARSE_LATENT = Family(hf_hybrids.sparse_mla, gated)
DELTA_NET = Family(hf_hybrids.delta_net, gated, defaults={"attn_output_gate": True})
SPANS_3_TO_1 = Family(_alternating("LLLG"), gated)
LLAMA_4 = Family(hf_spans.llama4, gated, defaults={"n_shared_experts": 1})
# Gemma's published configs leave out what the config class assumes
GEMMA_2 = Family(_alternating("LG"), gated, tied=True, defaults={"head_dim": 256, "sliding_window": 4096})
GEMMA_3 = Family(
    _alternating("LLLLLG"),
    gated,
    tied=True,
    defaults={"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "vocab_size": 262208},
)
GEMMA_4 = Family(hf_spans.gemma4, hf_hybrids.gemma4_feed_forward, tied=True)


def _same(family: Family, names: Iterable[str]) -> dict[str, Family]:
    return {name: family for name in names}


FAMILIES: dict[str, Family] = {
    **_same(DENSE, ("llama", "mistral3", "ministral3", "olmo", "olmo2", "olmoe", "granite", "granitemoe", "internlm2", "internlm3", "seed_oss")),
    **_same(DENSE, ("glm", "glm4", "glm4_moe", "minimax_m2", "stablelm")),
    **_same(WINDOWED, ("mistral", "mixtral", "phi3", "phimoe")),
    **_same(QWEN, ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text")),
    **_same(QWEN, ("qwen3_vl_text", "qwen3_vl_moe_text")),
    **_same(GPT, ("gpt2", "opt")),
    **_same(LATENT, ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite")),
    **_same(SPARSE_LATENT, ("deepseek_v32", "glm_moe_dsa")),
    **_same(DELTA_NET, ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")),
    **_same(SPANS_3_TO_1, ("exaone4", "olmo3")),
    **_same(LLAMA_4, ("llama4", "llama4_text")),
    **_same(GEMMA_3, ("gemma3", "gemma3_text")),
    **_same(GEMMA_4, ("gemma4", "gemma4_text")),
    **_same(Family(hf_spans.mimo, gated), ("mimo_v2", "mimo_v2_flash")),
    **_same(Family(hf_spans.step, gated, defaults={"sliding_window": 512}), ("step3p5", "step3p7")),
    "cohere": Family(hf_spans.full, gated, tied=True),
    "cohere2": Family(_alternating("LLLG"), gated, tied=True, defaults={"sliding_window": 4096}),
    "gemma": Family(hf_spans.full, gated, tied=True, defaults={"head_dim": 256}),
    "gemma2": GEMMA_2,
    "gpt_oss": Family(_alternating("LG"), gated),
    "deepseek_v4": Family(hf_hybrids.compressed, gated),
    "minimax_m3": Family(hf_hybrids.sparse_blocks, gated),
    "kimi_linear": Family(hf_hybrids.kimi_linear, gated),
    "jamba": Family(hf_hybrids.jamba, gated),
    "nemotron_h": Family(hf_hybrids.nemotron_h, hf_hybrids.nemotron_feed_forward),
    "nemotron-nas": Family(hf_hybrids.searched, hf_hybrids.searched_feed_forward),
    "falcon": Family(falcon, plain, tied=True),
    "gpt_bigcode": Family(bigcode, plain, tied=True, positions=1),
    "mpt": Family(mpt, plain, tied=True),
    "phi": Family(hf_spans.full, plain),
    "gptj": Family(hf_spans.full, plain),
    "gpt_neox": Family(hf_spans.full, plain),
    "starcoder2": Family(hf_spans.windowed, plain, tied=True),
}
"""Each `model_type` and how to read it."""

EXPERTS = frozenset(name for name in FAMILIES if "moe" in name) | {
    *("mixtral", "olmoe", "minimax_m2", "minimax_m3", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "kimi_linear"),
    *("qwen3_next", "llama4", "llama4_text", "mimo_v2", "mimo_v2_flash", "step3p5", "step3p7", "gpt_oss"),
}
"""The families that are always mixtures of experts: without the number of experts their size is not known."""
