"""Rows of start-up logs (columns of `capacity_logs.csv`) as deployments: settings, versions and devices, never what the log printed as a result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvopt.capacity import constants
from kvopt.capacity.deployed import Capacity, of
from kvopt.capacity.deployment import GIB, Deployment, on_card
from kvopt.capacity.formats import format_of
from kvopt.capacity.towers import tower_of
from kvopt.errors import BadInput
from kvopt.inputs import accelerator_names, model_names
from kvopt.inputs.accelerator import AcceleratorSpec, read_accelerator
from kvopt.inputs.hf_config import read_catalog
from kvopt.inputs.model import ModelSpec
from kvopt.validation.rows import Refusal, Row

ENGINES = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm", "trtllm": "trtllm", "trt-llm": "trtllm"}
NO_VERSION = {"V0": "vllm-v0", "V1": "vllm-v1", "": ""}
"""The generation of a log without a version, by its format: when most such logs were published."""
LABELS = (
    (r"float32|fp32", "fp32"), (r"nvfp4", "nvfp4"), (r"mxfp4", "mxfp4"), (r"int4|w4a16|awq|gptq|4-?bit|autoround", "int4"), (r"int8|w8a8|8-?bit", "int8"),
    (r"fp8", "fp8"), (r"none|bf16|bfloat16|fp16|float16|auto", "bf16"),
)  # fmt: skip
"""What people write for a weight format, first match first."""


@dataclass(frozen=True)
class Logged:
    """A row with its deployment and what it holds."""

    row: Row
    capacity: Capacity

    @property
    def several(self) -> bool:
        """Whether maximum concurrency is the figure to compare: the model has windows or states, and tokens are printed by version."""
        return any(kind.window or kind.state_bytes for kind in self.capacity.deployment.model.kinds.values())


def read(row: Row, generations: dict[str, constants.Generation] | None = None) -> Logged:
    """The row's deployment and capacity; `generations` takes the place of the catalog's while fitting. Raises `Refusal`."""
    try:
        return Logged(row, of(deployment_of(row, generations)))
    except BadInput as error:
        raise Refusal(str(error)) from None


def deployment_of(row: Row, generations: dict[str, constants.Generation] | None = None) -> Deployment:
    """The settings of a row. Raises `Refusal` with what is missing or impossible, `BadInput` where a name is not known."""
    engine = ENGINES.get(row.need("engine").lower())
    if engine is None:
        raise Refusal(f"engine: {row.text('engine')}: no capacity rules; one of vLLM, SGLang, TensorRT-LLM")
    model, card = model_of(row.need("model")), card_of(row.need("gpu"))
    label, kv = row.need("weights_quant"), row.text("kv_cache_dtype")
    fraction = row.need_positive("mem_fraction", high=1.0)
    tp, pp = row.whole("tp"), row.whole("pp") or 1
    if tp is None:
        raise Refusal("tp: missing")
    note = row.text("parallel_note").upper()
    replicas = re.search(r"DP ?(\d+)", note)
    dp = int(replicas[1]) if replicas else 1
    if "ATTENTION" in note:  # the ranks of the group hold whole sessions: SGLang's --enable-dp-attention
        tp = max(tp // dp, 1)
    version = row.text("engine_version")
    era = row.text("engine_era").upper()
    found = constants.generation(engine, version, NO_VERSION.get(era, "") if engine == "vllm" else "")
    if engine == "vllm" and era == "V0" and found.hybrid:  # 0.8 still ran the old engine for some models
        found = constants.load("vllm-v0")
    if engine == "trtllm" and not row.text("max_num_seqs"):
        raise Refusal("max_num_seqs: missing: the buffers that TensorRT-LLM takes first are those of its build limits")
    if found.id == "vllm-early" and model.routed and (constants.version_of(version) or (0, 5)) < (0, 3):
        raise Refusal(f"engine_version: {version}: what vLLM before 0.3 set aside for experts is not known")
    weights, experts_only = weights_of(label, row.text("activation_dtype"), model)
    uneven = re.search(r"\d+(?:\+\d+)+", note)
    return Deployment(
        model=model,
        generation=(generations or {}).get(found.id, found),
        version=constants.version_of(version),
        tp=tp,
        pp=pp,
        dp=dp,
        stages=tuple(int(part) for part in uneven[0].split("+")) if uneven and pp == len(uneven[0].split("+")) else (),
        utilisation=fraction,
        max_sequences=row.whole("max_num_seqs") or 0,
        chunk=row.whole("max_num_batched_tokens") or 0,
        max_model_len=row.whole("max_model_len") or 0,
        kv_format="fp8_ds_mla" if engine == "sglang" and kv.lower().startswith("fp8") and _indexed(model) else format_of(kv.split()[0] if kv else ""),
        block_tokens=0 if engine == "sglang" else row.whole("block_size") or 0,
        weights=weights,
        experts_only=experts_only,
        offloaded_bytes=_offloaded(row),
        eager=row.text("enforce_eager").upper() in ("Y", "YES", "TRUE", "1"),
        tower=tower_of(row.text("model")),
        **on_card(card, row.positive("gpu_total_gib_logged")),
    )


def model_of(name: str) -> ModelSpec:
    """The catalog's model of a name as logs write it. Raises `Refusal` with the name."""
    find = getattr(model_names, "resolve_measured", model_names.resolve)
    found = find(name)
    if found is None:
        raise Refusal(f"model: {name}: not known")
    return read_catalog(found)


def card_of(name: str) -> AcceleratorSpec:
    """The catalog's accelerator of a name as logs write it. Raises `Refusal` with the name."""
    found = accelerator_names.resolve_measured(name)
    if found is None:
        raise Refusal(f"gpu: {name}: not known")
    return read_accelerator(found)


def weights_of(label: str, activations: str, model: ModelSpec) -> tuple[str, bool]:
    """The weight format of a label, and whether it is the routed experts' alone.

    4-bit checkpoints of mixtures of experts keep the rest in 16 bit where they were made with GPTQ recipes of the makers, NVFP4 or MXFP4 (Qwen3.5-35B-A3B
    GPTQ-Int4: 21.05 GiB; GLM-5.2 NVFP4: 106.69 GiB on each of 4), not with AWQ or compressed-tensors w4a16.
    """
    text = label.lower()
    name = next((name for pattern, name in LABELS if re.search(pattern, text)), None)
    if name is None:
        raise Refusal(f"weights_quant: {label}: not a weight format kvopt knows")
    if name == "int4" and model.weight_format.startswith("int4"):  # the maker's own checkpoint is in 4 bit: Kimi K2.5
        return model.weight_format, model.other_format == "bf16"
    if name == "bf16" and activations.lower() == "float32":
        name = "fp32"
    mixed = model.routed and (name in ("nvfp4", "mxfp4") or "gptq" in text)
    return name, mixed


def _indexed(model: ModelSpec) -> bool:
    return any(kind.index_width for kind in model.kinds.values())


def _offloaded(row: Row) -> float:
    """[bytes] per GPU of weights in host memory, as `notes` state the setting: "cpu_offload_gb 30"."""
    found = re.search(r"cpu_offload(?:_gb)? (\d+(?:\.\d+)?)", row.text("notes"))
    return float(found[1]) * (1e9 if found and "GB of" in row.text("notes") else GIB) if found else 0.0
