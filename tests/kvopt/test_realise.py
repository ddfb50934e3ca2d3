"""Where each setting runs, which methods an engine is offered, and what the gap to research is worth."""

from __future__ import annotations

import pytest

import kvopt
from kvopt import wording
from kvopt.accuracy import curves
from kvopt.errors import BadInput
from kvopt.inputs import method
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.problem import on_each_engine, resolve, unsuited
from kvopt.realise import deployable, gap, placed, settings
from kvopt.search.offers import deployable_methods, offered

ONE = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
BITS = {"int8-per-token-head", "int4-per-token-head", "turboquant-k8v4", "turboquant-4bit-nc", "turboquant-k3v4-nc", "turboquant-3bit-nc"}
OFFERED = {
    "vllm": {"fp8", *BITS},
    "sglang": {"fp8"},
    "trtllm": {"fp8", "rocketkv"},
    "lmdeploy": {"int8-per-token-head", "int4-per-token-head"},
    "hf": {"kivi", "snapkv", "pyramidkv", "expected-attention", "h2o", "knorm", "streamingllm"},
}


def asked(**fields):
    return resolve(Scenario.of(**{**ONE, **fields}))


def labels(problem, *names):
    return {entry["method"]: entry for entry in settings(problem, MethodChoice.of(*(method.load(name) for name in names)))}


@pytest.mark.parametrize(("engine", "ids"), OFFERED.items())
def test_an_engine_is_offered_what_it_runs(engine, ids):
    problem = asked(engine=engine, turns=1)
    usable = {spec.id for spec in method.load_all() if placed(problem, spec) and curves.find(spec, problem.asked)}
    assert usable >= ids if engine == "hf" else usable == ids  # kvpress grows, engines' settings are counted
    assert {spec.id for chosen in deployable_methods(problem) for spec in chosen.methods} <= usable
    assert all(deployable(problem, chosen) for chosen in deployable_methods(problem))


def test_blackwell_has_more_kernels_and_ampere_fewer():
    assert placed(asked(engine="trtllm", accelerator="b200"), method.load("nvfp4"))
    for engine in ("vllm", "sglang", "trtllm"):
        assert not placed(asked(engine=engine, accelerator="a100-80-sxm"), method.load("fp8"))
    assert [chosen.methods for chosen in offered(asked(accelerator="a100-80-sxm", methods="fp8"))] == [()]


def test_heads_that_are_only_masked_free_no_memory():
    for name in ("adakv", "duoattention", "kvzip", "kvzap"):
        spec = method.load(name)
        assert any(entry.masks_only for entry in spec.runs_in)
        assert not spec.runs_on("hf")
    assert labels(asked(engine="hf"), "adakv")["adakv"]["remark"] == "kvpress 0.5.5 only masks what it drops and frees no memory"


def test_code_of_its_own_is_no_engine():
    own = [spec for spec in method.load_all() if any(entry.own_code for entry in spec.runs_in)]
    assert {"palu", "xkv", "kvsharer", "kvtuner", "duoattention", "kvzip"} <= {spec.id for spec in own}
    assert not any(spec.runs_on("hf") for spec in own)


def test_quantized_cache_needs_full_attention():
    assert placed(asked(engine="hf"), method.load("kivi"))
    assert not placed(asked(engine="hf", model="gemma-3-27b"), method.load("kivi"))


def test_every_setting_says_where_it_runs():
    problem = asked(engine="vllm")
    found = labels(problem, "fp8", "rocketkv", "duoattention", "cla")
    assert found["fp8"] == {
        "dimension": "bits",
        "method": "fp8",
        "where": "engine-ready",
        "engine": "vllm",
        "runs_in": "--kv-cache-dtype fp8",
        "remark": None,
    }
    said = {name: wording.label(entry, "vllm") for name, entry in found.items()}
    assert said["fp8"] == "vllm: --kv-cache-dtype fp8"
    assert said["rocketkv"] == "runs in trtllm, not in vllm"
    assert said["duoattention"].startswith("research library: DuoAttention repository")
    assert said["cla"] == "needs a trained checkpoint"
    assert labels(problem)["16-bit"]["where"] == "engine-ready"
    assert labels(problem, "kivi")["kivi"]["engine"] == "hf"
    assert "no engine runs it" in labels(asked(accelerator="a100-80-sxm"), "nvfp4")["nvfp4"]["remark"]


def test_a_plan_shows_its_labels(optimized):
    plan = kvopt.analyze(**ONE, methods="snapkv:0.5,fp8", turns=1).data["plan"]
    assert (plan["engine"], plan["where"]) == ("vllm", "research library")
    shown = wording.labelled(plan)
    assert shown.startswith("snapkv (research library: SnapKVPress(")
    assert shown.endswith("+ fp8 (vllm: --kv-cache-dtype fp8)")
    assert wording.labelled(optimized.data["plan"]) == "fp8"  # a result from before there were labels


def test_the_gap(optimized, infeasible):
    lost = gap(optimized.data)
    assert lost["sessions_per_gpu_hour_percent"] == pytest.approx(50)
    assert lost["cost_per_session_usd"] == pytest.approx(2.45 / 60 - 2.45 / 90)
    assert lost["methods"] == ["duoattention", "kivi"]
    optimized.data["metrics"]["cost_per_session_usd"] = None
    assert gap(optimized.data)["cost_per_session_usd"] is None
    same = {**optimized.data, "research": {"plan": optimized.data["plan"], "metrics": optimized.data["metrics"]}}
    assert gap(same) == {"sessions_per_gpu_hour_percent": 0, "cost_per_session_usd": None, "methods": []}
    assert gap(infeasible.data) == {"sessions_per_gpu_hour_percent": None, "cost_per_session_usd": None, "methods": []}
    beyond = {**optimized.data, "infeasible": infeasible.data["infeasible"]}
    assert gap(beyond) == {"sessions_per_gpu_hour_percent": None, "cost_per_session_usd": None, "methods": ["duoattention", "kivi"]}


def test_any_engine_is_every_engine_that_suits():
    assert [one.engine.id for one in on_each_engine(asked(engine="any"))] == ["vllm", "hf", "lmdeploy", "sglang", "trtllm"]
    assert [one.engine.id for one in on_each_engine(asked(engine="sglang"))] == ["sglang"]
    amd = asked(engine="any", accelerator="mi300x", gpus=2, tp=2)
    assert [one.engine.id for one in on_each_engine(amd)] == ["vllm", "sglang"]
    assert unsuited(amd) == {
        "hf": "hf has no tensor parallelism",
        "lmdeploy": "runs on accelerators of NVIDIA, and mi300x is one of AMD",
        "trtllm": "runs on accelerators of NVIDIA, and mi300x is one of AMD",
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"engine": "vlm"}, "did you mean vllm?; one of hf, lmdeploy, sglang, trtllm, vllm, or any"),
        ({"engine": "foo"}, "not known; one of hf, lmdeploy, sglang, trtllm, vllm, or any"),
        ({"engine": "hf", "gpus": 2, "tp": 2}, "tp: 2: hf has no tensor parallelism"),
        ({"engine": "lmdeploy", "gpus": 2, "pp": 2}, "pp: 2: lmdeploy has no pipeline parallelism"),
    ],
)
def test_what_an_engine_cannot_be_asked(fields, said):
    with pytest.raises(BadInput) as refused:
        asked(**fields)
    assert said in str(refused.value)
