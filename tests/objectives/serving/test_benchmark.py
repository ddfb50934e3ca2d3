"""Benchmarks of one group: gradients, what a lone client sees, what more clients and more memory do, and the old roofline at peak."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving import benchmark, session
from objectives.serving.benchmark import Requests, Times
from objectives.serving.concurrency import kv_pool_bytes
from objectives.serving.kv_cache import session_bytes
from objectives.types import System, replace

SHARES = ("mfu", "mfu_attention", "mfu_experts", "mbu", "mbu_kv", "unhidden", "allreduce")
ADDED = ("ramp_tokens", "expert_ramp_tokens", "prefill_layer_s", "decode_layer_s", "parallel_layer_s", "sequence_s", "server_s")
CARD = ("peak_flops", "peak_flops_16bit", "memory_bandwidth", "memory_bytes", "scaleup_bandwidth")
PLAN = ("key_bits", "value_bits", "token_keep")
FIXED = {"count": 12.0, "new": 3000.0, "cached": 1000.0, "output": 300.0, "waves": 8.0, "ahead": 0.5, "stream": 1.0}

Point = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model on two H100s. A point is a factor on each of the fields above, or a value of `FIXED`."""

    system: System
    read: Callable[[Point], Times]
    slope: Callable[[Point, Point], Times]  # of every reading's logarithm, in a direction


@pytest.fixture(scope="module")
def compiled(make: SimpleNamespace) -> tuple[Any, Any]:
    """`Case.read` and `Case.slope` of any system: two programs for all models."""

    def read(given: System, point: Point) -> Times:
        def scaled(tree: Any, names: tuple[str, ...]) -> Any:
            return replace(tree, **{name: getattr(tree, name) * point[name] for name in names})

        system = replace(given, efficiency=scaled(given.efficiency, (*SHARES, *ADDED)), accelerator=scaled(given.accelerator, CARD))
        schedule = make.schedule(tensor_parallel=2.0, chunk=1024.0 * point["chunk"])
        requests = Requests(*(point[name] for name in Requests._fields))
        return benchmark.times(system, scaled(make.plan(), PLAN), make.effects(), schedule, requests)

    def slope(given: System, point: Point, direction: Point) -> Times:
        return jax.jvp(lambda here: jax.tree.map(jnp.log, read(given, here)), (point,), (direction,))[1]

    return jax.jit(read), jax.jit(slope)


@pytest.fixture(params=["meta-llama-3.1-70b", "mixtral-8x7b-v0.1"])
def case(request: pytest.FixtureRequest, make: SimpleNamespace, compiled: tuple[Any, Any]) -> Case:
    given = make.system(request.param, "h100-sxm", make.calibrated("h100-sxm", weights="fp8", routed=request.param.startswith("mixtral")))
    return Case(given, *(partial(function, given) for function in compiled))


def at(**changes: float) -> Point:
    """Everything as it is, but for the changes."""
    point = {**dict.fromkeys((*SHARES, *ADDED, *CARD, *PLAN, "chunk"), 1.0), **FIXED}
    assert set(changes) <= set(point)
    return {name: np.float64(value) for name, value in {**point, **changes}.items()}


def readings(case: Case, **changes: float) -> Times:
    with jax.enable_x64(True):
        return Times(*(float(value) for value in case.read(at(**changes))))


@pytest.mark.parametrize("changes", [{}, {"count": 1.0, "waves": 1.0}, {"new": 200.0, "cached": 0.0, "token_keep": 0.7}, {"count": 700.0}], ids=str)
def test_gradients_are_finite_and_those_of_finite_differences(case: Case, changes: dict[str, float]) -> None:
    with jax.enable_x64(True):
        point = at(**changes)
        for name, value in point.items():
            slope = np.stack(case.slope(point, {other: np.float64(other == name) for other in point}))
            width = 1e-6 * max(value, 1e-3)
            below, here, above = (np.log(np.stack(case.read(at(**{**changes, name: value + side})))) for side in (-width, 0.0, width))
            assert np.all(np.isfinite(slope)), name
            sides = np.array([(above - below) / 2, here - below, above - here]) / width  # one side where there is a kink between
            assert np.all(np.min(np.abs(sides - slope), axis=0) <= 1e-6 + 1e-3 * np.abs(slope)), (name, slope, sides)


@pytest.mark.parametrize("cached", [0.0, 1000.0])
def test_a_lone_client_waits_for_the_server_and_its_own_prompt(case: Case, cached: float) -> None:
    for new in (100.0, 1024.0, 9000.0):
        found = readings(case, count=1.0, new=new, cached=cached)
        assert found.ttft_s == pytest.approx(float(case.system.efficiency.server_s) + found.prefill_s)
        assert found.tpot_s == pytest.approx(found.decode_s)
        assert found.batch_s == pytest.approx(found.prefill_s + FIXED["output"] * found.decode_s)


@pytest.mark.parametrize("memory", [1.0, 0.95, 0.6], ids=["room", "less", "none"])
@pytest.mark.parametrize("output", [30.0, 1000.0])
def test_more_clients_never_wait_less(case: Case, memory: float, output: float) -> None:
    found = [readings(case, count=count, output=output, memory_bytes=memory) for count in np.geomspace(1, 2000, 24)]
    for less, more in itertools.pairwise(found):
        assert more.ttft_s >= less.ttft_s * (1 - 1e-9)
        assert more.tpot_s >= less.tpot_s * (1 - 1e-9)
        assert more.prefill_s > less.prefill_s
        assert more.decode_s >= less.decode_s


