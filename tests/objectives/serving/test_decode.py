"""A decode step at peak is the weights and the caches over the bandwidth; experts are read as they are hit; a latent is soon bound by compute."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving import decode
from objectives.serving.group import exchanged_bytes, experts_hit, step_costs, weight_bytes
from objectives.types import Effects, Plan, Schedule, System

pytestmark = pytest.mark.usefixtures("x64")


def request_s(system: System, plan: Plan, effects: Effects, schedule: Schedule, tokens: float) -> float:
    costs = step_costs(system, schedule)
    return float(decode.kv_step_s(system.architecture, plan, effects, schedule, costs, jnp.asarray(tokens)))


def step_s(system: System, plan: Plan, effects: Effects, schedule: Schedule, batch: float, tokens: float) -> float:
    kv_s = jnp.asarray(request_s(system, plan, effects, schedule, tokens))
    return float(decode.decode_step_s(system.architecture, step_costs(system, schedule), jnp.asarray(batch), kv_s))


@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize("batch", [1, 16])
def test_weights_and_caches_over_the_bandwidth(make: SimpleNamespace, ranks: int, batch: int) -> None:
    read = (34_388_049_920 - 458_752_000) * 2 + batch * 245_760 * 50_000  # the input embedding is looked up, not read
    got = step_s(make.system(), make.plan(), make.effects(), make.schedule(tensor_parallel=float(ranks)), batch, 50_000)
    assert got == pytest.approx(read / (2039e9 * ranks))


def test_large_batches_are_bound_by_compute(make: SimpleNamespace) -> None:
    system = make.system()
    got = step_s(system, make.plan(), make.effects(), make.schedule(), 1000, 0)
    assert got == pytest.approx(1000 * 2 * (33_470_545_920 + 458_752_000) / 312e12)


def test_experts_hit(make: SimpleNamespace) -> None:
    arch = make.system("mixtral-8x7b-v0.1").architecture
    by_hand = {1: 2 / 8, 2: 1 - (6 / 8) ** 2, 16: 1 - (6 / 8) ** 16}
    for tokens, share in by_hand.items():
        assert float(experts_hit(arch, jnp.asarray(float(tokens)))) == pytest.approx(share)
    assert float(experts_hit(make.system().architecture, jnp.asarray(1.0))) == 1
    system, nothing = make.system("mixtral-8x7b-v0.1"), jnp.zeros(())
    dense = arch.parameters - arch.expert_parameters - arch.embedding_parameters + arch.head_parameters
    got = float(decode.decode_step_s(arch, step_costs(system, make.schedule()), jnp.asarray(1.0), nothing))
    assert got == pytest.approx((dense + arch.expert_parameters / 4) * 2 / 2039e9)


def test_a_latent_is_bound_by_compute_once_its_bytes_are_cut(make: SimpleNamespace) -> None:
    """Absorbed MLA does 242 FLOP per byte of 16-bit latent: on an H20 (37 FLOP a byte) cutting bytes gains nothing, on an H200 (206) little."""
    args = (make.effects(), make.schedule(), 100_000.0)
    system = make.system("deepseek-v3", "h20")
    flop = 61 * 2 * 128 * (2 * 512 + 64) * 1e5
    assert flop / (61 * 576 * 2 * 1e5) == pytest.approx(242, abs=0.5)
    whole = request_s(system, make.plan(), *args)
    assert whole == pytest.approx(flop / float(system.accelerator.peak_flops_16bit))
    assert request_s(system, make.plan(key_bits=4.0), *args) == whole
    assert request_s(system, make.plan(token_keep=0.25), *args) == pytest.approx(whole / 4)  # fewer tokens are less work too


def test_grouped_heads_stay_bound_by_bandwidth(make: SimpleNamespace) -> None:
    args = (make.effects(), make.schedule(), 100_000.0)
    assert request_s(make.system(), make.plan(key_bits=4.0, value_bits=4.0), *args) == pytest.approx(request_s(make.system(), make.plan(), *args) / 4)


def test_what_a_method_adds_to_a_step(make: SimpleNamespace) -> None:
    system, schedule, n = make.system(), make.schedule(), 100_000.0
    whole = request_s(system, make.plan(), make.effects(), schedule, n)
    slow = make.effects(read_efficiency=0.5)
    assert request_s(system, make.plan(key_bits=8.0, value_bits=8.0), slow, schedule, n) == pytest.approx(whole)
    scored = make.effects(score_read=1 / 8)  # an eighth of K is a sixteenth of the cache
    assert request_s(system, make.plan(token_keep=0.1), scored, schedule, n) == pytest.approx(whole * (0.1 + 1 / 16))
    assert request_s(system, make.plan(), scored, schedule, n) == whole  # nothing to choose
    wide = make.schedule(tensor_parallel=16.0)  # twice as many ranks as KV heads: the page vectors are copied too
    assert request_s(system, make.plan(token_keep=0.1), scored, wide, n) == pytest.approx(2 / 16 * whole * (0.1 + 1 / 16))


def test_expanding_low_rank_entries_is_work(make: SimpleNamespace) -> None:
    system, plan, schedule = make.system(accelerator="h20"), make.plan(key_rank=0.5, value_rank=0.5), make.schedule()
    kept = request_s(system, plan, make.effects(), schedule, 1e5)
    expanded = request_s(system, plan, make.effects(reconstruct=1.0), schedule, 1e5)
    flop = 60 * 1e5 * (2 * 56 * 256 + 8 * 2 * 2 * 128 * 64)
    assert expanded == pytest.approx(flop / float(system.accelerator.peak_flops_16bit))
    assert expanded > kept


def test_pairs_of_ranks_exchange_two_all_reduces_a_layer(make: SimpleNamespace) -> None:
    arch = make.system().architecture
    for ranks in (1.0, 2.0, 8.0):
        by_hand = 60 * 7168 * 2 * 2 * 2 * (ranks - 1) / ranks
        assert float(exchanged_bytes(arch, make.schedule(tensor_parallel=ranks))) == pytest.approx(by_hand)
    spread = make.schedule(tensor_parallel=8.0, attention_data_parallel=8.0, expert_parallel=1.0)
    experts = make.system("deepseek-v3").architecture
    assert float(exchanged_bytes(experts, spread)) == pytest.approx(61 * 7168 * 2 * 2 * 7 / 8)  # dispatched to 8 of 8 ranks, over 8 senders


def test_an_unknown_link_matters_only_where_ranks_speak(make: SimpleNamespace) -> None:
    system = make.system()
    silent = dataclasses.replace(system, accelerator=dataclasses.replace(system.accelerator, scaleup_bandwidth=np.float64(np.nan)))
    assert step_costs(silent, make.schedule()).exchange == 0


def test_copies_of_the_dense_part_are_held_and_read(make: SimpleNamespace) -> None:
    system = make.system("deepseek-v3")
    arch, checkpoint = system.architecture, system.checkpoint
    dense = float(arch.parameters - arch.expert_parameters - arch.embedding_parameters) * float(checkpoint.bytes_per_parameter)
    assert float(weight_bytes(arch, checkpoint, 8.0) - weight_bytes(arch, checkpoint)) == pytest.approx(7 * dense)


def test_swapped_work_and_bytes_fail(make: SimpleNamespace) -> None:
    system = make.system()
    with pytest.raises(AssertionError):
        assert step_s(system, make.plan(), make.effects(), make.schedule(), 1, 50_000) == pytest.approx(2 * 33_470_545_920 / 312e12)
