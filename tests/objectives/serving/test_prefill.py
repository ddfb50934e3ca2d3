"""The work of a prompt: the causal closed form beside integer sums, windows and selections, chunks, and what sparse prefill saves."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving import prefill
from objectives.serving.group import step_costs

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("cached", "new"), [(0, 700), (300, 500), (2000, 400)])
@pytest.mark.parametrize(
    ("cap", "rate"), [(np.inf, 1.0), (256.0, 1.0), (64.0, 0.25), (np.inf, 1 / 128), (0.0, 1.0), (np.inf, 0.0)], ids=lambda value: f"{value:g}"
)
def test_attended_entries_are_the_integer_sum(cap: float, rate: float, cached: int, new: int) -> None:
    by_hand = sum(min(rate * position, cap) if rate else 0.0 for position in range(cached + 1, cached + new + 1))
    got = float(prefill.attended(jnp.asarray(cap), jnp.asarray(rate), jnp.asarray(float(cached)), jnp.asarray(float(new))))
    # the integral leaves out half an entry per token that is still below its cap
    assert got == pytest.approx(by_hand, rel=3e-3 if cached == 0 else 2e-3)
    assert got + rate * new / 2 >= by_hand * (1 - 1e-9)


def test_causal_attention_of_a_few_hundred_tokens(make: SimpleNamespace) -> None:
    """2 * query heads * (dk + dv) FLOP for each pair of positions, the token's own half counted, within one part in a thousand."""
    arch = make.system().architecture
    pairs = sum(position - 0.5 for position in range(1, 513))
    got = float(jnp.sum(prefill.attention_flop(arch, jnp.zeros(()), jnp.asarray(512.0))))
    assert got == pytest.approx(60 * 2 * 56 * (128 + 128) * pairs, rel=1e-3)


def test_attention_of_a_long_context_in_single_precision(make: SimpleNamespace) -> None:
    """A short question on ten million cached tokens: no difference of squares that single precision would lose."""
    arch = make.system().architecture
    cached, new = np.float32(10_000_000), np.float32(50)
    exact = 60 * 28_672 * (float(cached) * 50 + 50**2 / 2)
    single = [jnp.asarray(x, jnp.float32) for x in (np.inf, 1.0, cached, new)]
    assert float(prefill.attended(*single)) * 60 * 28_672 == pytest.approx(exact, rel=1e-5)
    assert float(jnp.sum(prefill.attention_flop(arch, jnp.asarray(1e7), jnp.asarray(50.0)))) == pytest.approx(exact)


@pytest.mark.parametrize("model", ["yi-34b-200k", "gemma-3-27b-it", "deepseek-v3.2", "deepseek-v4-flash"])
def test_chunks_add_up_to_the_prompt(make: SimpleNamespace, model: str) -> None:
    arch = make.system(model).architecture
    starts = jnp.arange(0.0, 50_000.0, 2000.0)
    chunks = prefill.attention_flop(arch, starts, jnp.full_like(starts, 2000.0))
    whole = prefill.attention_flop(arch, jnp.zeros(()), jnp.asarray(50_000.0))
    np.testing.assert_allclose(jnp.sum(chunks, axis=0), whole, rtol=1e-12)


def test_the_example_of_the_paper_with_the_true_width(make: SimpleNamespace) -> None:
    """50,000 tokens of Yi-34B on one A100: 17.8 s with 34e9 parameters, 17.6 s with those that a prompt token is multiplied by (33.5e9)."""
    got = float(prefill.prefill_s(make.system(), make.plan(), make.effects(), make.schedule(), jnp.asarray(50_000.0)))
    flop = 2 * 33_470_545_920 * 50_000 + 2 * 458_752_000 + 2 * 60 * 7168 * 50_000**2
    assert got == pytest.approx(flop / 312e12)
    assert got == pytest.approx(17.79, rel=0.015)
    assert got + 2 * (34e9 - 33_470_545_920) * 50_000 / 312e12 == pytest.approx(17.79, abs=0.01)


def test_a_short_prompt_waits_for_the_weights(make: SimpleNamespace) -> None:
    system = make.system()
    got = float(prefill.prefill_s(system, make.plan(), make.effects(), make.schedule(), jnp.asarray(1.0)))
    assert got == pytest.approx((34_388_049_920 - 458_752_000) * 2 / 2039e9)  # all but the input embedding


def test_the_output_head_is_multiplied_once(make: SimpleNamespace) -> None:
    arch = make.system().architecture
    shares = prefill.prompt_shares(arch, make.plan(), make.effects())
    one, two = (prefill.prompt_flop(arch, shares, jnp.zeros(()), jnp.asarray(n))[0] for n in (1000.0, 2000.0))
    assert float(2 * one - two) == pytest.approx(2 * 64_000 * 7168)


@pytest.mark.parametrize(
    ("ratio", "dimension", "linear", "attention"),
    [
        ({"layer_keep": 0.5}, "layer", 0.5, 0.5),
        ({"token_keep": 0.5}, "token", 0.5, 0.25),
        ({"head_keep": 0.5}, "head", 1.0, 0.5),
        ({"prefill_keep": 0.3}, "bits", 1.0, 0.3),
        ({"key_bits": 4.0}, "bits", 1.0, 1.0),
        ({"key_rank": 0.5}, "rank", 1.0, 1.0),
    ],
)
def test_what_is_left_of_the_work(make: SimpleNamespace, ratio: dict[str, float], dimension: str, linear: float, attention: float) -> None:
    for per_layer in (False, True):
        arch = make.system(per_layer=per_layer).architecture
        plan = make.plan(**{name: np.full((60, 8), value) if per_layer else value for name, value in ratio.items()})
        got = prefill.prompt_shares(arch, plan, make.effects())
        np.testing.assert_allclose(got.linear, linear, rtol=1e-12)
        np.testing.assert_allclose(got.attention, attention, rtol=1e-12)
        spared = prefill.prompt_shares(arch, plan, make.effects(**{dimension: make.cuts(stored=1.0, read=1.0, moved=1.0)}))
        np.testing.assert_allclose(spared.linear, 1.0, rtol=1e-12)
        np.testing.assert_allclose(spared.attention, ratio.get("prefill_keep", 1.0), rtol=1e-12)


def test_extra_prefill_is_all_of_it_again(make: SimpleNamespace) -> None:
    got = prefill.prompt_shares(make.system().architecture, make.plan(), make.effects(extra_prefill=1.0))
    assert (float(got.linear), float(got.attention)) == (2.0, 2.0)


def test_a_mixed_step_is_its_parts(make: SimpleNamespace) -> None:
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))
    arch, costs, e = system.architecture, step_costs(system, make.schedule()), system.efficiency
    chunk = prefill.Chunk(*(jnp.asarray(x) for x in (2048.0, 2e14, 3e13, 1e9)))
    got = float(prefill.mixed_step_s(arch, costs, chunk, jnp.asarray(8.0), jnp.asarray(0.004)))
    linear = 2e14 + 8 * 2 * (33_470_545_920 + 458_752_000) + e.ramp_tokens * 2 * 33_470_545_920
    compute, read = linear / (e.mfu * 312e12) + 3e13 / (e.mfu_attention * 312e12), 2 * (34_388_049_920 - 458_752_000) / (e.mbu * 2039e9)
    added = 0.004 + 1e9 / (e.mbu_kv * 2039e9) + 60 * e.prefill_layer_s + 8 * e.sequence_s
    assert compute > read
    assert got == pytest.approx(compute + e.unhidden * read + added)
