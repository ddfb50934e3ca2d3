"""The memory left for caches, and how many sessions fit: the paper's examples, reserves, pipelines and ranks that only copy."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving.concurrency import concurrency, kv_pool_bytes, reserved_bytes
from objectives.types import System

pytestmark = pytest.mark.usefixtures("x64")
GIB = 2**30


def rounded(system: System) -> System:
    """Yi-34B with the 68e9 bytes of weights that arXiv 2405.08944 reckons with."""
    arch = dataclasses.replace(system.architecture, parameters=np.float64(34e9))
    return dataclasses.replace(system, architecture=arch)


def fit(make: SimpleNamespace, system: System, tokens: float, **schedule: Any) -> float:
    return float(concurrency(system, make.plan(), make.effects(), make.schedule(**schedule), jnp.asarray(float(tokens))))


@pytest.mark.parametrize(
    ("ranks", "tokens", "sessions"), [(1, 50_000, 1), (1, 4_000, 18), (2, 50_000, 8), (2, 4_000, 105), (2, 100_000, 4), (8, 1_000_000, 2)]
)
def test_the_examples_of_the_paper(make: SimpleNamespace, ranks: int, tokens: int, sessions: int) -> None:
    """Weights of 68e9 bytes beside caches in cards of 80 GiB; bytes against bytes."""
    assert int(fit(make, rounded(make.system()), tokens, tensor_parallel=float(ranks))) == sessions


def test_nothing_fits_beside_weights_that_do_not(make: SimpleNamespace) -> None:
    system = make.system("meta-llama-3.1-405b")
    assert fit(make, system, 4000) == 0
    assert float(kv_pool_bytes(system, make.schedule())) < 0


def test_reserves_and_spread_are_taken_off(make: SimpleNamespace) -> None:
    peak, fitted = make.system(), make.system(efficiency=make.calibrated("a100-80-sxm"))
    e, schedule = fitted.efficiency, make.schedule(tensor_parallel=2.0, chunk=8192.0, max_sequences=256.0)
    activations = max(float(e.sampler_bytes) * 256 * 64_000, float(e.activation_bytes) * 8192 * (3 * 20_480 / 2 + 3 * 7168))
    assert float(reserved_bytes(peak, schedule)) == 0
    assert float(reserved_bytes(fitted, schedule)) == pytest.approx(float(e.context_bytes + e.parallel_bytes) + activations)
    by_hand = 2 * (0.92 * 80 * GIB - float(reserved_bytes(fitted, schedule)) - 2 * float(e.memory_sd_bytes)) - 2 * 34_388_049_920
    assert float(kv_pool_bytes(fitted, schedule, 2.0)) == pytest.approx(by_hand)


def test_more_memory_is_more_pool(make: SimpleNamespace) -> None:
    pools = [float(kv_pool_bytes(make.system(accelerator=name), make.schedule())) for name in ("a100-80-sxm", "h200-sxm", "mi300x")]
    assert pools == sorted(pools)
    assert pools[0] < pools[1]


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_pipeline_holds_the_weights_once(make: SimpleNamespace, stages: int) -> None:
    """A stage's pool, times the stages, is all memory less the weights once."""
    pool = float(kv_pool_bytes(make.system(), make.schedule(tensor_parallel=2.0, pipeline_parallel=float(stages))))
    assert stages * pool == pytest.approx(2 * stages * 80 * GIB - 2 * 34_388_049_920)


def test_ranks_beyond_the_heads_only_copy(make: SimpleNamespace) -> None:
    """From 8 ranks to 16 the pool grows by the cards' memory and every session takes twice the bytes."""
    eight, sixteen = ({"tensor_parallel": ranks} for ranks in (8.0, 16.0))
    system = make.system()
    pools = [float(kv_pool_bytes(system, make.schedule(**ranks))) for ranks in (eight, sixteen)]
    assert pools[1] - pools[0] == pytest.approx(8 * 80 * GIB)
    assert fit(make, system, 1e5, **sixteen) == pytest.approx(pools[1] / (2 * 245_760 * 1e5))
    assert fit(make, system, 1e5, **eight) == pytest.approx(pools[0] / (245_760 * 1e5))


def test_ranks_of_a_latent_only_copy(make: SimpleNamespace) -> None:
    system = make.system("deepseek-v3", "h200-sxm")
    for ranks in (8.0, 16.0):
        pool = float(kv_pool_bytes(system, make.schedule(tensor_parallel=ranks)))
        assert fit(make, system, 1e5, tensor_parallel=ranks) == pytest.approx(pool / (ranks * 61 * 576 * 2 * 1e5))
    spread = fit(make, system, 1e5, tensor_parallel=16.0, context_parallel=16.0)
    assert spread == pytest.approx(16 * fit(make, system, 1e5, tensor_parallel=16.0))