def test_more_memory_never_lowers_the_maximum_load(case: Case) -> None:
    loads = [readings(case, memory_bytes=factor).max_load_tokens_per_s for factor in np.geomspace(0.6, 8, 16)]
    assert np.all(np.diff(loads) >= -1e-9 * np.array(loads[1:]))
    assert loads[-1] > 1.05 * loads[0]


def test_tokens_that_are_sent_together_come_later_and_closer(case: Case) -> None:
    one, twenty = readings(case), readings(case, stream=20.0)
    assert twenty.ttft_s == pytest.approx(one.ttft_s + 19 * one.tpot_s)
    assert twenty.tpot_s == pytest.approx(one.tpot_s * (1 - 19 / FIXED["output"]))


def test_delays_and_lower_shares_lengthen_every_request(case: Case) -> None:
    before = readings(case)
    for name in (*SHARES, *ADDED):
        slower = readings(case, **{name: 0.8 if name in SHARES and name != "unhidden" else 1.25})
        for reading in ("prefill_s", "decode_s", "batch_s", "tpot_s"):
            assert getattr(slower, reading) >= getattr(before, reading) * (1 - 1e-12), (name, reading)
        # clients that decode for longer are less in one another's way while they wait: only the whole request must take longer
        assert lasts_s(slower) >= lasts_s(before) * (1 - 1e-12), name
        assert slower.max_load_tokens_per_s <= before.max_load_tokens_per_s * (1 + 1e-12), name


def lasts_s(found: Times) -> float:
    """[s] of a client's request."""
    return float(found.ttft_s + FIXED["output"] * found.tpot_s)


def test_routed_experts_have_a_ramp_and_a_share_of_their_own(case: Case) -> None:
    routed = float(case.system.architecture.experts) > 1
    before = readings(case, count=1.0)
    for change in ({"expert_ramp_tokens": 4.0}, {"mfu_experts": 0.4}):
        slower = readings(case, count=1.0, **change)
        for reading in ("prefill_s", "decode_s"):
            if routed:
                assert getattr(slower, reading) > getattr(before, reading)
            else:  # its weights are no experts'
                assert getattr(slower, reading) == getattr(before, reading)


@pytest.mark.parametrize("count", [1.0, 64.0, 400.0])
def test_what_shows_is_between_the_longer_and_the_sum(case: Case, count: float) -> None:
    unhidden = float(case.system.efficiency.unhidden)
    longer, between, whole = (readings(case, count=count, unhidden=share / unhidden) for share in (0.0, 0.5, 1.0))
    for name in ("prefill_s", "decode_s"):
        ends = getattr(longer, name), getattr(whole, name)
        assert ends[0] < getattr(between, name) < ends[1] < 2 * ends[0]
        assert getattr(between, name) == pytest.approx(sum(ends) / 2)


def test_the_roofline_at_peak(make: SimpleNamespace, x64: None) -> None:
    """Yi-34B on two A100s by hand: the longer of reading and multiplying, the caches, nothing else."""
    system, plan, schedule = make.system(), make.plan(), make.schedule(tensor_parallel=2.0, chunk=1e7)
    linear, head, cache = 33_470_545_920, 458_752_000, 245_760
    read = 2 * (34_388_049_920 - head)
    times = jax.jit(lambda requests: benchmark.times(system, plan, make.effects(), schedule, requests))
    for count, new, output in ((1.0, 1.0, 2.0), (1.0, 50_000.0, 250.0), (16.0, 4000.0, 100.0), (1000.0, 10.0, 10.0)):
        requests = Requests(*(jnp.asarray(value) for value in (count, new, 0.0, output, 1.0, 0.0, 1.0)))
        found = times(requests)
        attention = 60 * 2 * 56 * 2 * 128 * new**2 / 2
        flop = count * (2 * linear * new + 2 * head + attention)
        assert float(found.prefill_s) == pytest.approx(max(read / 2039e9, flop / 312e12) / 2)
        step = max(read / 2039e9, count * 2 * (linear + head) / 312e12) + count * cache * (new + output / 2) / 2039e9
        assert float(found.decode_s) == pytest.approx(step / 2)


def test_clients_that_find_no_place_wait_for_one(make: SimpleNamespace, x64: None) -> None:
    system, schedule = make.system("meta-llama-3.1-8b", "h100-sxm", make.calibrated("h100-sxm")), make.schedule()
    room = jnp.asarray(_room(make, system))
    read = jax.jit(lambda requests: benchmark.times(system, make.plan(), make.effects(), schedule, requests))
    times = {share: read(Requests(share * room, *(jnp.asarray(value) for value in (8000.0, 0.0, 400.0, 5.0, 0.0, 1.0)))) for share in (0.5, 1, 2, 3)}
    assert float(times[2].tpot_s) == pytest.approx(float(times[1].tpot_s))
    lasts = float(times[2].ttft_s - times[1].ttft_s)
    assert lasts >= 400 * float(times[1].tpot_s)  # a whole answer at least
    assert float(times[3].ttft_s - times[2].ttft_s) == pytest.approx(lasts)
    assert float(times[0.5].tpot_s) < float(times[1].tpot_s)


def _room(make: SimpleNamespace, system: System) -> float:
    """Requests that memory holds: its share, without weights and reserves, over the bytes of one."""
    have = session.sums(system, make.plan(), make.effects(), make.schedule())
    size = float(session_bytes(system.architecture, make.effects(), have.stored, jnp.asarray(8200.0)))
    assert size == pytest.approx(131_072 * 8200)
    pool = float(kv_pool_bytes(system, make.schedule()))
    assert 0 < pool < float(system.efficiency.memory_fraction * system.accelerator.memory_bytes)
    return pool / size
