"""A start-up log as an accelerator file: the memory that engines see, and the pool that was logged beside the pool that kvopt predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from kvopt.calibration.outcome import Calibrated
from kvopt.calibration.vllm_log import StartupLog, parse
from kvopt.capacity.deployed import Capacity, deployed, of
from kvopt.capacity.logs import weights_of
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import AcceleratorSpec, Number, read_accelerator
from kvopt.inputs.hf_config import read_catalog, read_model
from kvopt.inputs.model import ModelSpec
from kvopt.inputs.model_names import resolve_measured
from kvopt.validation.rows import Refusal

GIB = 2.0**30
ANOTHER_FORMAT = 0.15  # weights more apart than this are another model's, or in another format
TOLERANCE = 0.05  # the log's memory and the accelerator's: more apart than this, it is another card


def calibrated(text: str, source: str, options: Mapping[str, str | None]) -> Calibrated:
    """The accelerator with the memory that the log states, and both pools. Raises `BadInput` where the log or the command line leaves out what it takes."""
    log = parse(text, source)
    if not options.get("accelerator"):
        raise BadInput("accelerator", "missing", "a log does not name the GPU; give --accelerator ID")
    accelerator, model = read_accelerator(str(options["accelerator"])), _model(log, options.get("model"))
    asked = options.get("tp")
    tp = int(asked) if asked else log.tp
    if tp is None:
        raise BadInput("tp", "missing", "the log does not state tensor_parallel_size; give --tp N")
    seen = _with_memory(accelerator, log, source)
    capacity = _predicted(log, model, seen or accelerator, tp)
    rows = _beside(log, capacity)
    notes = [f"{model.id} on {tp} x {accelerator.id}, vLLM {log.version or 'of unknown version'}; memory is of one GPU."]
    if seen is None:
        notes.append("Nothing written: the log does not state the GPU's memory (total_gpu_memory, Free memory on device, Requested memory).")
    if log.weights_gib and abs(log.weights_gib * GIB / capacity.ledger.weights - 1) > ANOTHER_FORMAT:
        notes.append("The weights are not those predicted: is this the model, and its weight format?")
    if capacity.warning:
        notes.append(f"{capacity.warning}.")
    return Calibrated(
        kind="log",
        source=source,
        spec=seen,
        columns=("what", "logged", "predicted", "logged / predicted"),
        rows=tuple((what, _said(logged), _said(predicted), _ratio(logged, predicted)) for what, logged, predicted in rows),
        notes=tuple(notes),
        data={
            "log": {name: value for name, value in vars(log).items() if value is not None},
            "capacity": {what: {"logged": logged, "predicted": predicted} for what, logged, predicted in rows},
        },
    )


def _model(log: StartupLog, named: str | None) -> ModelSpec:
    """The model asked for, else the one that the log names, by its last part where that is a path. Raises `BadInput`."""
    if named:
        return read_model(named)
    if log.model is None:
        raise BadInput("model", "missing", "the log does not name the model; give --model ID")
    found = resolve_measured(log.model) or resolve_measured(Path(log.model).name)
    if found is None:
        raise BadInput("model", log.model, "of the log is not known; give --model ID or its config.json")
    return read_catalog(found)


def _with_memory(accelerator: AcceleratorSpec, log: StartupLog, source: str) -> AcceleratorSpec | None:
    """The accelerator with the memory that was logged, None where it was not. Raises `BadInput` where that is another card's."""
    logged = log.total_bytes
    if logged is None:
        return None
    known = accelerator.logged_bytes or accelerator.memory
    if abs(logged / known.value - 1) > TOLERANCE:
        raise BadInput("accelerator", accelerator.id, f"has {known.value / GIB:.1f} GiB, and the log states {logged / GIB:.1f} GiB: another card")
    stated = "as printed" if log.total_gib else "the share requested / gpu_memory_utilization"
    number = Number(value=round(logged), source=f"vLLM start-up log {source}, {stated} ({date.today()})", tag="measured")
    return accelerator.model_copy(update={"logged_bytes": number})


def _predicted(log: StartupLog, model: ModelSpec, accelerator: AcceleratorSpec, tp: int) -> Capacity:
    """What kvopt computes from the settings of the log and nothing that it printed as a result."""
    weights, experts_only = _weights(log, model)
    found = deployed(
        model,
        accelerator,
        engine="vllm",
        version=log.version or "",
        tp=tp,
        pp=log.pp or 1,
        utilisation=log.utilisation or 0.0,
        max_sequences=log.max_num_seqs or 0,
        chunk=log.max_num_batched_tokens or 0,
        max_model_len=log.max_model_len or 0,
        kv_format=log.kv_cache_dtype or "auto",
        weights=weights,
        block_tokens=log.block_size or 0,
    ).deployment
    return of(replace(found, eager=bool(log.eager), experts_only=found.experts_only or experts_only))


def _weights(log: StartupLog, model: ModelSpec) -> tuple[str | None, bool]:
    """The weight format that the log states, by its name or the model's; the model's own where it states none. And whether it is the experts' alone."""
    if log.quantization is None or log.quantization == "None":
        return ("fp32", False) if log.dtype == "float32" else (None, False)
    for label in (log.quantization, log.model or ""):
        try:
            found = weights_of(label, log.dtype or "", model)
        except Refusal:
            continue
        return found if found[0] != model.weight_format else (None, False)
    return None, False


def _beside(log: StartupLog, capacity: Capacity) -> list[tuple[str, float | None, float | None]]:
    """(What, logged, predicted), GiB and counts."""
    ledger = capacity.ledger
    blocks = log.gpu_blocks
    graphs = ledger.graphs or (capacity.outside.graphs if capacity.outside else 0.0)  # inside the budget, or beside it
    return [
        ("memory GiB", log.total_bytes / GIB if log.total_bytes else None, ledger.visible / GIB),
        ("weights GiB", log.weights_gib, ledger.weights / GIB),
        ("activations GiB", log.activation_gib, ledger.activation / GIB),
        ("non-torch GiB", log.non_torch_gib, ledger.non_torch / GIB),
        ("CUDA graphs GiB", log.graphs_gib or log.graphs_estimated_gib, graphs / GIB),
        ("pool GiB", log.kv_gib, capacity.pool_bytes / GIB),
        ("blocks", blocks, capacity.blocks),
        ("tokens", log.kv_tokens or (blocks * capacity.deployment.block_tokens if blocks else None), capacity.tokens),
        ("requests of full length", log.concurrency, capacity.concurrency),
    ]


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:,d}" if isinstance(value, int) else f"{value:.2f}"


def _ratio(logged: float | None, predicted: float | None) -> str:
    return f"{logged / predicted:.3f}" if logged and predicted else "-"
