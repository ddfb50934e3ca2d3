"""What engines take before the caches, against figures that their logs print."""

import pytest

from kvopt.capacity import constants, deployed
from kvopt.capacity.deployment import GIB, Deployment, on_card
from kvopt.capacity.interval import pool_quantile
from kvopt.capacity.pool import ledger, outside
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.hf_config import read_model

H100 = on_card(read_accelerator("h100-sxm"))


def on_h100(model: str, generation: str = "vllm-0.17", **settings: object) -> Deployment:
    card = {**H100, **{name: settings.pop(name) for name in tuple(settings) if name in H100}}
    return Deployment(model=read_model(model), generation=constants.load(generation), **card, **settings).with_defaults()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "settings", "gib"),
    [
        ("llama-3.1-8b", {}, 14.99),
        ("llama-3.1-8b", {"weights": "fp32"}, 29.98),
        ("llama-3.1-8b", {"weights": "fp8"}, 8.49),
        ("llama-3.1-8b", {"weights": "int4"}, 5.38),
        ("llama-3.1-8b", {"tp": 4}, 3.77),
        ("llama-3.1-8b", {"pp": 4}, 4.26),  # the first and the last stage own the embeddings and the output head
        ("llama-3.1-70b", {"weights": "int8"}, 67.72),
        ("gpt-oss-20b", {"weights": "mxfp4", "experts_only": True}, 13.64),  # experts padded to whole tiles
        ("gpt-oss-20b", {"weights": "mxfp4", "experts_only": True, "tp": 4}, 3.63),
        ("deepseek-v2-lite", {}, 29.43),
    ],
)
def test_weights_of_a_rank(model: str, settings: dict[str, object], gib: float) -> None:
    """vLLM 0.19 start-up logs on H100 (llm-d-planner PR#205)."""
    assert ledger(on_h100(model, **settings)).weights / GIB == pytest.approx(gib, rel=0.03)


@pytest.mark.parametrize(
    ("model", "generation", "settings", "gib"),
    [
        ("llama-3.1-8b", "vllm-0.17", {}, 1.89),
        ("qwen3-14b", "vllm-0.17", {}, 2.23),
        ("qwen3-14b", "vllm-v1", {}, 5.64),  # the sampler sorted until 0.17
        ("gpt-oss-20b", "vllm-v1", {"weights": "mxfp4"}, 7.38),
        ("deepseek-v2-lite", "vllm-0.17", {}, 1.93),  # the experts' workspaces beside the sampler's pass
        ("llama-3.1-8b", "vllm-v0", {"max_model_len": 20000}, 2.07),  # a whole prompt in one step
        ("llama-3.1-8b", "vllm-v0", {"max_model_len": 131072}, 0.22),  # cut above 32k
    ],
)
def test_activation_peaks(model: str, generation: str, settings: dict[str, object], gib: float) -> None:
    assert ledger(on_h100(model, generation, **settings)).activation / GIB == pytest.approx(gib, abs=0.05 + 0.15 * gib)


def test_links_decide_what_a_group_takes() -> None:
    linked, pcie = (ledger(on_h100("llama-3.1-8b", tp=2, linked=linked)).non_torch / GIB for linked in (True, False))
    assert linked == pytest.approx(2.07, abs=0.2)
    assert pcie == pytest.approx(0.4, abs=0.2)
    assert ledger(on_h100("llama-3.1-8b", tp=16)).non_torch > ledger(on_h100("llama-3.1-8b", tp=8)).non_torch  # a second host


def test_the_last_stage_decides_a_pipeline() -> None:
    """H100, Llama-3.1-8B, PP2: stage 0 prints 66.54 GiB, the tokens need 65.63: the last stage owns the sampler."""
    assert ledger(on_h100("llama-3.1-8b", pp=2, utilisation=0.95)).pool / GIB == pytest.approx(65.63, abs=0.1)


def test_graphs_are_inside_the_budget_since_0_21() -> None:
    old, new, eager = (
        ledger(on_h100("llama-3.1-8b", generation, eager=eager)).graphs
        for generation, eager in (("vllm-0.17", False), ("vllm-0.21", False), ("vllm-0.21", True))
    )
    assert old == eager == 0 < new


@pytest.mark.parametrize(("tp", "utilisation", "warns"), [(1, 0.95, True), (2, 0.95, True), (2, 0.9, False)])
def test_a_printed_pool_is_not_yet_a_running_server(tp: int, utilisation: float, warns: bool) -> None:
    """gpt-oss-20b on H100, vLLM 0.19: at 0.95 it printed its pool and died out of memory, with two GPUs at 0.90 it ran."""
    found = deployed(read_model("gpt-oss-20b"), read_accelerator("h100-sxm"), version="0.19.0", tp=tp, utilisation=utilisation)
    assert (found.warning is not None) is warns
    assert found.warning is None or "GiB left" in found.warning
    calm = deployed(read_model("llama-3.1-8b"), read_accelerator("h100-sxm"), version="0.19.0", utilisation=0.95)
    assert calm.warning is None


