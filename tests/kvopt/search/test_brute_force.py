"""The optimum found is that of a brute-force search over the same deployable settings, within half a percent, in eleven scenarios."""

import numpy as np
import pytest
import yaml

from kvopt import api, catalog
from kvopt.compiling import clock
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search import best as search
from kvopt.search import programs
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import BATCH, FIELDS, chunk_sizes, make_choices, stacked, take
from kvopt.search.offers import deployable_methods
from kvopt.search.pipeline import given, space

SCENARIOS = {
    "default": {},
    "dense 8B, 32K, one H100": {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"},
    "dense 70B, 128K, eight H100": {"model": "llama-3.1-70b", "accelerator": "h100-sxm", "gpus": 8, "context": "128k"},
    "dense 8B, 8K, two 4090, tight latency": {
        "model": "qwen3-8b",
        "accelerator": "rtx-4090",
        "gpus": 2,
        "context": "8k",
        "ttft": "6s",
        "tpot": "60ms",
    },
    "dense 8B, 1M, eight MI300X": {"model": "llama-3.1-8b", "accelerator": "mi300x", "gpus": 8, "context": "1m", "ttft": "20min"},
    "MoE, 64K, four H200": {"model": "qwen3-235b-a22b", "accelerator": "h200-sxm", "gpus": 4, "context": "64k", "weights": "fp8"},
    "MLA, 128K, eight H200": {"model": "deepseek-v3", "accelerator": "h200-sxm", "gpus": 8, "context": "128k"},
    "windowed, 64K, one MI300X": {"model": "gemma-3-27b-it", "accelerator": "mi300x", "gpus": 1, "context": "64k"},
    "windowed MoE, 100K, two A100": {"model": "gpt-oss-120b", "accelerator": "a100-80-sxm", "gpus": 2, "context": "100k"},
    "hybrid, 256K, two H100": {"model": "qwen3-next-80b-a3b-instruct", "accelerator": "h100-sxm", "gpus": 4, "context": "256k", "ttft": "5min"},
    "short sessions, L40S": {"model": "llama-3.1-8b", "accelerator": "l40s", "gpus": 4, "context": "8k", "turns": 10, "think": "20s", "ttft": "3s"},
}


def brute_force(problem, objective="sessions_per_gpu_hour"):
    """The best feasible value over every choice, chunk and share of resident idle caches, each at its largest load."""
    choices = make_choices(problem, deployable_methods(problem))
    lanes = stacked(problem, choices)
    resident = np.linspace(0, 1, 51) if lanes.high[:, FIELDS.index("idle_resident")].max() > 0 else np.zeros(1)
    chunks = chunk_sizes(problem)
    each = len(resident) * len(chunks)
    choice = np.repeat(np.arange(len(choices)), each)
    x = np.repeat(lanes.low, each, axis=0)
    x[:, FIELDS.index("idle_resident")] = np.tile(np.repeat(resident, len(chunks)), len(choices))
    x[:, FIELDS.index("chunk")] = np.tile(chunks, len(choices) * len(resident))
    x[:, BATCH] = 1.0
    made = programs.measure(given(problem, ()), take(lanes, choice), programs.repeat(problem.targets, len(x)), x)
    feasible = (made.broken <= 0).all(axis=1)
    column = list(GOALS).index(objective)
    return float(np.exp(-made.logs[feasible, column].min(initial=np.inf))), int(feasible.sum())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_optimum_is_that_of_brute_force(name):
    problem = resolve(Scenario.of(**SCENARIOS[name]))
    expected, feasible = brute_force(problem)
    assert feasible > 0, "a scenario without a feasible plan shows nothing"
    choices = make_choices(problem, deployable_methods(problem))
    found, _ = search.run(problem, space(problem, choices), ["sessions_per_gpu_hour"], seed=0)
    answer = search.best(problem, choices, found, "sessions_per_gpu_hour")
    assert answer is not None
    assert answer.feasible
    value = float(answer.state.values["sessions_per_gpu_hour"])
    assert value >= 0.995 * expected, f"{value} found, {expected} by brute force over {feasible} feasible points"


def test_every_returned_plan_holds_when_evaluated_from_its_own_json():
    scenario = Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")
    result = api.optimize(scenario)
    again = api.evaluate(result.data["plan"], scenario)
    assert again.feasible
    for name, value in result.data["metrics"].items():
        assert again.data["metrics"][name] == pytest.approx(value, rel=1e-9), name


def test_the_same_seed_gives_the_same_answer():
    scenario = Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k", seed=3)
    first, second = api.optimize(scenario), api.optimize(scenario)
    assert first.data["plan"] == second.data["plan"]
    assert first.data["metrics"] == second.data["metrics"]


def test_what_is_searched_in_single_precision_is_what_is_returned():
    problem = resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k"))
    choices = make_choices(problem, deployable_methods(problem))
    found, _ = search.run(problem, space(problem, choices), ["sessions_per_gpu_hour"], seed=0)
    rows = np.argsort(found.logs[:, 0])[:32]
    for row, point in zip(rows, search.points(problem, choices, found, rows), strict=True):
        assert float(point.state.values["sessions_per_gpu_hour"]) == pytest.approx(np.exp(-found.logs[row, 0]), rel=1e-3)


def test_another_question_of_the_same_shape_compiles_nothing():
    api.optimize(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")
    before = clock().seconds
    api.optimize(model="qwen3-8b", accelerator="h200-sxm", gpus=1, context="48k", turns=3, ttft="25s")
    assert clock().seconds == before


def test_an_unknown_price_and_power_change_no_plan(tmp_path):
    card = catalog.read("accelerators", "h100-sxm")
    names = ("usd_per_h", "usd_per_h_low", "usd_per_h_high", "tdp_w")
    (tmp_path / "priced.yaml").write_text(yaml.safe_dump({name: value for name, value in card.items() if name != "id"}))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({name: value for name, value in card.items() if name not in (*names, "id")}))
    asked = {"model": "llama-3.1-8b", "gpus": 1, "context": "32k"}
    known = api.optimize(accelerator=str(tmp_path / "priced.yaml"), **asked)
    unknown = api.optimize(accelerator=str(tmp_path / "card.yaml"), **asked)
    assert unknown.feasible
    assert unknown.data["metrics"]["cost_per_session_usd"] is None
    assert unknown.data["plan"]["methods"] == known.data["plan"]["methods"]
    assert unknown.data["metrics"]["sessions_per_gpu_hour"] == pytest.approx(known.data["metrics"]["sessions_per_gpu_hour"], rel=1e-6)


def test_a_suggested_context_fits():
    asked = {"model": "llama-3.1-70b", "accelerator": "h100-sxm", "gpus": 2, "ttft": "1h", "tpot": "10s"}
    refused = api.analyze(context="1m", **asked)
    assert not refused.feasible
    shorter = refused.data["infeasible"]["change"].split("--context ")[1].split()[0]
    assert api.analyze(context=shorter, **asked).feasible


def test_an_engine_without_tensor_parallelism_or_prefix_caching_is_offered_neither():
    plan = api.analyze(model="llama-3.1-8b", accelerator="h100-sxm", gpus=2, context="32k", engine="hf").data["plan"]
    assert plan["tp"] == 1
    assert plan["idle_resident"] == 0


def test_a_front_against_a_latency_holds_what_a_limit_on_it_allows():
    asked = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
    front = api.pareto(objectives=("sessions_per_gpu_hour", "ttft_s"), **asked).data["points"]
    limited = api.optimize(ttft="6s", **asked).data["metrics"]
    reached = [
        p["metrics"]["sessions_per_gpu_hour"] for p in front if p["front"] == "deployable" and p["metrics"]["ttft_s"] <= 1.3 * limited["ttft_s"]
    ]
    assert max(reached) >= 0.97 * limited["sessions_per_gpu_hour"]
