"""Points made by hand on real models and cards of the catalog: a grid of plans, no search and nothing compiled."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

import kvopt
from kvopt.describe import scenario as described
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.results import Result

GIB = 2.0**30
KEEPS = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0)
GROUPING = {"tp": 4, "pp": 1, "replicas": 1, "dcp": 1, "attention_dp": 1, "expert_parallel": False, "prefill_groups": 0}
SCHEDULE = {"idle": "park", "chunk": 8192.0, "max_num_seqs": 24, "decodes_in_flight": 12.0, "idle_resident": 0.25, "prefix_cache_tokens": 0.0}
METRICS = {"sessions_per_gpu_hour": 20.0, "output_tokens_per_gpu_s": 7.0, "ttft_s": 5.0, "tpot_s": 0.05, "kv_bytes_per_session": 5 * GIB}


@cache
def _described(asked: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    usual = {"model": "llama-3.1-70b", "accelerator": "h100-sxm", "gpus": 8, "context": "32k"}
    return described(resolve(Scenario.of(**{**usual, **dict(asked)})))


def scenario(**asked: Any) -> dict[str, Any]:
    """A scenario as a result holds it."""
    return _described(tuple(asked.items()))


def point(*methods: str, limit: float = 40 * GIB, used: float = 30 * GIB, parked: float = 20 * GIB, **changed: Any) -> dict[str, Any]:
    """One point: `limit` and `used` are bytes a GPU of a slot, `parked` those of a slot in host memory."""
    bits = {"key_bits": 8.0, "value_bits": 8.0} if methods else {"key_bits": 16.0, "value_bits": 16.0}
    own = {"engine": "vllm", "methods": list(methods), "where": "engine-ready", "settings": [], "weights": "bf16", "weights_retained": 1.0}
    plan = {**own, **KEEPS, **bits, **GROUPING, **SCHEDULE, **changed}
    tp = plan["tp"]
    rows = [{"name": "hbm", "value": used * tp, "limit": limit * tp}, {"name": "host_memory", "value": parked, "limit": 640e9}]
    rows = [{**row, "slack": row["limit"] - row["value"], "satisfied": True} for row in rows]
    numbers = {**METRICS, "memory_used_bytes": used * tp, "host_memory_used_bytes": parked, "kv_pool_bytes": limit * tp}
    return {"plan": plan, "metrics": numbers, "constraints": rows, "bottleneck": "", "evidence": "interpolated", "engine_capacity": None}


BY_LAYER = [[16.0]] * 2 + [[8.0]] * 76 + [[16.0]] * 2
GRID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": ({}, point("fp8", replicas=2)),
    "16 bit": ({}, point(tp=8)),
    "pipeline": ({}, point("int8-per-token-head", pp=2)),
    "experts": ({"model": "qwen3-235b-a22b"}, point("fp8", expert_parallel=True, tp=8)),
    "experts twice": ({"model": "qwen3-30b-a3b"}, point(replicas=2)),
    "latent": (
        {"model": "deepseek-v3", "accelerator": "b200-sxm"},
        point("fp8", weights="fp8", tp=8, attention_dp=8, expert_parallel=True),
    ),
    "latent, tokens split": ({"model": "deepseek-v3", "accelerator": "b200-sxm"}, point(weights="fp8", tp=8, dcp=4)),
    "windows": ({"model": "gemma-3-27b-it"}, point("fp8", tp=2, replicas=4)),
    "states": ({"model": "qwen3-next-80b-a3b-instruct"}, point("fp8", tp=2, replicas=4)),
    "by layer": ({}, point("fp8", key_bits=8.4, value_bits=8.4, replicas=2, blocks={"per": "layer", "key_bits": BY_LAYER, "value_bits": BY_LAYER})),
    "packed": ({}, point("turboquant-k8v4", key_bits=8.0, value_bits=4.0, replicas=2)),
    "four bit floats": ({"accelerator": "b200-sxm"}, point("nvfp4", key_bits=4.0, value_bits=4.0, replicas=2)),
    "weights": ({"weights": "fp8"}, point("fp8", replicas=2, weights="fp8")),
    "other weights": ({"weights": "int4"}, point(replicas=2, weights="int4")),
    "apart": ({}, point("fp8", tp=2, replicas=4, prefill_groups=1)),
    "research": (
        {},
        point("duoattention", "snapkv", "kivi", head_keep=0.5, token_keep=0.25, key_bits=4.0, value_bits=4.0, replicas=2, where="research library"),
    ),
    "recomputed": ({}, point("fp8", parked=0.0, idle="recompute", idle_resident=0.0, replicas=2)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that takes a `case` runs over the grid: (scenario, point)."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [(scenario(**asked), made) for asked, made in GRID.values()], ids=list(GRID))


@pytest.fixture(scope="session")
def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    return {name: (scenario(**asked), made) for name, (asked, made) in GRID.items()}


@pytest.fixture(scope="session")
def make_point() -> Callable[..., dict[str, Any]]:
    return point


@pytest.fixture(scope="session")
def make_scenario() -> Callable[..., dict[str, Any]]:
    return scenario


def plans() -> dict[str, Result]:
    """Plans as results of one point each: what a test of one setting starts from. The first is a real answer, to the default question."""
    llama = scenario(model="llama-3.1-8b", gpus=1)
    fp8 = {"key_bits": 8.0, "value_bits": 8.0}
    layers = [[16.0]] * 2 + [[8.0]] * 28 + [[16.0]] * 2
    one = {"tp": 1, "parked": 0.0, "idle": "recompute", "idle_resident": 0.25}
    parks = {"tp": 1, "parked": 40e9, "used": 50e9, "idle": "park"}
    wide = scenario(model="qwen3-235b-a22b")
    latent = scenario(model="deepseek-v3", accelerator="b200-sxm")
    found = {
        "dense": (llama, point(**one)),
        "dense fp8, parked": (llama, point("fp8", **parks)),
        "dense, recomputed": (llama, point(**{**one, "idle_resident": 0.0})),
        "dense, prefill apart, parked": (llama, point(**{**parks, "tp": 2}, replicas=4, prefill_groups=1)),
        "dense, stages": (llama, point(**{**one, "tp": 2}, pp=2, replicas=2)),
        "dense, other weights": (scenario(model="llama-3.1-8b", gpus=1, weights="int4"), point(**one, weights="int4")),
        "dense, fp8 weights": (scenario(model="llama-3.1-8b", gpus=1, weights="fp8"), point(**one, weights="fp8")),
        "turboquant": (llama, point("turboquant-4bit-nc", **one, key_bits=4.0, value_bits=4.0)),
        "bits by layer": (llama, point("fp8", **one, **fp8, blocks={"per": "layer", "key_bits": layers, "value_bits": layers})),
        "mixture, experts spread": (wide, point(**{**one, "tp": 8}, attention_dp=8, expert_parallel=True)),
        "mixture, two replicas": (wide, point(**{**one, "tp": 4}, replicas=2, expert_parallel=True)),
        "latent": (latent, point(**{**one, "tp": 8}, dcp=2, weights="fp8")),
        "windows": (scenario(model="gemma-3-27b-it"), point(**{**parks, "tp": 2})),
        "research": (
            llama,
            point("duoattention", "snapkv", "kivi", **one, head_keep=0.5, token_keep=0.25, key_bits=4.0, value_bits=4.0, where="research library"),
        ),
        "few tokens a step": (llama, point(**{**one, "idle": "recompute"}, chunk=256.0, max_num_seqs=700)),
    }
    return {"default": kvopt.analyze(), **{name: Result("analyze", {"scenario": asked, **made}) for name, (asked, made) in found.items()}}


def changed(result: Result, asked: dict[str, Any] | None = None, **plan: Any) -> Result:
    """The result with other settings in its plan, and in what was asked."""
    data = copy.deepcopy(result.data)
    data["plan"] |= plan
    data["scenario"] |= asked or {}
    data["scenario"]["asked"] |= asked or {}
    return Result(result.kind, data)


def pareto(*results: Result) -> Result:
    """A front of the plans of several results; the first is recommended."""
    points = [{**{name: one.data[name] for name in ("plan", "metrics", "constraints")}, "front": "deployable"} for one in results]
    answer = {name: value for name, value in results[0].data.items() if name != "scenario"}
    return Result("pareto", {"scenario": results[0].data["scenario"], "points": points, "answer": answer})


def commands(script: str, program: str) -> list[list[str]]:
    """The words of every command of a script that runs a program, without the variables before it."""
    lines = [shlex.split(line, comments=True) for line in script.replace("\\\n", " ").splitlines()]
    return [words[words.index(program) :] for words in lines if program in words]


def flags(words: list[str]) -> dict[str, Any]:
    """The flags of a command by name without dashes: True for one alone, a list for several words."""
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            found[name] = True
        elif name and word != "&":
            found[name] = word if found[name] is True else [*([found[name]] if isinstance(found[name], str) else found[name]), word]
    return found


@pytest.fixture(scope="session")
def grid() -> dict[str, Result]:
    return plans()


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """The functions above, by name."""
    return SimpleNamespace(changed=changed, pareto=pareto, commands=commands, flags=flags)
