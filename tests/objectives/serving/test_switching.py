"""A context switch: the paper's both caches over the link, and what append-only caches, two-way links and windows spare."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving import switching
from objectives.serving.kv_cache import cache
from objectives.types import System

pytestmark = pytest.mark.usefixtures("x64")


def with_link(system: System, append_only: float, duplex: float) -> System:
    accelerator = dataclasses.replace(system.accelerator, host_bandwidth=np.float64(20e9), host_full_duplex=np.float64(duplex))
    return dataclasses.replace(
        system, accelerator=accelerator, efficiency=dataclasses.replace(system.efficiency, append_only=np.float64(append_only))
    )


def times(make: SimpleNamespace, system: System, tokens: float, new: float, ranks: float = 1.0, **plan: Any) -> tuple[float, float]:
    moved = cache(system.architecture, make.plan(**plan), make.effects(), "moved")
    got = switching.switch_s(system, make.effects(), moved, make.schedule(tensor_parallel=ranks), jnp.asarray(tokens), jnp.asarray(new))
    return float(got[0]), float(got[1])


@pytest.mark.parametrize(
    ("append_only", "duplex", "fetch", "switch"),
    [(0.0, 0.0, 50_000, 100_000), (1.0, 0.0, 50_000, 50_300), (0.0, 1.0, 50_000, 50_000), (1.0, 1.0, 50_000, 50_000)],
)
def test_one_way_or_both_all_or_what_is_new(make: SimpleNamespace, append_only: float, duplex: float, fetch: float, switch: float) -> None:
    got = times(make, with_link(make.system(), append_only, duplex), 50_000, 300)
    np.testing.assert_allclose(got, (fetch * 245_760 / 20e9, switch * 245_760 / 20e9))


def test_every_rank_has_a_link(make: SimpleNamespace) -> None:
    system = with_link(make.system(), 0.0, 0.0)
    np.testing.assert_allclose(times(make, system, 50_000, 300, ranks=4.0), np.divide(times(make, system, 50_000, 300), 4))


def test_what_is_cut_is_not_moved(make: SimpleNamespace) -> None:
    system = with_link(make.system(), 0.0, 0.0)
    assert times(make, system, 50_000, 300, token_keep=0.1)[1] == pytest.approx(times(make, system, 50_000, 300)[1] / 10)


def test_of_a_window_no_more_goes_out_than_it_holds_and_no_less(make: SimpleNamespace) -> None:
    """Gemma 3: 1,024 new tokens have replaced all of a window, although it is no fuller than before."""
    system = with_link(make.system("gemma-3-27b-it"), 1.0, 0.0)
    arch = system.architecture
    entry = float(np.sum(arch.head_count * (arch.key_width + arch.value_width) * arch.layer_count * (arch.window > 0))) * 2
    whole = float(np.sum(arch.head_count * (arch.key_width + arch.value_width) * arch.layer_count * (arch.window == 0))) * 2
    for new in (300, 1024, 5000):
        fetch, switch = times(make, system, 50_000, new)
        assert (switch - fetch) * 20e9 == pytest.approx(min(new, 1024) * entry + new * whole)


def test_a_state_goes_out_whole(make: SimpleNamespace) -> None:
    system = with_link(make.system("qwen3-next-80b-a3b-instruct"), 1.0, 0.0)
    state = float(np.sum(system.architecture.layer_count * system.architecture.state_bytes))
    assert state > 0
    fetch, switch = times(make, system, 50_000, 0)
    assert (switch - fetch) * 20e9 == pytest.approx(state)
