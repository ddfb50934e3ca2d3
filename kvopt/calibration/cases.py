"""Measurements as stacked pytrees, one row a case, and what the mathematics predicts for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.calibration.measurement import Measurement
from kvopt.inputs import method, profile
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.hierarchy import PARAMETERS
from objectives.serving import kv_cache
from objectives.serving.benchmark import Requests, Times, times
from objectives.types import Architecture, Effects, Plan, Schedule, System, Workload, pytree, replace

READ = {
    ("batch", "prefill_s"): "prefill_s",
    ("batch", "e2e_s"): "batch_s",
    ("batch", "tpot_ms"): "decode_s",
    ("batch", "ttft_s"): "ttft_s",
    ("steps", "tpot_ms"): "decode_s",
    ("closed loop", "ttft_s"): "ttft_s",
    ("closed loop", "tpot_ms"): "tpot_s",
    ("max load", "throughput_tok_s"): "max_load_tokens_per_s",
}
"""Which reading of a benchmark a measured quantity is; the others follow from these (`throughput`)."""
MAX_LOAD_FRACTION = 0.95  # of memory, as NVIDIA's max-load tables were run (TensorRT-LLM 1.0 perf overview, kv_cache_free_gpu_mem_fraction)
RESERVE_BYTES = 2e9  # [bytes] per accelerator besides weights and cache; within 1 GB of what engines log, and only rows at the limit feel it


@pytree
class Cases:
    """Stacked inputs of `predicted`; every leaf leads with `(rows,)`."""

    system: System
    plan: Plan
    effects: Effects
    schedule: Schedule
    requests: Requests


def stack(measurements: Sequence[Measurement]) -> Cases:
    """The measurements as one batch. Efficiencies are those of the theory until `predicted` is given others."""
    models = {one.model.id: one.model for one in measurements}
    deepest = max(len(model.kinds) for model in models.values())
    architectures = {name: _padded(model.architecture(), deepest) for name, model in models.items()}
    rows = [_case(one, architectures[one.model.id]) for one in measurements]
    system, plan, effects, schedule, requests = (jax.tree.map(lambda *leaves: np.stack(leaves), *part) for part in zip(*rows, strict=True))
    return Cases(system=system, plan=plan, effects=effects, schedule=schedule, requests=requests)


def predicted(cases: Cases, parameters: dict[str, Any]) -> Times:
    """What each case's benchmark would read, `(rows,)` each. `parameters`: by name, `(rows,)` each, see `kvopt.inputs.hierarchy.PARAMETERS`."""

    def one(system: System, plan: Plan, effects: Effects, schedule: Schedule, requests: Requests, own: dict[str, Array]) -> Times:
        known = {name: value for name, value in own.items() if name not in Requests._fields}
        requests = requests._replace(**{name: value for name, value in own.items() if name in Requests._fields})
        return times(replace(system, efficiency=replace(system.efficiency, **known)), plan, effects, schedule, requests)

    return jax.vmap(one)(cases.system, cases.plan, cases.effects, cases.schedule, cases.requests, parameters)


@jax.jit
def _log_times(cases: Cases, parameters: dict[str, Any]) -> Times:
    return jax.tree.map(jnp.log, predicted(cases, parameters))


def log_times(cases: Cases, parameters: dict[str, Any]) -> dict[str, np.ndarray]:
    """Logarithms of all readings, by name, `(rows,)` each."""
    return {name: np.asarray(value, float) for name, value in _log_times(cases, parameters)._asdict().items()}


def cache_bytes(one: Measurement) -> float:
    """[bytes] of the cache of the row's prompt, each byte once."""
    system, plan, effects, _, requests = _case(one, one.model.architecture())
    moved = kv_cache.cache(system.architecture, plan, effects, "moved")
    return float(kv_cache.session_bytes(system.architecture, effects, moved, requests.cached + requests.new))


def throughput(one: Measurement, seconds: dict[str, float]) -> float:
    """[tokens/s] as the source counts them, from the predicted readings of a case."""
    tokens = one.batch * (one.output + (one.new + one.cached if one.counts_prompt else 0.0))
    if one.experiment == "max load":
        rate = seconds["max_load_tokens_per_s"]
    elif one.experiment == "closed loop":
        rate = tokens / (seconds["ttft_s"] + one.output * seconds["tpot_s"])
    else:
        rate = tokens / seconds["batch_s"]
    return rate / (one.gpus if one.per_gpu else 1.0)


@cache
def _effects(kv_bits: float) -> Effects:
    chosen = MethodChoice(bits=method.load("fp8")) if kv_bits == 8 else MethodChoice()
    return chosen.effects()


def _padded(architecture: Architecture, deepest: int) -> Architecture:
    """With as many layer groups as the deepest has; those added stand for no layers."""

    def pad(leaf: np.ndarray) -> np.ndarray:
        return leaf if leaf.ndim < 2 else np.concatenate([leaf, np.repeat(leaf[:1], deepest - leaf.shape[0], axis=0)])

    layers = architecture.layer_count.shape[0]
    padded = jax.tree.map(pad, architecture)
    return replace(padded, layer_count=np.where(np.arange(deepest)[:, None] < layers, padded.layer_count, 0.0))


def _case(one: Measurement, architecture: Architecture) -> tuple[System, Plan, Effects, Schedule, Requests]:
    fraction = MAX_LOAD_FRACTION if one.experiment == "max load" else 0.9
    reserve = replace(profile.peak(), memory_fraction=np.float64(fraction), context_bytes=np.float64(RESERVE_BYTES))
    system = System(
        architecture=architecture,
        accelerator=one.accelerator.pytree(one.weights, memory="logged"),
        efficiency=reserve,
        checkpoint=one.model.checkpoint(one.weights),
        workload=_NOBODY,
    )
    full = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), np.float64(1.0))
    plan = Plan(**full, key_bits=np.float64(one.kv_bits), value_bits=np.float64(one.kv_bits))
    single = dict.fromkeys(("replicas", "context_parallel", "attention_data_parallel"), np.float64(1.0))
    nothing = dict.fromkeys(("expert_parallel", "prefill_groups", "idle_resident", "idle_parked", "prefix_cache_tokens"), np.float64(0.0))
    schedule = Schedule(
        **single,
        **nothing,
        tensor_parallel=np.float64(one.tp),
        pipeline_parallel=np.float64(one.pp),
        batch=np.float64(one.batch),
        max_sequences=np.float64(0.0),
        chunk=np.float64(one.chunk),
    )
    # a reading that was not taken must still be a finite number
    new, output = max(one.new, 1.0), max(one.output, 1.0)
    requests: Any = map(np.float64, (one.batch, new, one.cached, output, PARAMETERS["waves"].start, 0.0, one.stream))
    return system, plan, _effects(one.kv_bits), schedule, Requests(*requests)


_ONE: Any = np.ones(1)
_POINTS: Any = np.array([0.0, 1.0])
_NOBODY = Workload(
    weight=_ONE, prompt=_ONE, turns=_ONE, question=0 * _ONE, answer=_ONE, think_s=0 * _ONE, shared_prefix=0 * _ONE, reuse_tokens=_POINTS,
    reuse_hits=0 * _POINTS,
)  # fmt: skip
