"""Bytes that one layer caches per token on one rank, by the engine's KV format."""

from __future__ import annotations

from kvopt.capacity.deployment import Deployment
from kvopt.errors import BadInput, unknown
from kvopt.inputs.model import LayerKind

INDEX_ENTRY = 132  # bytes of an index key: 128 in fp8 and one scale (vLLM, SGLang: DeepSeek sparse attention)
_LATENT_ENTRIES = {"fp8_ds_mla": 656.0, "nvfp4_ds_mla": 352.0}
"""Bytes per token and layer of packed latents (vLLM 0.33, v1/kv_cache_interface.py: 512 fp8, 16 of scales, 128 of bf16 rope)."""
_ELEMENTS = {
    "bf16": (2.0, 0.0), "fp16": (2.0, 0.0), "fp8": (1.0, 0.0), "int8": (1.0, 0.0), "fp32": (4.0, 0.0),
    "nvfp4": (0.5 + 1 / 16, 0.0), "fp4_mx_block16": (0.5 + 1 / 16, 0.0),
    "fp8_per_token_head": (1.0, 4.0), "int8_per_token_head": (1.0, 4.0), "int4_per_token_head": (0.5, 4.0),
}  # fmt: skip
"""Bytes per element, and bytes of scales per token, head and tensor (vLLM 0.33; serving table of KV types)."""
_SAME = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_inc": "fp8"}
FORMATS = ("auto", *_ELEMENTS, *_LATENT_ENTRIES, *_SAME)


def format_of(text: str) -> str:
    """The format that a setting means. Raises `BadInput`."""
    name = text.strip().lower() or "auto"
    name = _SAME.get(name, name)
    if name not in FORMATS:
        raise unknown("kv_cache_dtype", text, FORMATS)
    return name


def layer_bytes(deployment: Deployment, kind: LayerKind) -> float:
    """[bytes per token] that one attention layer of this kind caches on one rank; heads are copied beyond one rank each, latents on every rank.

    vLLM before MLA kernels (0.7.1) expanded the latent to K and V of all heads, padded to 256; until 0.8 it padded 576 values to 640.
    """
    index = INDEX_ENTRY * kind.index_rate if kind.index_width else 0.0
    name = deployment.kv_format
    latent = kind.kv_heads == 1 and kind.value_width == 0
    if name in _LATENT_ENTRIES:
        if not latent:
            raise BadInput("kv_cache_dtype", name, "is a format of latents (MLA)")
        return _LATENT_ENTRIES[name] + index
    element, scale = (float(deployment.bytes_per_element), 0.0) if name == "auto" else _ELEMENTS[name]
    if latent:
        if old_vllm(deployment, (0, 7, 0)):
            return max(1, kind.query_heads // deployment.tp) * 2 * 256 * element
        width = -(-kind.key_width // 128) * 128 if old_vllm(deployment, (0, 8, 0)) else kind.key_width
        return width * element + scale + index
    tensors = (kind.key_width > 0) + (kind.value_width > 0)
    return max(1, kind.kv_heads // deployment.tp) * ((kind.key_width + kind.value_width) * element + tensors * scale) + index


def old_vllm(deployment: Deployment, before: tuple[int, int, int]) -> bool:
    """Whether this is a vLLM of a known version before this one."""
    return deployment.generation.engine == "vllm" and deployment.version is not None and deployment.version < before
