import dataclasses
import io

import pytest
from rich.console import Console

from kvopt import wording
from kvopt.report import WIDTH, memory, show, text
from kvopt.tables import spread

GIB = 2.0**30


def flat(result):
    return " ".join(text(result).split())


def test_the_answer_comes_first(optimized):
    said = flat(optimized)
    assert said.startswith("optimize: yi-34b-200k, a100-80-sxm x 2, 50,000 tokens of context, vllm")
    for words in (
        "vllm with fp8, 8-bit KV, TP2 x 1, chunk 2,048, max-num-seqs 9",
        "idle caches: 25 % stay in HBM, the rest parked in host memory",
        "60.0 sessions per GPU-hour, 8.57 users per GPU: 1.50x the uncompressed baseline",
        "duoattention + kivi, keeps 47 % of heads, 4-bit K, 2-bit V, TP2 x 1 (research library)",
        "1.50x today's plan",
        "Gap +50 % sessions per GPU-hour, $0.0272 instead of $0.0408 per session ($0.0136 saved); what makes the difference: duoattention, kivi.",
        "lifts sessions above 96.6 per GPU-hour (now at 62 % of it)",
        "prefix reuse, sparse prefill, layer skipping or separate prefill accelerators would",
        "its ceiling is 120",
    ):
        assert words in said


def test_side_by_side(optimized):
    lines = [line.split() for line in text(optimized).splitlines()]
    assert ["Concurrency,", "all", "GPUs", "12", "12", "6"] in lines
    assert ["Sessions", "per", "GPU-hour", "60.0", "90.0", "40.0"] in lines
    assert ["Evidence", "for", "the", "accuracy", "interpolated", "extrapolated", "-"] in lines
    said = flat(optimized)
    for words in (
        "Prefill 18.5 s 14.0 s 18.5 s",
        "target p95 30.0 s",
        "target 100 ms",
        "lower end at 90 % confidence 97.9 % 95.7 % 100.0 %",
        "240 KiB",
        "11.0 GiB",
    ):
        assert words in said
    assert "What binds: time to first token" in said
    assert "Requests in flight: answers in prefill or decoding" in said
    assert "1,234,567 evaluations in 66 s" in said


def test_constraints_in_human_units(optimized):
    lines = text(optimized).splitlines()
    row = {
        name: next(line for line in lines[lines.index("Constraints, at 90 % confidence") :] if line.startswith(name))
        for name in ("HBM", "Host", "Time", "Acc")
    }
    assert row["HBM"].split()[-6:] == ["58.0", "GiB", "72.0", "GiB", "14.0", "GiB"]
    assert row["Time"].endswith("10.0 ms  binds")
    assert "unknown" in row["Host"]
    assert "2.9 %" in row["Acc"]


def test_unknown_is_said(optimized):
    optimized.data["metrics"].update(cost_per_session_usd=None, prefill_ceiling_per_gpu_hour=None, ttft_s=None)
    said = flat(optimized)
    assert "Cost per session unknown" in said
    assert "the prefill ceiling is unknown" in said
    assert "None" not in said
    assert "nan" not in said


def test_no_baseline_and_no_research(optimized):
    optimized.data["baseline"]["sessions_per_gpu_hour"] = 0.0
    optimized.data["research"] = {"plan": optimized.data["plan"], "metrics": optimized.data["metrics"]}
    said = flat(optimized)
    assert "uncompressed, these GPUs serve none within the targets" in said
    assert "no other method with evidence does better" in said


def test_infeasible_names_the_change(infeasible):
    said = flat(infeasible)
    for words in (
        "do not fit beside the engine's reserve.",
        "Weights and reserve, per GPU: 132 GiB; the limit is 21.7 GiB",
        "Change --gpus 7",
        "weights 131 GiB",
    ):
        assert words in said
    assert "uncompressed" not in said


