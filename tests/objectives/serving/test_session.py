"""Sessions on a group: the closed form by hand, what must rise and fall with what, and gradients that finite differences confirm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from objectives.goals import Targets, users_per_gpu
from objectives.serving import decode, session
from objectives.serving.session import Service
from objectives.types import Cuts, Effects, Plan, Schedule, System, replace

KEEPS = ("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep")
BITS = ("key_bits", "value_bits")
TIMED = ("batch", "chunk", "idle_resident", "idle_parked", "prefix_cache_tokens")
LINKS = ("peak_flops", "peak_flops_16bit", "memory_bandwidth", "scaleup_bandwidth", "host_bandwidth")
SHARES = ("mfu", "mfu_attention", "mbu", "mbu_kv", "allreduce", "host_link")
DELAYS = ("prefill_layer_s", "decode_layer_s", "parallel_layer_s", "server_s")
OUTPUTS = ("sessions_per_s", "memory_used", "ttft_first_s", "ttft_follow_up_s", "tpot_s")
MODELS = ("gemma-3-27b-it", "deepseek-v3.2")  # windows and grouped heads; a latent, experts, selection and an index
EXAMPLES = settings(
    max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Point = dict[str, float]


def uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


def logarithmic(low: float, high: float) -> st.SearchStrategy[float]:
    return uniform(math.log(low), math.log(high)).map(lambda x: min(max(math.exp(x), low), high))


box = st.fixed_dictionaries(
    {
        **{name: st.one_of(logarithmic(1 / 64, 1), st.just(1.0)) for name in KEEPS},
        **{name: st.one_of(uniform(2, 16), st.just(16.0)) for name in BITS},
        **{"batch": logarithmic(1e-3, 512), "chunk": logarithmic(64, 65536), "prefix_cache_tokens": uniform(0, 3e5)},
        **{name: st.one_of(uniform(0, 1), st.sampled_from([0.0, 1.0])) for name in ("idle_resident", "idle_parked")},
        **{name: logarithmic(0.3, 3) for name in (*LINKS, *SHARES, *DELAYS)},  # times what the catalog has
        "ranks": st.sampled_from([1.0, 2.0, 8.0, 16.0]),
        "prefill_groups": st.sampled_from([0.0, 1.0]),
    }
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with everything switched on, and functions of a point in the box, compiled once."""

    serve: Callable[[Any], Service]
    outputs: Callable[[Any], Any]
    slopes: Callable[[Any, Any], Any]  # the gradient of their product with a vector
    system: System


def at(case_system: System, effects: Effects, make: SimpleNamespace, point: Any) -> Service:
    """The service at a point of the box: two kinds of session that share a prefix, three groups."""
    accelerator = replace(case_system.accelerator, **{name: getattr(case_system.accelerator, name) * point[name] for name in LINKS})
    shares = {name: getattr(case_system.efficiency, name) * point[name] for name in (*SHARES, *DELAYS)}
    system = replace(case_system, accelerator=accelerator, efficiency=replace(case_system.efficiency, **shares))
    plan = Plan(**{name: point[name] for name in (*KEEPS, *BITS)})
    timed = {name: point[name] for name in TIMED}
    schedule = make.schedule(**timed, tensor_parallel=point["ranks"], replicas=3.0, prefill_groups=point["prefill_groups"])
    return session.serve(system, plan, effects, schedule)


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, make: SimpleNamespace) -> Case:
    sessions = make.workload(
        weight=[0.6, 0.4],
        prompt=[50_000, 3000],
        turns=[5, 2.5],
        question=[50, 200],
        answer=[250, 400],
        think_s=[60, 10],
        shared_prefix=[20_000, 1000],
    )
    sessions = dataclasses.replace(sessions, reuse_tokens=np.array([0.0, 5e4, 2e5]), reuse_hits=np.array([0.0, 0.5, 0.8]))
    efficiency = dataclasses.replace(make.calibrated("h200-sxm"), exposed_switch=np.float64(0.2))
    system = make.system(request.param, "h200-sxm", efficiency, sessions=sessions)
    effects = make.effects(
        token=Cuts(stored=1.0, read=1.0, moved=1.0, prefill=1.0, late=1.0),
        scale_bits_per_element=0.5,
        scale_bits_per_vector=16.0,
        read_efficiency=0.8,
        score_read=0.05,
        reconstruct=1.0,
    )

    def outputs(point: Any) -> Any:
        got = at(system, effects, make, point)
        return jnp.stack([getattr(got, name) for name in OUTPUTS])

    return Case(
        serve=jax.jit(lambda point: at(system, effects, make, point)),
        slopes=jax.jit(jax.grad(lambda point, output: outputs(point) @ output)),
        outputs=jax.jit(outputs),
        system=system,
    )


