"""Rows of a table as readings: what they are taken for, and what is refused by name."""

from __future__ import annotations

import pytest

from kvopt.accuracy import labels
from kvopt.accuracy.reading import model_key, read
from kvopt.validation.rows import Refusal, Row

GOOD = {
    "method": "SnapKV (question seen)", "dimension": "token", "model": "meta-llama/Llama-3.1-8B-Instruct", "benchmark": "LongBench-avg",
    "kept_fraction": "0.25", "score": "48", "baseline": "50", "query_aware": "yes", "source": "A lab (arXiv 1234.5678)",
}  # fmt: skip
BITS = {**GOOD, "method": "KIVI", "dimension": "bits", "kept_fraction": "", "bits": "4"}


def row(base: dict[str, str] = GOOD, **changes: str) -> Row:
    return Row(2, {**base, **changes})


def test_a_row_is_read() -> None:
    one = read(row(context_len="4096"))
    assert (one.method, one.pool, one.question, one.model, one.task, one.average) == ("snapkv", "scored", "seen", "llama-3.1-8b", "longbench", True)
    assert (one.key, one.value, one.context, one.retained) == (0.25, 0.25, 4096, pytest.approx(0.96))
    assert read(row(query_aware="")).question == "hidden"
    assert read(row(score="")).retained is None


def test_scores_may_be_shares_and_perplexities_are_turned_over() -> None:
    assert read(row(score="0.4", baseline="0.5")).retained == pytest.approx(0.8)
    assert read(row(benchmark="PPL:WikiText-2", score="8", baseline="6")).retained == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"method": ""}, "method: missing"),
        ({"model": ""}, "model: missing"),
        ({"dimension": ""}, "dimension: missing"),
        ({"dimension": "width"}, "dimension: width: must be one of token, head, layer"),
        ({"benchmark": ""}, "benchmark: missing"),
        ({"benchmark": "My own exam"}, "benchmark: My own exam: of no known task family"),
        ({"kept_fraction": ""}, "kept_fraction: missing"),
        ({"kept_fraction": "0"}, "kept_fraction: 0: must be above 0 and at most 1"),
        ({"kept_fraction": "1.5"}, "kept_fraction: 1.5: must be above 0 and at most 1"),
        ({"kept_fraction": "half"}, "kept_fraction: half: not a number"),
        ({"dimension": "bits"}, "bits: missing"),
        ({"dimension": "bits", "bits": "0.5"}, "bits: 0.5: must be 1 or more and at most 16"),
        ({"dimension": "bits", "bits": "32"}, "bits: 32: must be 1 or more and at most 16"),
        ({"score": "101"}, "score: 101: must be at most 100, the most that is possible"),
        ({"baseline": "120"}, "baseline: 120: must be at most 100, the most that is possible"),
        ({"score": "1.2", "baseline": "0.9"}, "score: 1.2: must be at most 1, the most that is possible"),
        ({"score": "-1"}, "score: -1: must be 0 or more"),
        ({"score": "nan"}, "score: nan: not a finite number"),
        ({"baseline": "0"}, "baseline: 0: must be above 0, or nothing is there to keep"),
        ({"benchmark": "PPL", "score": "0.5", "baseline": "6"}, "score: 0.5: a perplexity must be 1 or more"),
        ({"benchmark": "PPL", "score": "7", "baseline": "0.5"}, "baseline: 0.5: a perplexity must be 1 or more"),
        ({"context_len": "0"}, "context_len: 0: must be above 0"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, str], why: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(row(**changed))
    assert str(refused.value).startswith(why)


@pytest.mark.parametrize(
    ("name", "dimension", "method"),
    [
        ("SnapKV", "token", "snapkv"),
        ("SnapKV (question hidden)", "token", "snapkv"),
        ("snapkvpress", "token", "snapkv"),
        ("SnapKVish", "token", None),
        ("SnapKV", "bits", None),
        ("KIVI-4", "bits", "kivi"),
        ("Nobody's method", "token", None),
    ],
)
def test_labels_mean_methods(name: str, dimension: str, method: str | None) -> None:
    found = labels.find(name, dimension)  # type: ignore[arg-type]
    assert (found and found.id) == method


def test_a_method_that_the_catalog_does_not_have_is_read() -> None:
    one = read(row(method="Nobody's method"))
    assert (one.method, one.pool) == ("nobody's method", "token?")


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("KIVI", (4, 4)),
        ("llama.cpp K q8_0, V f16", (8, 16)),
        ("llama.cpp k q4_0, v q5_1", (4, 5)),
        ("KVTuner k8v4", (8, 4)),
        ("MixKVQ k2.19v2.38", (2.19, 2.38)),
        ("odd k99v1", (4, 4)),
    ],
)
def test_names_state_the_bits_of_keys_and_values(name: str, bits: tuple[float, float]) -> None:
    one = read(row(BITS, method=name))
    assert (one.key, one.value) == bits


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("Llama-3.1-8B-Instruct (FP8 weights)", "llama-3.1-8b"),
        ("Mistral-7B-Instruct-v0.2", "mistral-7b-v0.2"),
        ("Qwen2.5-7B-Instruct-AWQ", "qwen2.5-7b"),
        ("", "unknown"),
    ],
)
def test_models_are_known_without_what_leaves_the_cache_alone(name: str, key: str) -> None:
    assert model_key(name) == key