def test_infeasible_by_a_constraint(infeasible):
    infeasible.data["infeasible"] = {
        "constraint": "ttft_s",
        "value": 102.0,
        "limit": 30.0,
        "reason": "time to first token: 102 s",
        "change": "--ttft 103s",
    }
    said = flat(infeasible)
    assert "Time to first token: 102 s; the limit is 30.0 s." in said
    assert "engine's reserve 3.00 GiB, caches in use 29.0 GiB" in said
    assert "Constraints, at 90 % confidence" in said


def test_sensitivity(optimized):
    said = text(dataclasses.replace(optimized, kind="sensitivity"))
    assert ["hbm", "bytes", "0.50", "0.25"] in [line.split() for line in said.splitlines()]
    assert ["host", "memory", "unknown", "0.00"] in [line.split() for line in said.splitlines()]
    assert "0.25" not in text(optimized)


def test_one_plan_alone(optimized):
    data = {name: value for name, value in optimized.data.items() if name not in ("baseline", "research", "elasticities", "search", "bound")}
    said = flat(dataclasses.replace(optimized, kind="analyze", data=data))
    assert "Plan vllm with fp8" in said
    assert "Sessions per GPU-hour 60.0 " in said


def test_front(fronts):
    said = text(fronts)
    rows = [line for line in said.splitlines() if line.startswith(("today ", "research "))]
    assert len(rows) == 12
    assert "12 of the 22 points" in said
    assert rows[2].endswith("60.0 %*")
    assert not rows[0].endswith("*")


def test_plain_and_narrow(optimized, fronts, infeasible):
    for result in (optimized, fronts, infeasible):
        assert max(len(line) for line in text(result).splitlines()) <= WIDTH
        assert "\x1b" not in text(result)
        assert str(result) == text(result)
    assert text(optimized).endswith("Warning: context: sessions exceed what the model states")
    out = io.StringIO()
    show(optimized, Console(file=out, width=WIDTH, force_terminal=True))
    assert "\x1b" in out.getvalue()
    assert "Warning" not in out.getvalue()


@pytest.mark.parametrize(("rows", "most", "kept"), [([1, 2], 5, [1, 2]), (list(range(10)), 4, [0, 3, 6, 9]), ([1, 2], 1, [1]), ([], 3, [])])
def test_spread(rows, most, kept):
    assert spread(rows, most) == kept


def test_memory_of_one_gpu(optimized):
    assert memory(optimized.data) == {"weights": 32 * GIB, "reserve": 3 * GIB, "caches": 29 * GIB, "left": 7 * GIB}
    optimized.data["metrics"]["weight_bytes"] = None
    assert memory(optimized.data)["weights"] is None


@pytest.mark.parametrize(
    ("say", "value", "words"),
    [
        (wording.number, 0.04795, "0.0479"),
        (wording.number, 9.996, "10.00"),
        (wording.number, 99.96, "100"),
        (wording.number, 1278.2, "1,278"),
        (wording.number, 2e-14, "0"),
        (wording.number, 0.00012, "1.20e-04"),
        (wording.bytes_, 1000 * 2**20, "0.977 GiB"),
        (wording.bytes_, -110.7 * GIB, "-111 GiB"),
        (wording.bytes_, 12.0, "12 B"),
        (wording.seconds, 0.0674, "67.4 ms"),
        (wording.seconds, 2.5e-14, "0 s"),
        (wording.percent, 0.9964, "99.6 %"),
        (wording.joules, 28183.0, "28.2 kJ"),
    ],
)
def test_numbers(say, value, words):
    assert say(value) == words


def test_grouping(optimized):
    plan = optimized.data["plan"] | {"tp": 4, "pp": 2, "dcp": 2, "expert_parallel": True, "replicas": 3, "prefill_groups": 1}
    assert wording.grouping(plan) == "TP4 PP2 DCP2 EP x 3, 1 of them prefill only"
    assert wording.idle(plan, 0.0) == "no idle caches"
    assert wording.idle(plan | {"idle": "recompute", "idle_resident": 0.0}, 1.0) == "idle caches dropped and recomputed"
    assert wording.idle(plan | {"idle_resident": 1.0}, 1.0) == "idle caches stay in HBM"