@given(point=box)
@EXAMPLES
def test_gradients_are_finite_and_those_of_finite_differences(case: Case, point: Point) -> None:
    point = {name: float(value) for name, value in point.items()}
    moving = [name for name in point if name not in ("ranks", "prefill_groups")]
    with jax.enable_x64(True):
        slopes, here = [case.slopes(point, output) for output in np.eye(len(OUTPUTS))], np.asarray(case.outputs(point))
        assert np.all(np.isfinite(here))
        for name in moving:
            width = 1e-6 * max(abs(point[name]), 1e-3)
            below, above = (np.asarray(case.outputs({**point, name: point[name] + side})) for side in (-width, width))
            slope = np.array([float(one[name]) for one in slopes])
            assert np.all(np.isfinite(slope)), name
            candidates = np.array([(above - below) / 2, here - below, above - here]) / width  # one side where there is a kink between
            # rounding of the outputs, and their curvature over the step
            noise = 1e-12 * np.abs(here) / width + 1e-3 * np.abs(slope) + 1e-6 * np.abs(here) / max(abs(point[name]), 1e-3)
            assert np.all(np.min(np.abs(candidates - slope), axis=0) <= noise), (name, point[name], slope, candidates)


@given(point=box)
@EXAMPLES
def test_the_rate_rises_with_the_batch_until_every_step_is_mixed(case: Case, point: Point) -> None:
    with jax.enable_x64(True):
        found = [jax.device_get(case.serve({**point, "batch": batch})) for batch in np.geomspace(1e-3, 512, 40)]
    for name in ("sessions_per_s", "tpot_s", "wait_s", "ttft_first_s", "memory_used", "thinking"):
        for share, fall in ((0.7, 1e-9), (0.95, 15e-3)):  # near saturation more users are in one another's way: the rate may dip before it is flat
            values = np.array([float(getattr(one, name)) for one in found if one.prefill_utilisation < share])
            # where hardly one request finds room, the wait for it is shared by more of them as the rate grows
            dips = max(fall, 0.08) if name in ("wait_s", "ttft_first_s") else fall
            assert np.all(np.diff(values) >= -dips * values[:-1]), (name, share)
    rates = np.array([float(one.sessions_per_s) for one in found])
    assert np.all(rates > 0)


@given(point=box, delay=logarithmic(1.01, 10))
@EXAMPLES
def test_slowness_is_never_rewarded(case: Case, point: Point, delay: float) -> None:
    targets = Targets(ttft_s=30.0, ttft_percentile=0.0, tpot_s=0.1, tpot_z=0.0, accuracy_floor=0.95, utilisation=0.9, z=0.0)
    with jax.enable_x64(True):
        before = float(users_per_gpu(case.serve(point), case.system.workload, targets))
        for stage in DELAYS:
            after = float(users_per_gpu(case.serve({**point, stage: point[stage] * delay}), case.system.workload, targets))
            assert after <= before * (1 + 1e-9), stage


@given(point=box, faster=logarithmic(1.01, 10))
@EXAMPLES
def test_better_hardware_never_costs_sessions(case: Case, point: Point, faster: float) -> None:
    with jax.enable_x64(True):
        before = float(case.serve(point).sessions_per_s)
        for name in (*LINKS, *SHARES):
            assert float(case.serve({**point, name: point[name] * faster}).sessions_per_s) >= before * (1 - 1e-9), name


