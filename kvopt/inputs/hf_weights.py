"""Which format the weights are stored in, from `quantization_config`, or from the end of the name where the config has none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kvopt.errors import BadInput
from kvopt.inputs.hf_fields import Fields

BY_METHOD = {"fp8": "fp8", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8", "mxfp4": "mxfp4", "nvfp4": "nvfp4"}
BY_BITS = ("gptq", "awq", "auto-round", "intel/auto-round", "autoround", "auto_round", "hqq")
BY_NAME = {"fp8": "fp8", "nvfp4": "nvfp4", "mxfp4": "mxfp4", "awq": "int4", "int4": "int4", "int8": "int8", "w8a8": "int8", "w4a16": "int4"}


@dataclass(frozen=True)
class Formats:
    """The format of most linear layers, that of the others, and whether the others are all but the routed experts (or attention alone)."""

    weight: str = "bf16"
    other: str | None = None
    note: str | None = None


def formats(fields: Fields, name: str) -> Formats:
    """The weight formats of a config. Raises `BadInput` for a quantisation it does not know."""
    if not fields.has("quantization_config"):
        token = next((BY_NAME[part] for part in reversed(re.split(r"[-_.]", name.lower())) if part in BY_NAME), None)
        return Formats(token, note="weight format from the name: the config has no quantization_config") if token else Formats()
    stated = fields.block("quantization_config")
    if fields.data.get("expert_dtype") == "fp4":
        return Formats("mxfp4", "fp8")
    found = _formats(stated)
    ignored = " ".join(map(str, stated.listed("ignore") or stated.listed("modules_to_not_convert")))
    if len(found) == 1:
        bare = re.search(r"\*[^ ]*self_attn", ignored) or ignored.count("self_attn") > fields.one("num_hidden_layers") // 2
        return Formats(found[0], "bf16" if bare else None)
    return Formats(found[-1], found[0], "mixed precision: the lower one read as the feed-forward parts', the higher one as attention's")


def _formats(stated: Fields) -> list[str]:
    """The formats in use, the widest first."""
    algorithm = stated.word("quant_algo").lower()
    method = stated.word("quant_method").lower() or algorithm
    if method in BY_METHOD:
        return [BY_METHOD[method]]
    if method in BY_BITS or method == "bitsandbytes":
        four = stated.flag("load_in_4bit") or stated.flag("_load_in_4bit")
        bits = stated.get("bits") or stated.get("nbits") or (4 if four else 8)
        return [_integer(bits, None)]
    if method in ("compressed-tensors", "modelopt", "modelopt_fp4"):
        groups = Fields(stated.mapping("config_groups"))
        found = [_group(groups.block(name).mapping("weights"), stated.word("format")) for name in groups.data]
        if not found and algorithm in BY_METHOD:
            found = [BY_METHOD[algorithm]]
        order = ("fp8", "int8", "int4-g32", "int4", "nvfp4", "mxfp4")
        if found:
            return sorted(set(found), key=order.index)
    raise BadInput("quantization_config", method, f"not a quantisation kvopt knows: {', '.join([*BY_METHOD, *BY_BITS])}, compressed-tensors")


def _group(weights: dict[str, Any], packing: str) -> str:
    bits, kind, size = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    if kind == "float":
        if bits == 8:
            return "fp8"
        if bits == 4:
            return "mxfp4" if size == 32 or "mxfp4" in packing else "nvfp4"
    return _integer(bits, size)


def _integer(bits: object, size: object) -> str:
    if bits == 8:
        return "int8"
    if bits == 4:
        return "int4-g32" if size == 32 else "int4"
    raise BadInput("quantization_config", f"{bits} bits", "weights of 4 or 8 bits")
