"""The verbs as a library: the paper's numbers by hand, what is saved and read again, and what must never get worse."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import pytest
import yaml

import kvopt
from kvopt import catalog
from kvopt.compiling import clock
from kvopt.errors import BadInput
from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.model import BYTES_PER_PARAMETER

YI = {"layers": 60, "hidden": 7168, "heads": 56, "kv_heads": 8, "width": 128, "intermediate": 20480, "vocabulary": 64000}
LINEAR = YI["layers"] * (
    2 * YI["hidden"] ** 2 + 2 * YI["hidden"] * YI["kv_heads"] * YI["width"] + 3 * YI["hidden"] * YI["intermediate"]
)  # parameters of Yi-34B without its two embeddings
HEAD = YI["vocabulary"] * YI["hidden"]
KV = 2 * YI["layers"] * YI["kv_heads"] * YI["width"] * 2  # [bytes] per token
FLOPS, BANDWIDTH, LINK, MEMORY = 312e12, 2039e9, 32e9, 80 * 2**30  # of one A100 80GB SXM
LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
MEMORY_FIELDS = ("memory_gb", "visible_bytes", "logged_bytes")
BETTER = {
    "memory": MEMORY_FIELDS,
    "bandwidth": ("memory_bandwidth_gbs",),
    "FLOP/s": ("bf16_tflops", "fp16_tflops", "fp8_tflops", "int8_tops"),
    "host link": ("host_gbs",),
}


def rate(result):
    return result.data["metrics"]["sessions_per_gpu_hour"]


@pytest.mark.parametrize(("gpus", "context"), [(2, 50_000), (8, 4_000), (8, 50_000), (8, 1_000_000)])
def test_the_theory_on_the_papers_hardware(gpus, context):
    found = kvopt.analyze(gpus=gpus, context=context, fidelity="peak", ttft="30d", tpot="1h").data["metrics"]
    attention = YI["layers"] * 2 * YI["heads"] * 2 * YI["width"] * context**2 / 2
    held = 2 * (LINEAR + 2 * HEAD)
    assert found["kv_bytes_per_token"] == KV == 245_760
    assert found["kv_bytes_per_session"] == KV * context
    assert found["weight_bytes"] == held == pytest.approx(68.8e9, rel=1e-3)
    assert found["prefill_s"] == pytest.approx((2 * LINEAR * context + 2 * HEAD + attention) / (gpus * FLOPS), rel=1e-9)
    assert found["decode_s_per_token"] == pytest.approx((2 * (LINEAR + HEAD) + KV * context) / (gpus * BANDWIDTH), rel=1e-9)
    assert found["context_switch_s"] == pytest.approx(2 * KV * context / (gpus * LINK), rel=1e-9)
    assert found["concurrency"] == math.floor((gpus * MEMORY - held) / (KV * context))
    assert found["prefill_ceiling_per_gpu_hour"] <= 3600 / found["prefill_s"] / gpus
    assert found["sessions_per_gpu_hour"] <= found["prefill_ceiling_per_gpu_hour"]


def test_the_papers_answer_takes_ten_seconds_on_one_card():
    found = kvopt.analyze(gpus=2, tp=1, fidelity="peak", ttft="1h", tpot="1h", context="50k")
    assert found.data["metrics"]["decode_s_per_token"] * 250 == pytest.approx(9.8, abs=0.05)


def test_a_config_json_is_its_catalog_entry(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    named = kvopt.analyze(**SMALL).data
    for path in (tmp_path, tmp_path / "config.json"):
        found = kvopt.analyze(**{**SMALL, "model": str(path)}).data
        assert {name: found[name] for name in ("plan", "metrics", "constraints", "bottleneck")} == {
            name: named[name] for name in ("plan", "metrics", "constraints", "bottleneck")
        }


def test_saved_and_loaded(tmp_path):
    result = kvopt.analyze(**SMALL)
    again = kvopt.load(result.save(tmp_path / "run"))
    assert again == result
    assert json.loads(result.to_json()) == result.data


def test_a_model_of_unknown_size_has_nulls_and_a_warning():
    result = kvopt.analyze(model="inkling")
    found = result.data["metrics"]
    assert any("does not hold its parameters" in warning for warning in result.warnings)
    assert found["kv_bytes_per_token"] > 0
    for name in ("weight_bytes", "concurrency", "prefill_s", "decode_s_per_token", "ttft_s", "tpot_s", "cost_per_session_usd"):
        assert found[name] is None, name
    assert "NaN" not in result.to_json()
    with pytest.raises(BadInput, match="does not hold parameters"):
        kvopt.optimize(model="inkling")


@pytest.mark.parametrize("form", BYTES_PER_PARAMETER)
def test_every_weight_format_has_a_peak_to_multiply_at(form):
    card = read_accelerator("h200-sxm")
    assert card.peak(form).value in (card.bf16_tflops.value, card.fp8_tflops.value)


def test_four_bit_weights_in_groups_of_32():
    result = kvopt.analyze(model="kimi-k2.5", accelerator="h200-sxm", gpus=8)
    assert result.feasible
    assert result.data["metrics"]["weight_bytes"] == pytest.approx(0.6e12, rel=0.1)


def test_importing_kvopt_imports_no_jax():
    code = "import sys, kvopt; print([name for name in ('jax', 'matplotlib', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_other_numbers_of_the_same_shape_compile_nothing_large():
    kvopt.analyze()
    before = clock().seconds
    kvopt.analyze(context="30k", answer=300)
    kvopt.analyze(model="llama-3.1-70b", accelerator="h100-sxm", gpus=4, context="64k")
    assert clock().seconds - before < 0.5


@pytest.mark.parametrize(
    ("model", "gpus", "copies"),
    [("llama-3.1-8b", 8, 1), ("llama-3.1-8b", 16, 2), ("deepseek-v2-lite", 4, 4)],
    ids=["a KV head a rank", "more ranks than KV heads", "a latent on every rank"],
)
def test_what_every_rank_holds(model, gpus, copies):
    result = kvopt.analyze(model=model, accelerator="h100-sxm", gpus=gpus, fidelity="peak", context="32k")
    found = result.data["metrics"]
    assert result.data["plan"]["tp"] == gpus
    assert found["concurrency"] == math.floor(found["kv_pool_bytes"] / (copies * found["kv_bytes_per_session"]))


def card_with(folder, id_, fields, factor):
    """An accelerator file of one's own: that of the catalog with some fields multiplied."""
    data = {"id": id_, **catalog.read("accelerators", id_)}
    assert any(name in data for name in fields)
    changed = {name: {**data[name], "value": data[name]["value"] * factor} for name in fields if name in data}
    path = folder / f"card-{factor}.yaml"
    path.write_text(yaml.safe_dump({**data, **changed}))
    return str(path)