def test_a_plan_of_ones_is_the_uncompressed_cache(make: SimpleNamespace, x64: None) -> None:
    """Exactly, whatever the methods would cut."""
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))
    nothing = {dimension: make.cuts() for dimension in ("layer", "head", "token", "rank", "bits")}
    everything = {"scale_bits_per_element": 0.5, "scale_bits_per_vector": 32.0, "score_read": 0.1, "reconstruct": 1.0}
    one, other = (session.serve(system, make.plan(), effects, make.schedule()) for effects in (make.effects(**nothing), make.effects(**everything)))
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_the_closed_form_by_hand(make: SimpleNamespace, x64: None) -> None:
    """Yi-34B at peak, prompts whole, very many users who think for long, memory without end: T(b) = M + (R A / b - n_mix) t_dec, switches spared.

    A token is decoded beside b others (Poisson): 1 + b in all. A prompt waits for those before it and for the end of a step, and its own step is shared with
    the next prompt as often as one waits.
    """
    efficiency = dataclasses.replace(make.system().efficiency, exposed_switch=np.float64(0.0))
    system = make.system(efficiency=efficiency, sessions=make.workload(think_s=1e9))
    system = dataclasses.replace(system, accelerator=dataclasses.replace(system.accelerator, memory_bytes=np.float64(1e15)))
    batch, present = 2.0, 1 + 2.0
    weights_s, request_s = 2 * (34_388_049_920 - 458_752_000) / 2039e9, 245_760 * (50_000 + 50 * 3 + 250 * 2.5) / 2039e9
    flop, head = 2 * 33_470_545_920, 2 * 458_752_000
    pairs = 2 * 60 * 56 * 256
    prompt = (flop * (50_050 + batch) + head * (1 + batch) + pairs * 50_050**2 / 2) / 312e12 + batch * request_s
    context = 50_000 + 300 * 5 / 2
    question_work = (flop * (50 + batch) + head * (1 + batch) + pairs * (context * 50 + 50**2 / 2)) / 312e12
    question = max(weights_s, question_work) + batch * request_s + 245_760 * context / 2039e9
    mixed = prompt + 4 * question
    expected = mixed + (5 * 250 / batch - 5) * (weights_s + present * request_s)
    got = session.serve(system, make.plan(), make.effects(), make.schedule(batch=batch, chunk=1e9))
    assert float(1 / got.sessions_per_s) == pytest.approx(expected, rel=1e-6)
    assert float(got.tpot_s) == pytest.approx(expected * batch / 1250, rel=1e-6)
    busy = mixed / expected
    wait = (prompt**2 + 4 * question**2) / expected / 2 / (1 - busy) + (1 - busy) * (weights_s + present * request_s) / 2
    assert float(got.wait_s) == pytest.approx(wait, rel=1e-4)
    assert float(got.ttft_first_s) == pytest.approx(wait + prompt * (1 + busy / 2), rel=1e-4)


def test_one_user_waits_for_nobody(make: SimpleNamespace, x64: None) -> None:
    """With few users the rate is one session per session's own duration, and nobody queues."""
    system = make.system(sessions=make.workload(turns=1, think_s=0))
    alone_s = (
        1250
        / 5
        * float(
            decode.decode_step_s(
                system.architecture,
                session.sums(system, make.plan(), make.effects(), make.schedule()).costs,
                jnp.asarray(1.0),
                jnp.asarray(245_760 * (50_050 + 125) / 2039e9),
            )
        )
    )
    share = alone_s / (alone_s + 17.6)
    got = session.serve(system, make.plan(), make.effects(), make.schedule(batch=share, chunk=1e9))
    assert float(got.sessions_per_s) == pytest.approx(1 / (alone_s + 17.6), rel=0.1)
    assert float(got.wait_s) < 0.1 * 17.6


