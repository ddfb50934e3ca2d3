"""The arithmetic of a plan adds up to its metrics, whatever the plan, and names its sources."""

import dataclasses
import math

import pytest

import kvopt
from kvopt.errors import BadInput
from kvopt.explanation.explained import explain
from kvopt.explanation.parts import parts
from kvopt.inputs.scenario import Scenario
from kvopt.named import best_case
from kvopt.problem import resolve

SCENARIOS = {
    "paper": {},
    "theory": {"fidelity": "peak"},
    "quantised": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k", "methods": "fp8"},
    "heads and tokens": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 2, "context": "64k", "methods": "duoattention:0.5,snapkv:0.5"},
    "several kinds of session": {"model": "llama-3.1-8b", "accelerator": "l40s", "gpus": 1, "workload": "chat"},
    "windows": {"model": "gemma-3-27b", "accelerator": "h100-sxm", "gpus": 2, "context": "32k"},
    "latent": {"model": "deepseek-v2-lite", "accelerator": "h100-sxm", "gpus": 2, "context": "32k"},
    "pipeline, light load": {"model": "qwen2.5-72b", "accelerator": "h100-sxm", "gpus": 4, "tp": 2, "pp": 2, "context": "16k", "max_num_seqs": 1},
    "caches computed again": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "16k", "idle": "recompute"},
    "windows that are not full": {"model": "gemma-3-27b", "accelerator": "h100-sxm", "gpus": 2, "context": "500"},
    "a share of what is free": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "16k", "engine": "trtllm"},
    "percentile": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k", "ttft": "p95:20s", "tpot": "p95:80ms"},
}


@pytest.fixture(scope="module", params=SCENARIOS)
def explained(request):
    return explain(**SCENARIOS[request.param])


def rows(result):
    return {row["metric"]: row for row in result.data["explained"]}


def total(row):
    return sum(term["value"] for term in row["terms"])


def test_terms_add_up_to_their_metric(explained):
    found = rows(explained)
    for name in ("prefill_s", "decode_s_per_token", "decode_step_s", "ttft_s", "tpot_s", "kv_bytes_per_session", "weight_bytes", "kv_pool_bytes"):
        assert total(found[name]) == pytest.approx(found[name]["value"], rel=1e-9), name


def test_gpu_seconds_of_a_session_give_its_rate(explained):
    found, metrics = rows(explained), explained.data["metrics"]
    seconds = total(found["sessions_per_gpu_hour"])
    if metrics["sessions_per_gpu_hour"]:  # 0 where targets are not met, though the load has a rate
        assert 3600 / seconds == pytest.approx(metrics["sessions_per_gpu_hour"], rel=1e-9)
        users = total(found["users_per_gpu"]) / seconds
        assert users == pytest.approx(metrics["users_per_gpu"], rel=1e-9)
    assert all(term["value"] >= -1e-9 * seconds for term in found["sessions_per_gpu_hour"]["terms"])
    assert 3600 / total(found["prefill_ceiling_per_gpu_hour"]) == pytest.approx(metrics["prefill_ceiling_per_gpu_hour"], rel=1e-9)


def test_factors_give_their_metric(explained):
    found, metrics = rows(explained), explained.data["metrics"]
    *sizes, left = (term["value"] for term in found["kv_bytes_per_token"]["terms"])
    assert 0 < left <= 1 + 1e-9
    assert sum(sizes) * left == pytest.approx(metrics["kv_bytes_per_token"])
    groups, pool, one = (term["value"] for term in found["concurrency"]["terms"])
    assert groups * math.floor(max(pool, 0) / one + 1e-9) == metrics["concurrency"]
    if "cost_per_session_usd" in found:
        price, rate = (term["value"] for term in found["cost_per_session_usd"]["terms"])
        assert price / rate == pytest.approx(metrics["cost_per_session_usd"])


def test_losses_give_the_accuracy(explained):
    found = rows(explained)["accuracy_retained"]
    assert math.exp(-total(found)) == pytest.approx(found["value"])


def test_every_input_has_a_source_and_every_row_its_inputs(explained):
    known = {row["key"]: row for row in explained.data["assumptions"] if row["key"]}
    for row in explained.data["explained"]:
        assert set(row["inputs"]) <= set(known), row["metric"]
        assert all(known[name]["source"] and known[name]["tag"] for name in row["inputs"])
        assert row["dominates"] is None or row["dominates"] in {term["name"] for term in row["terms"]}


def test_what_dominates_is_the_largest_term(explained):
    for row in explained.data["explained"]:
        if row["dominates"]:
            largest = max(row["terms"], key=lambda term: abs(term["value"]))
            assert largest["name"] == row["dominates"]
            assert largest["share"] == max(term["share"] for term in row["terms"])


def test_a_found_plan_is_explained_at_its_own_load():
    scenario = Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")
    found = kvopt.optimize(scenario)
    again = explain(scenario, plan=found.data["plan"])
    for name in ("sessions_per_gpu_hour", "ttft_s", "tpot_s", "kv_bytes_per_token"):
        assert again.data["metrics"][name] == pytest.approx(found.data["metrics"][name], rel=1e-9)
    assert found.data["arithmetic"] == again.data["arithmetic"]
    for point in (found.data, found.data["baseline_point"], found.data["research"]):
        seconds = sum(point["arithmetic"]["session"]["gpu_seconds"].values())
        assert 3600 / seconds == pytest.approx(point["metrics"]["sessions_per_gpu_hour"], rel=1e-9)


def test_roofline_holds_every_step_below_its_roof():
    data = explain(model="qwen2.5-72b", accelerator="h100-sxm", gpus=4, context="64k").data["arithmetic"]["roofline"]
    for work in data["work"]:
        rate, intensity = work["flop"] / work["seconds"], work["flop"] / work["bytes"]
        assert 0 < rate < min(data["peak_flops"], intensity * data["peak_bandwidth"])
    assert [work["stage"] for work in data["work"]] == ["prefill", "decode", "decode"]
    prefill, alone, batched = (work["flop"] / work["bytes"] for work in data["work"])
    assert alone < batched < prefill


def test_report_says_formula_terms_and_sources(explained):
    said = str(explained)
    for words in ("Sessions per GPU-hour", "3,600 s / GPU-seconds of one session", "dominates", "What it starts from", "[1] "):
        assert words in said


def test_weights_that_do_not_fit_have_no_arithmetic():
    with pytest.raises(BadInput, match=r"gpus: 1: the weights of .* do not fit"):
        explain(model="llama-3.1-70b", accelerator="a100-80-sxm", gpus=1)


def test_parts_do_not_depend_on_what_is_not_asked():
    """Prices are no part of the physics."""
    scenario = Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")
    problem = resolve(scenario)
    other = dataclasses.replace(problem, accelerator=problem.accelerator.model_copy(update={"usd_per_h": None}))
    assert parts(problem, best_case(problem))["session"] == parts(other, best_case(other))["session"]
