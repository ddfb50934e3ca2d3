"""The catalog's methods: every file valid, choices that become pytrees, and curves that reproduce published points."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kvopt import catalog
from kvopt.accuracy.asked import Asked
from kvopt.errors import BadInput
from kvopt.inputs import method
from kvopt.inputs.choice import MethodChoice, choices
from kvopt.inputs.evidence import TASKS, Task
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.sourced import checked
from objectives.accuracy.composition import losses, retained
from objectives.types import Plan

EVIDENCE = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "kv_accuracy.csv"


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0)
    return Plan(**{**fields, "key_bits": 16.0, "value_bits": 16.0, **changes})


def choose(*names: str) -> MethodChoice:
    return MethodChoice.of(*(method.load(name) for name in names))


def mean_and_lower(
    choice: MethodChoice, task: Task, hidden: bool, context: float = 8192, model: str | None = None, **changes: Any
) -> tuple[float, float]:
    proxies = choice.accuracy(Asked(task, context, hidden, model))
    return float(retained(losses(plan(**changes), proxies))), float(retained(losses(plan(**changes), proxies, z=1.2816)))


@pytest.mark.parametrize("name", catalog.ids("methods"))
def test_every_method_is_valid(name: str) -> None:
    spec = method.load(name)
    assert spec.id == name
    for other in spec.excludes:
        assert other in method.DIMENSIONS or other in catalog.ids("methods")


def test_no_method_leaves_everything_neutral() -> None:
    none = MethodChoice()
    proxies = none.accuracy(Asked("longbench", 131072, question_hidden=True))
    assert float(retained(losses(plan(token_keep=0.25, key_bits=4.0), proxies))) == 1.0
    effects = none.effects()
    assert (effects.read_efficiency, effects.token.stored, effects.extra_prefill, effects.streaming_tokens) == (1, 0, 0, 0)
    assert none.bounds() == (plan(), plan())
    assert none.runs_on("vllm")


def test_leaves_are_float64_scalars_of_one_structure() -> None:
    picked = [MethodChoice(), choose("fp8"), choose("kvzip", "fp8", "kvsharer"), choose("duoattention", "turboquant-4bit-nc")]
    for build in (lambda c: c.accuracy(Asked("ruler", 65536, True)), MethodChoice.effects, MethodChoice.bounds):
        trees = [build(choice) for choice in picked]
        leaves = [leaf for tree in trees for leaf in jax.tree.leaves(tree)]
        assert all(isinstance(leaf, np.float64) for leaf in leaves)
        stacked = jax.tree.map(lambda *values: np.stack(values), *trees)
        assert all(leaf.shape == (4,) for leaf in jax.tree.leaves(stacked))


@pytest.mark.parametrize(
    ("name", "task", "hidden", "context", "model", "changes", "published", "tolerance"),
    [
        ("snapkv", "longbench", False, 8192, "llama-3-8b", {"token_keep": 0.25}, 0.99, 0.012),  # QPruningKV .997, CircuitKV .989
        ("snapkv", "ruler", True, 4096, "llama-3.1-8b", {"token_keep": 0.5}, 0.73, 0.08),  # kvpress RULER-4k
        ("kvzip", "ruler", True, 4096, "llama-3.1-8b", {"token_keep": 0.2}, 94.9 / 95.7, 0.015),  # kvpress PR 93
        ("duoattention", "longbench", True, 32768, "llama-3-8b", {"head_keep": 0.5}, 1.0, 0.01),  # DuoAttention paper
        ("duoattention", "ruler", True, 4096, "llama-3.1-8b", {"head_keep": 0.33}, 0.75, 0.03),  # kvpress leaderboard
        ("fp8", "reasoning", True, 8192, None, {"key_bits": 8.0, "value_bits": 8.0}, 0.991, 0.006),  # vLLM FP8 blog, mean of 22
        (
            "turboquant-4bit-nc",
            "reasoning",
            True,
            8192,
            None,
            {"key_bits": 4.0, "value_bits": 4.0},
            0.982,
            0.012,
        ),  # vLLM TurboQuant blog, median of 8
        ("rocketkv", "longbench", False, 8192, "llama-3.1-8b", {"token_keep": 0.25}, 0.978, 0.015),  # TensorRT-LLM blog, mean of four models
        ("kvsharer", "knowledge", True, 4096, None, {"layer_keep": 0.75}, 0.93, 0.05),  # KVSharer paper, five categories
        ("commonkv", "longbench", True, 8192, "llama-3.1-8b", {"layer_keep": 0.5}, 0.93, 0.03),  # EchoKV comparison
        ("palu", "ruler", True, 32768, "mistral-7b-v0.3", {"key_rank": 0.5, "value_rank": 0.5}, 0.83, 0.06),  # EchoKV comparison
        ("xkv", "ruler", True, 65536, "llama-3.1-8b", {"key_rank": 0.125, "value_rank": 0.125}, 0.965, 0.03),  # xKV paper
    ],
)
def test_published_points(
    name: str, task: Task, hidden: bool, context: float, model: str | None, changes: dict[str, float], published: float, tolerance: float
) -> None:
    mean, low = mean_and_lower(choose(name), task, hidden, context, model, **changes)
    assert mean == pytest.approx(published, abs=tolerance)
    assert low < mean


def test_one_shot_truncation_falls_off_a_cliff_near_three_quarters() -> None:
    def kept(share: float) -> float:
        return mean_and_lower(choose("key-pca"), "perplexity", True, key_rank=share, value_rank=share)[0]

    assert kept(0.9) > 0.85 > 0.75 > kept(0.75)
    assert kept(0.5) < 0.4


def test_eight_bits_are_safe_at_the_default_floor_and_four_bit_floats_are_not_in_reasoning() -> None:
    assert mean_and_lower(choose("fp8"), "longbench", True, key_bits=8.0, value_bits=8.0)[1] > 0.95
    mean, low = mean_and_lower(choose("fp4-mx-block16"), "reasoning", True, key_bits=4.0, value_bits=4.0)
    assert low < 0.7
    assert mean < mean_and_lower(choose("fp4-mx-block16"), "gsm8k", True, key_bits=4.0, value_bits=4.0)[0] - 0.03  # GSM8K is no guard for reasoning


def test_a_hidden_question_costs_a_selection_that_wants_to_see_it() -> None:
    hidden, seen = (mean_and_lower(choose("snapkv"), "ruler", one, 4096, "llama-3.1-8b", token_keep=0.5)[0] for one in (True, False))
    assert hidden < seen - 0.2


def test_keys_of_some_models_do_not_survive_four_bits() -> None:
    kivi = choose("kivi")

    def kept(model: str | None, key_bits: float) -> float:
        return float(retained(losses(plan(key_bits=key_bits, value_bits=4.0), kivi.accuracy(Asked("gsm8k", 8192, True, model)))))

    assert kept("qwen2.5-7b-instruct", 4.0) < 0.5 < 0.95 < kept("llama-3.1-8b", 4.0)
    assert kept("qwen2.5-7b-instruct", 8.0) > 0.97


def test_evidence_says_what_it_covers() -> None:
    assert choose("snapkv").evidence(plan(token_keep=0.25), Asked("longbench", 8192, question_hidden=False)) == "interpolated"
    assert choose("snapkv").evidence(plan(token_keep=0.25), Asked("longbench", 8192, question_hidden=True)) == "extrapolated"
    assert choose("snapkv").evidence(plan(token_keep=0.25), Asked("longbench", 1e6, question_hidden=False)) == "extrapolated"
    assert choose("fp8", "rocketkv").evidence(plan(key_bits=8.0, value_bits=8.0), Asked("reasoning", 8192, question_hidden=True)) == "interpolated"
    assert (
        choose("fp8").evidence(plan(key_bits=8.0, value_bits=8.0), Asked("longbench", 8192, question_hidden=True)) == "extrapolated"
    )  # nobody published it
    assert choose("rocketkv").evidence(plan(token_keep=0.25), Asked("longbench", 8192, question_hidden=True)) == "none"
    assert choose("quest").evidence(plan(token_keep=0.25), Asked("longbench", 8192, question_hidden=False)) == "none"
    assert choose("quest").evidence(plan(), Asked("longbench", 8192, question_hidden=False)) == "interpolated"


def test_what_nobody_measured_together_is_extrapolated_and_wider() -> None:
    settings = {"token_keep": 0.5, "key_bits": 4.0, "value_bits": 4.0}
    assert choose("snapkv", "kivi").evidence(plan(**settings), Asked("longbench", 8192, question_hidden=False)) == "interpolated"
    three = choose("snapkv", "kivi", "commonkv")
    assert three.evidence(plan(**settings, layer_keep=0.5), Asked("longbench", 8192, question_hidden=False)) == "extrapolated"
    pair, triple = (choice.accuracy(Asked("longbench", 8192, False)).interactions for choice in (choose("snapkv", "kivi"), three))
    assert 0 < pair.composed_log_sd < triple.composed_log_sd
    assert choose("snapkv").accuracy(Asked("longbench", 8192, False)).interactions.composed_log_sd == 0


def test_a_task_that_a_method_was_not_measured_on_is_wider() -> None:
    kvzip = choose("kvzip")
    borrowed, own = kvzip.accuracy(Asked("longbench", 8192, True)).token, kvzip.accuracy(Asked("ruler", 8192, True)).token
    assert borrowed.log_sd > own.log_sd


def test_without_evidence_there_is_no_proxy() -> None:
    with pytest.raises(BadInput, match="no evidence"):
        choose("minference").accuracy(Asked("longbench", 8192, True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("hidden", [True, False])
def test_searched_choices_all_have_evidence(task: Task, hidden: bool) -> None:
    specs = [method.load(name) for name in ("fp8", "kivi", "snapkv", "kvzip", "quest", "duoattention", "minference", "cla")]
    found = list(choices(specs, Asked(task, 8192, hidden)))
    assert found[0].methods == ()
    for choice in found:
        choice.accuracy(Asked(task, 32768, hidden))
        assert not {"quest", "minference", "cla"} & {spec.id for spec in choice.methods}


def test_choices_on_an_engine_are_those_it_runs() -> None:
    found = list(choices(method.load_all(), Asked("longbench", 8192, True), engine="vllm"))
    assert {spec.dimension for choice in found for spec in choice.methods} == {"bits"}
    rocket = list(choices(method.load_all(), Asked("longbench", 8192, False), engine="trtllm"))
    assert any("rocketkv" in {spec.id for spec in choice.methods} for choice in rocket)


def test_two_methods_of_one_dimension_or_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(BadInput, match="at most one"):
        choose("snapkv", "h2o")
    with pytest.raises(BadInput, match="cannot be combined"):
        choose("snapkv", "adakv")


def test_bounds_follow_the_formats() -> None:
    low, high = choose("kivi", "duoattention").bounds()
    assert (low.key_bits, high.key_bits, low.head_keep, high.head_keep, low.token_keep) == (2, 4, 0.2, 1, 1)


def test_unknown_field_is_one_line_that_names_it() -> None:
    data = catalog.read("methods", "fp8") | {"colour": "red"}
    with pytest.raises(BadInput, match="colour") as error:
        checked(MethodSpec, data, "method", "my file")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match=r"formats\.0\.key_bits"):
        checked(MethodSpec, data | {"formats": [{"key_bits": "many", "value_bits": 8}]}, "method", "my file")


PREFIXES = {
    "snapkv": "SnapKV",
    "pyramidkv": "PyramidKV",
    "h2o": "H2O",
    "expected-attention": "ExpectedAttention",
    "kvzip": "KVzip",
    "streamingllm": "StreamingLLM",
}


@pytest.mark.skipif(not EVIDENCE.exists(), reason="the evidence table is not beside the repository")
@pytest.mark.parametrize("name", PREFIXES)
def test_lower_bound_covers_the_averages_measured(name: str) -> None:
    choice, covered, rows = choose(name), 0, 0
    for row in csv.DictReader(EVIDENCE.read_text(encoding="utf-8").splitlines()):
        task: Task | None = {"LongBench-avg": "longbench", "RULER-avg": "ruler"}.get(row["benchmark"])  # type: ignore[assignment]
        known = row["kept_fraction"] and row["score"] and "decode-time" not in row["method"] and "exclude" not in row["source_where"]
        if task is None or not known or not row["method"].startswith(PREFIXES[name]):
            continue
        context = float(row["context_len"] or 8192)
        low = mean_and_lower(choice, task, row["query_aware"] == "no", context, token_keep=float(row["kept_fraction"]))[1]
        covered, rows = covered + (float(row["score"]) / float(row["baseline"]) >= low), rows + 1
    assert rows > 0
    assert covered >= math.floor(0.8 * rows)