def test_slots_and_groups(make: SimpleNamespace, x64: None) -> None:
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))

    def at_groups(**changes: float) -> Service:
        return session.serve(system, make.plan(), make.effects(), make.schedule(tensor_parallel=2.0, **changes))

    one = at_groups()
    np.testing.assert_allclose(one.sessions_per_gpu_s, one.sessions_per_s / 2)
    three, stages = at_groups(replicas=3.0), at_groups(pipeline_parallel=4.0)
    np.testing.assert_allclose(three.sessions_per_gpu_s, one.sessions_per_gpu_s)
    np.testing.assert_allclose(stages.sessions_per_gpu_s, one.sessions_per_gpu_s)
    assert (float(three.slots), float(stages.slots)) == (3, 4)
    split = at_groups(replicas=3.0, prefill_groups=1.0)
    np.testing.assert_allclose(split.sessions_per_gpu_s, split.sessions_per_s * 2 / (3 * 2))
    assert split.tpot_s < three.tpot_s  # prompts no longer hold up the decodes


def test_no_rate_is_above_the_prefill_ceiling(make: SimpleNamespace, x64: None) -> None:
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))
    for batch in (1e-3, 1.0, 30.0, 512.0):
        for keep in (1.0, 1 / 64):
            got = session.serve(system, make.plan(token_keep=keep), make.effects(), make.schedule(batch=batch))
            assert got.sessions_per_gpu_s <= got.ceiling_per_gpu_s * (1 + 1e-9)


def test_a_kept_prefix_is_held_once_and_not_prefilled_again(make: SimpleNamespace, x64: None) -> None:
    sessions = dataclasses.replace(make.workload(shared_prefix=40_000), reuse_tokens=np.array([0.0, 40_000.0]), reuse_hits=np.array([0.0, 1.0]))
    system = make.system(efficiency=make.calibrated("a100-80-sxm"), sessions=sessions)
    cold, warm = (
        session.serve(system, make.plan(), make.effects(), make.schedule(prefix_cache_tokens=tokens, idle_resident=1.0)) for tokens in (0.0, 40_000.0)
    )
    assert warm.ceiling_per_gpu_s > 2 * cold.ceiling_per_gpu_s
    assert warm.sessions_per_s > cold.sessions_per_s
    waiting = 4 * warm.sessions_per_s * (warm.wait_s + warm.ttft_follow_up_s)  # with their caches still there
    residents = warm.batch + warm.thinking + warm.prefilling + waiting
    assert float(warm.memory_used) < 245_760 * (40_000 + float(residents) * 12_000)


def test_the_first_parking_writes_the_prompt_too(make: SimpleNamespace, x64: None) -> None:
    """On a one-way link a session of five turns writes all but the last turn once, and fetches four times."""
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))
    system = dataclasses.replace(system, accelerator=dataclasses.replace(system.accelerator, host_full_duplex=np.float64(0.0)))
    got = session.serve(system, make.plan(), make.effects(), make.schedule())
    written, fetched = 50_000 + 4 * 300, 4 * (50_000 + 750)
    per_session = 245_760 * (written + fetched) / (0.65 * 32e9)
    assert float(got.link_utilisation / got.sessions_per_s) == pytest.approx(per_session)


def test_an_unknown_host_link_matters_only_where_caches_are_parked(make: SimpleNamespace, x64: None) -> None:
    system = make.system(efficiency=make.calibrated("a100-80-sxm"))
    unlinked = dataclasses.replace(system, accelerator=dataclasses.replace(system.accelerator, host_bandwidth=np.float64(np.nan)))
    for fate in ({"idle_resident": 1.0}, {"idle_parked": 0.0}):
        known, unknown = (session.serve(one, make.plan(), make.effects(), make.schedule(**fate)) for one in (system, unlinked))
        assert known.sessions_per_s == unknown.sessions_per_s


def test_a_swapped_reference_fails(make: SimpleNamespace, x64: None) -> None:
    got, other = (session.serve(make.system(model), make.plan(), make.effects(), make.schedule()) for model in ("yi-34b-200k", "meta-llama-3.1-8b"))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(got.sessions_per_s, other.sessions_per_s)


def test_schedules_of_another_batch(make: SimpleNamespace) -> None:
    schedule: Schedule = make.schedule()
    assert session.at_batch(schedule, 7.0) == replace(schedule, batch=7.0)
