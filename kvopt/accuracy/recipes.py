"""A measurement in words that a run can follow: a command of kvpress or of lm-evaluation-harness where they have the method, else what to run."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from pydantic import Field

from kvopt import catalog
from kvopt.accuracy.reading import SCORED, Reading
from kvopt.inputs.evidence import Frozen, Task
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.sourced import checked

DECODING_ROOM = 2048  # tokens that vLLM is given beyond the prompt


class Dataset(Frozen):
    """A dataset of kvpress's evaluation."""

    dataset: str
    lengths: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()


class Recipes(Frozen):
    """The catalog's file."""

    source: str
    presses: dict[str, str] = Field(description="press_name by catalog id")
    datasets: dict[Task, Dataset]
    lm_eval: dict[Task, str]


@cache
def load() -> Recipes:
    """The catalog's recipes."""
    path = resources.files(catalog) / "recipes.yaml"
    return checked(Recipes, catalog.read_yaml(path, "recipes"), "recipes", "the catalog's recipes")


def recipe(method: MethodSpec, reading: Reading, model: str) -> str:
    """How to measure a reading; `model`: its Hugging Face name."""
    return _kvpress(method, reading, model) or _lm_eval(method, reading, model) or _words(method, reading, model)


def _kvpress(method: MethodSpec, reading: Reading, model: str) -> str | None:
    press, data = load().presses.get(method.id), load().datasets.get(reading.task)
    if press is None or data is None:
        return None
    words = f"python evaluate.py --dataset {data.dataset}"
    if data.lengths:
        words += f" --data_dir {max((length for length in data.lengths if length <= reading.context), default=data.lengths[0])}"
    elif data.parts:
        words += " --data_dir $PART"
        words = f"for PART in {' '.join(data.parts)}; do {words}"
    else:
        words += f" --max_context_length {reading.context:.0f} --needle_depth 50"
    words += f" --model {model} --press_name {press} --compression_ratio {1 - reading.key:.3g}"
    if reading.question == "seen" and method.pool in SCORED:
        words += " --query_aware True"
    return words + ("; done" if data.parts else "")


def _lm_eval(method: MethodSpec, reading: Reading, model: str) -> str | None:
    placed, tasks = method.placed("vllm"), load().lm_eval.get(reading.task)
    written = re.match(r"--kv-cache-dtype (\S+)", placed.setting) if placed else None
    if written is None or tasks is None:
        return None
    long = reading.task in ("ruler", "needle")
    length = f",max_model_len={reading.context + DECODING_ROOM:.0f}" if long else ""
    words = f"lm_eval --model vllm --model_args pretrained={model},kv_cache_dtype={written.group(1)}{length} --tasks {tasks}"
    return words + (f""" --metadata='{{"max_seq_lengths":[{reading.context:.0f}]}}'""" if long else "")


def _words(method: MethodSpec, reading: Reading, model: str) -> str:
    where = method.runs_in[0] if method.runs_in else None
    how = f"{where.setting}, {where.version}" if where else "the code of its paper"
    asked = ", the question hidden while it selects" if method.pool in SCORED and reading.question == "hidden" else ""
    return f"{model} with {method.name} ({how}), {kept(reading)}, on {reading.benchmark} at {reading.context:,.0f} tokens{asked}"


def kept(reading: Reading) -> str:
    """What a reading keeps, in words."""
    if reading.dimension != "bits":
        return f"{reading.key:.3g} kept"
    return f"{reading.key:g} bits" if reading.key == reading.value else f"{reading.key:g} bits of K, {reading.value:g} of V"
