"""Makes the committed tables of measurements from the collected evidence: the columns that are read, what notes say as columns, nothing else.

python -m studies.evidence.condense FOLDER_OF_EVIDENCE
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kvopt.inputs.hf_config import read_model
from studies.evidence import ACCURACY, AICONFIGURATOR, CAPACITY, COMPOSITION, LATENCY
from studies.evidence.condense_traces import condense_traces

Cells = Mapping[str, str]

MEASURED = ("prefill_s", "ttft_s", "tpot_ms", "throughput_tok_s", "e2e_s")
LATENCY_COLUMNS = (
    *(
        "id",
        "model",
        "gpu",
        "num_gpus",
        "tp",
        "pp",
        "engine",
        "version",
        "weight_dtype",
        "kv_dtype",
        "prompt_len",
        "cached_len",
        "output_len",
        "batch",
    ),
    *("kind", "stream_interval", *MEASURED, "throughput_basis", "use_for_fit", "fitted", "source", "source_id"),
)
ACCURACY_COLUMNS = (
    *("method", "dimension", "model", "benchmark", "context_len", "kept_fraction", "bits", "score", "baseline", "query_aware", "trained"),
    *("source", "read_from", "excluded"),
)
COMPOSITION_COLUMNS = (
    *("combo", "method", "model", "benchmark", "context_len", "keep_layer", "keep_head", "keep_token", "keep_rank", "bits", "other_axis", "score"),
    *("baseline", "single_1", "single_1_score", "single_2", "single_2_score", "retained_joint", "retained_1", "retained_2", "query_aware", "source"),
)
USUAL_PROMPT = 8192  # [tokens] what a budget in tokens is taken as a share of on LongBench, where the prompt is not stated (assumed)
CAPACITY_COLUMNS = (
    *(
        "row_id",
        "engine",
        "engine_version",
        "engine_era",
        "model",
        "gpu",
        "gpu_count",
        "tp",
        "pp",
        "parallel_note",
        "weights_quant",
        "activation_dtype",
    ),
    *(
        "kv_cache_dtype",
        "mem_fraction",
        "max_model_len",
        "block_size",
        "max_num_batched_tokens",
        "max_num_seqs",
        "enforce_eager",
        "gpu_total_gib_logged",
    ),
    *("kv_cache_gib_logged", "kv_blocks_logged", "kv_tokens", "max_concurrency_logged", "fully_specified", "source", "notes"),
)
PEER_COLUMNS = (
    *(
        "id",
        "model_path",
        "system",
        "backend",
        "backend_version",
        "precision",
        "isl",
        "osl",
        "batch_size",
        "tp_size",
        "silicon_ttft_ms",
        "silicon_tpot_ms",
    ),
    *("aic_predicted_ttft_ms", "aic_predicted_tpot_ms"),
)
SWEEP = "AIConfigurator silicon sample"


def latency(row: Cells) -> dict[str, str] | None:
    """A row of latency_points.csv; none where it names no model. What stands in its note goes into columns."""
    if not row["model"]:
        return None
    note = row["note"]
    cached = re.search(r"on top of (\d+) cached", note)
    stages = re.search(r"\bPP=(\d+)", note)
    measured = {name: row[name] for name in MEASURED}
    if "use TPOT only" in note:  # repeated prompts, found in the prefix cache
        measured["ttft_s"] = ""
    identity = re.search(r"\bid (\S+)", row["source_where"])
    interval = "20" if _streams(row) else ""
    return {
        **{name: row.get(name, "") for name in LATENCY_COLUMNS},
        **measured,
        "engine": f"{row['engine']} (eager)" if "eager" in note and "eager" not in row["engine"] else row["engine"],
        "cached_len": cached.group(1) if cached else "",
        "pp": stages.group(1) if stages else "",
        "stream_interval": interval,
        "fitted": "1" if row["use_for_fit"] == "1" or _mixture_sweep(row) or _eager(row) else "0",
        "source_id": identity.group(1) if identity else "",
    }


def _streams(row: Cells) -> bool:
    """InferenceMAX's TensorRT-LLM runs of 1K prompts and answers on up to four GPUs: the first token comes 17 to 20 decode steps later than in their twins
    of other lengths, on H200 and B200, in FP8 and FP4, at every concurrency. The server sends 20 tokens at a time.
    """
    shape = row["prompt_len"] == row["output_len"] == "1024" and int(row["tp"] or 8) < 8
    return shape and row["engine"] == "TensorRT-LLM" and "InferenceMAX" in row["note"]


def _mixture_sweep(row: Cells) -> bool:
    """Serving sweeps of mixtures of experts: left out of the reference fit, which had no terms for them."""
    return row["source"].startswith(SWEEP) and read_model(row["model"]).routed


def _eager(row: Cells) -> bool:
    """Rows without CUDA graphs, which the reference fit left out: here they are engines of their own. Layers split over GPUs stay out."""
    return "eager" in row["note"] and "layers split" not in row["note"] and bool(row["e2e_s"])


def capacity(row: Cells) -> dict[str, str]:
    """A row of capacity_logs.csv."""
    return {name: row.get(name, "") for name in CAPACITY_COLUMNS}


def peer(row: Cells) -> dict[str, str]:
    """A row of aiconfigurator_vs_silicon.csv: what was measured under which settings, and what it predicts."""
    return {name: row[name] for name in PEER_COLUMNS}


def accuracy(row: Cells) -> dict[str, str]:
    """A row of `kv_accuracy.csv`; a budget in tokens that only the method's name states becomes a share of the prompt, with the prompt it was taken of."""
    tag = re.match(r"\[([^\]]*)\]", row["source_where"])
    reason = re.search(r"\[exclude-from-fit: ([^\]]*)\]", row["source_where"])
    found = {name: row[name] for name in ACCURACY_COLUMNS if name in row}
    budget = re.search(r"budget (\d+) tokens", row["method"])
    if budget and not row["kept_fraction"] and "LongBench" in row["benchmark"]:
        found |= {"kept_fraction": str(int(budget.group(1)) / USUAL_PROMPT), "context_len": str(USUAL_PROMPT)}
    source = re.sub(r"\s*\(stored text ids? [^)]*\)", "", row["source"])
    excluded = reason.group(1) if reason else "a kernel's fault, since mended" if "before FA3" in row["method"] else ""
    return found | {"source": source, "read_from": tag.group(1) if tag else "", "excluded": excluded}