def test_sglang_takes_its_share_of_what_is_free_before_loading() -> None:
    """R1-Distill-Qwen-7B on an RTX 3090 at 0.88: 105,531 tokens, 5.64 GiB."""
    found = deployed(read_model("qwen2.5-7b-instruct"), read_accelerator("rtx-3090"), engine="sglang", utilisation=0.88)
    assert found.pool_bytes / GIB == pytest.approx(5.64, abs=0.2)
    assert found.tokens == int(found.pool_bytes // 57344)


def test_tensorrt_llm_takes_a_share_of_what_is_left() -> None:
    """Llama-3.1-8B in fp8 on an RTX 5090: 0.9 x 17.83 = 16.05 GiB."""
    found = deployed(
        read_model("llama-3.1-8b"), read_accelerator("rtx-5090"), engine="trtllm", max_sequences=2048, chunk=1024, weights="fp8", kv_format="fp8"
    )
    assert found.pool_bytes / GIB == pytest.approx(16.05, rel=0.1)
    assert outside(found.deployment) is None


def test_the_interval_is_wide_for_small_pools() -> None:
    large = deployed(read_model("llama-3.1-8b"), read_accelerator("h100-sxm"), version="0.19.0")
    small = deployed(read_model("qwen2.5-72b-instruct"), read_accelerator("h100-sxm"), version="0.19.0", tp=2, utilisation=0.95)
    for found in (large, small):
        assert found.lower.tokens < found.tokens < found.upper.tokens
        assert found.lower.tokens < found.at(0.9).tokens < found.at(0.5).tokens == found.tokens
    assert (large.upper.tokens - large.lower.tokens) / large.tokens < 0.1
    assert (small.upper.tokens - small.lower.tokens) / small.tokens > 0.5
    spread = large.deployment.generation.spread
    quantiles = [pool_quantile(spread, large.ledger, share) for share in (0.05, 0.3, 0.5, 0.7, 0.95)]
    assert quantiles == sorted(quantiles)
    assert quantiles[2] == large.ledger.pool


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.19.0", (0, 19, 0)), ("v0.10", (0, 10, 0)), ("0.17.1rc1.dev88", (0, 17, 1)), ("main 73c8d677 (Apr 2024)", (0, 4, 0)), ("", None),
        ("sha-293b8125-rocm", None),
    ],
)  # fmt: skip
def test_versions(text: str, expected: tuple[int, int, int] | None) -> None:
    assert constants.version_of(text) == expected


@pytest.mark.parametrize(
    ("engine", "version", "expected"),
    [
        ("vllm", "0.6.3.dev114", "vllm-early"), ("vllm", "0.7.2", "vllm-v0"), ("vllm", "0.16.0", "vllm-v1"), ("vllm", "0.20.1", "vllm-0.17"),
        ("vllm", "0.33.0", "vllm-0.21"), ("vllm", "", "vllm-0.21"), ("sglang", "0.5.23", "sglang"), ("trtllm", "1.2.1", "trtllm"),
    ],
)  # fmt: skip
def test_generations(engine: str, version: str, expected: str) -> None:
    assert constants.generation(engine, version).id == expected


def test_defaults_follow_engine_and_card() -> None:
    assert (on_h100("llama-3.1-8b").max_sequences, on_h100("llama-3.1-8b").chunk) == (1024, 8192)
    assert (on_h100("llama-3.1-8b", large=False).max_sequences, on_h100("llama-3.1-8b", large=False).chunk) == (256, 2048)
    assert on_h100("llama-3.1-8b", "vllm-0.21", visible_bytes=178 * GIB).chunk == 16384
    assert on_h100("llama-3.1-8b").utilisation == 0.9
    assert on_h100("llama-3.1-8b", "vllm-0.21").utilisation == 0.92
    assert not on_card(read_accelerator("a100-80-sxm"))["large"]


def test_what_has_no_rules_or_no_parameters_is_refused() -> None:
    with pytest.raises(BadInput, match=r"lmdeploy: no capacity rules; one of sglang, trtllm, vllm"):
        constants.generation("lmdeploy")
    model = read_model("llama-3.1-8b")
    unknown = model.model_copy(update={"parameters": model.parameters.model_copy(update={"total": None})})
    with pytest.raises(BadInput, match="parameter counts are not known"):
        deployed(unknown, read_accelerator("h100-sxm"))


def test_every_generation_is_sourced() -> None:
    for entry in constants.load_all():
        for name in type(entry).model_fields:
            value = getattr(entry, name)
            if isinstance(value, constants.Constant):
                assert value.source not in ("", "seed"), (entry.id, name)