@pytest.mark.parametrize("fields", BETTER.values(), ids=BETTER)
@pytest.mark.parametrize(
    "scenario",
    [
        {"fidelity": "peak"},
        {},
        {"gpus": 8, "context": "200k", "ttft": "10min"},
        {**SMALL, "idle": "park", "think": "5s", "turns": 10},
        {"model": "llama-3.1-70b", "accelerator": "h100-sxm", "gpus": 4, "context": "8k", "tpot": "30ms"},
    ],
    ids=["peak", "default", "200K", "ten short turns", "fast tokens"],
)
def test_a_better_card_never_serves_less(tmp_path, scenario, fields):
    id_ = scenario.get("accelerator", "a100-80-sxm")
    steps = [1.0, 1.1, 1.25, 1.5]
    found = [rate(kvopt.analyze(**{**scenario, "accelerator": card_with(tmp_path, id_, fields, step)})) for step in steps]
    assert found[0] > 0
    for less, more in itertools.pairwise(found):
        assert more >= less * (1 - 1e-9), found


def test_a_better_card_never_optimizes_to_less(tmp_path):
    found = rate(kvopt.optimize(**SMALL))
    for fields in (MEMORY_FIELDS, BETTER["FLOP/s"]):
        better = card_with(tmp_path, "h100-sxm", fields, 1.25)
        assert rate(kvopt.optimize(**{**SMALL, "accelerator": better})) >= found * 0.998


@pytest.mark.parametrize("delay", ["server_s", "prefill_layer_s", "decode_layer_s", "parallel_layer_s", "sequence_s"])
@pytest.mark.parametrize("scenario", [{}, {**SMALL, "gpus": 2}], ids=["default", "small"])
def test_a_delay_never_raises_users(monkeypatch, scenario, delay):
    closest = profile.closest

    def users(more):
        def slower(*case):
            found = closest(*case)
            figure = found.figures[delay]
            later = dataclasses.replace(figure, value=figure.value + more * (1e-3 if delay == "server_s" else 1e-6))
            return dataclasses.replace(found, figures={**found.figures, delay: later})

        monkeypatch.setattr(profile, "closest", slower)
        found = kvopt.analyze(**scenario).data["metrics"]
        return found["users_per_gpu"], found["sessions_per_gpu_hour"]

    served = [users(more) for more in (0.0, 5.0, 50.0, 500.0)]
    assert served[0][0] > 0
    for (some, sessions), (fewer, fewer_sessions) in itertools.pairwise(served):
        assert fewer <= some * (1 + 1e-9), served
        assert fewer_sessions <= sessions * (1 + 1e-9), served


def test_unknown_fields_and_goals():
    with pytest.raises(BadInput, match="did you mean context"):
        kvopt.analyze(contxt=5)
    with pytest.raises(BadInput, match="did you mean sessions_per_gpu_hour"):
        kvopt.optimize(objective="sessions_per_gpu_hours")