def composition(row: Cells) -> dict[str, str]:
    """A row of `kv_composition.csv`."""
    source = re.sub(r"\s*\(stored text ids? [^)]*\)", "", row["source"])
    return {name: row[name] for name in COMPOSITION_COLUMNS if name in row} | {"source": source}


def condense(source: Path, target: Path, columns: Sequence[str], make: Callable[[Cells], dict[str, str] | None]) -> None:
    """Writes the rows of one file in their condensed form."""
    with source.open(newline="", encoding="utf-8") as file:
        made: Iterable[dict[str, str] | None] = [make(row) for row in csv.DictReader(file)]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in made if row is not None)


def main(words: Sequence[str]) -> None:
    """Condenses everything in the folder named."""
    folder = Path(words[0])
    condense(folder / "latency_points.csv", LATENCY, LATENCY_COLUMNS, latency)
    condense(folder / "capacity_logs.csv", CAPACITY, CAPACITY_COLUMNS, capacity)
    condense(folder / "kv_accuracy.csv", ACCURACY, ACCURACY_COLUMNS, accuracy)
    condense(folder / "kv_composition.csv", COMPOSITION, COMPOSITION_COLUMNS, composition)
    condense(folder / "peers" / "aiconfigurator_vs_silicon.csv", AICONFIGURATOR, PEER_COLUMNS, peer)
    condense_traces(folder / "traces")


if __name__ == "__main__":
    main(sys.argv[1:])
