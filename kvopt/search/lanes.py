"""Lanes: one categorical choice each (deployment, checkpoint, methods), with the box of the continuous settings that remain.

All lanes are pytrees of one structure, stacked on a leading axis, so that one compiled program searches them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.head_plans import HeadPlan
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.quantities import parse_tokens
from kvopt.kept_programs import Program
from kvopt.problem import Problem, Weights
from kvopt.search.block_plan import BlockPlan, ByBlock
from kvopt.search.deployments import Deployment, deployments, scaleup_bandwidth
from objectives.accuracy.composition import Accuracy, Losses, Shares, losses
from objectives.serving.concurrency import kv_pool_bytes
from objectives.serving.folded import folded_sums
from objectives.serving.session import Charged, Sums, sums
from objectives.types import Checkpoint, Effects, Plan, Schedule, System, pytree, replace

PLAN_FIELDS = ("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "key_bits", "value_bits", "prefill_keep")
SCHEDULE_FIELDS = ("batch", "chunk", "idle_resident", "prefix_cache_tokens")
FIELDS = (*PLAN_FIELDS, *SCHEDULE_FIELDS)  # the continuous settings, in the order of every vector below
LOGARITHMIC = np.array([name not in ("key_bits", "value_bits", "idle_resident", "prefix_cache_tokens") for name in FIELDS])
BATCH = FIELDS.index("batch")
LEAST_BATCH = 1e-3  # decodes in flight: one request every thousand answers
MOST_CHUNK = 16384  # [tokens] the largest default of any engine: a longer step stalls every decode for seconds, which the mean step does not show
SEQUENCE_SDS = 3.0  # max_num_seqs leaves room for three standard deviations of a Poisson number of requests


@pytree
class ByHead:
    """What a plan of layers and heads puts in the place of settings, by field of `Plan`; entries are `(layers, heads)` or `(layers, 1)`."""

    freed: dict[str, Array]  # as the engine's memory has it
    kept: dict[str, Array]  # as accuracy is judged
    shares: Shares


@pytree
class Lane:
    """One categorical choice as the mathematics takes it, and the box of the continuous settings."""

    schedule: Schedule
    effects: Effects
    accuracy: Accuracy
    checkpoint: Checkpoint
    peak_flops: Array
    scaleup_bandwidth: Array
    low: Array  # (fields,)
    high: Array  # (fields,)
    by_head: ByHead | None = None  # a plan in which layers and heads differ, setting by setting
    by_block: ByBlock | None = None  # the same, added up
    charged: Charged = Charged(np.inf, np.inf)  # less in a bound


@dataclass(frozen=True)
class Choice:
    """The same choice in words."""

    deployment: Deployment
    weights: Weights
    methods: MethodChoice
    heads: HeadPlan | None = None  # where layers and heads are not alike, by scores that a person gave
    blocks: BlockPlan | None = None  # where they are not alike, as a search found them

    @cached_property
    def label(self) -> str:
        """E.g. `TP2, park; fp8`."""
        names = "+".join(method.id for method in self.methods.methods) or "uncompressed"
        return f"{self.deployment.label}; {names}"


def max_sequences(batch: Any) -> Any:
    """Requests in flight that a group admits, so that a Poisson number of them around `batch` seldom waits."""
    return batch + SEQUENCE_SDS * jnp.sqrt(batch) + 2


def settings(lane: Lane, x: Array, cap: Array | float) -> tuple[Plan, Schedule]:
    """The plan and schedule of one vector of continuous settings. `cap`: most requests in flight that the engine or the person allows."""
    values = dict(zip(FIELDS, [x[i] for i in range(len(FIELDS))], strict=True))
    plan = Plan(**{name: values[name] for name in PLAN_FIELDS})
    if lane.by_head is not None:
        plan = replace(plan, **lane.by_head.freed)
    schedule = replace(lane.schedule, **{name: values[name] for name in SCHEDULE_FIELDS})
    return plan, replace(schedule, max_sequences=jnp.minimum(max_sequences(values["batch"]), cap))


def plan_losses(lane: Lane, plan: Plan, z: Array | float = 0.0) -> Losses:
    """The accuracy losses of a plan of `settings` at z standard deviations: of what it keeps, where the engine frees less than that."""
    if lane.by_head is None:
        return losses(plan, lane.accuracy, z=z)
    return losses(replace(plan, **lane.by_head.kept), lane.accuracy, lane.by_head.shares, z)


def lane_sums(system: System, lane: Lane, plan: Plan, schedule: Schedule) -> Sums:
    """What a service knows of the plan of `settings`."""
    if lane.by_block is None:
        return sums(system, plan, lane.effects, schedule)
    return folded_sums(system, lane.by_block.folded, lane.effects, schedule)


def lane_system(system: System, lane: Lane) -> System:
    """The system with what the lane's checkpoint and deployment change."""
    accelerator = replace(system.accelerator, peak_flops=lane.peak_flops, scaleup_bandwidth=lane.scaleup_bandwidth)
    return replace(system, accelerator=accelerator, checkpoint=lane.checkpoint)


def default_chunk(problem: Problem) -> float:
    """[tokens] the engine's default chunk, or the one asked for; the whole prompt at `peak` fidelity."""
    if problem.scenario.chunk is not None:
        return float(parse_tokens(problem.scenario.chunk, "chunk"))
    if problem.scenario.fidelity == "peak":
        return float(np.max(problem.sessions.prompt + problem.sessions.question))
    return float(problem.engine.chunk(problem.accelerator.memory.value / 2**30, problem.accelerator.id))


def sequence_cap(problem: Problem) -> float:
    """Most requests in flight per group: asked for, or the engine's default."""
    return float(problem.scenario.max_num_seqs or problem.engine.sequences(problem.accelerator.memory.value / 2**30, problem.accelerator.id))


def chunk_sizes(problem: Problem) -> np.ndarray:
    """[tokens] the chunk sizes worth trying, rising: powers of two the engine takes, up to `MOST_CHUNK` and what the longest prompt needs."""
    if problem.scenario.chunk is not None or problem.scenario.fidelity == "peak":
        return np.array([default_chunk(problem)])
    longest = float(np.max(problem.sessions.prompt + problem.sessions.question))
    sizes = [size for size in problem.engine.chunking.candidates if size < 2 * longest and size <= MOST_CHUNK]
    return np.array(sizes or [problem.engine.chunking.smallest], float)


def edge_share(problem: Problem, chosen: MethodChoice) -> float:
    """Share of the layers with a cache that the bits method compresses: some keep the first and last ones in 16 bits."""
    edges = chosen.bits.edge_layers_16bit if chosen.bits else 0
    cached = float(np.sum(problem.architecture.layer_count * (problem.architecture.head_count.sum(-1, keepdims=True) > 0)))
    return max(0.0, 1 - 2 * edges / max(cached, 1.0))


def _schedule(d: Deployment) -> Schedule:
    """The categorical settings; the continuous ones are filled in by `settings`."""
    numbers = {
        "tensor_parallel": d.tp,
        "pipeline_parallel": d.pp,
        "replicas": d.replicas,
        "context_parallel": d.dcp,
        "attention_data_parallel": d.attention_dp,
        "expert_parallel": d.expert_parallel,
        "prefill_groups": d.prefill_groups,
        "idle_parked": d.park,
        **dict.fromkeys((*SCHEDULE_FIELDS, "max_sequences", "idle_resident"), 1.0),
    }
    return Schedule(**{name: np.float64(value) for name, value in numbers.items()})


def _box(problem: Problem, chosen: MethodChoice) -> dict[str, tuple[float, float]]:
    """The least and the most of every continuous setting."""
    low, high = chosen.bounds()
    chunks = chunk_sizes(problem)
    return {name: (float(getattr(low, name)), float(getattr(high, name))) for name in PLAN_FIELDS} | {
        "batch": (LEAST_BATCH, sequence_cap(problem)),
        "chunk": (float(chunks[0]), float(chunks[-1])),
        "idle_resident": (0.0, float(problem.keeps_idle_caches)),
        "prefix_cache_tokens": (0.0, float(problem.sessions.reuse_tokens[-1]) if problem.keeps_prefixes else 0.0),
    }


def _effects(problem: Problem, chosen: MethodChoice) -> Effects:
    share = edge_share(problem, chosen)
    effects = chosen.effects()
    return replace(effects, bits=jax.tree.map(lambda cut: cut * share, effects.bits))


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.array(leaves, np.float64), *trees)


def stacked(problem: Problem, chosen: Sequence[Choice]) -> Lane:
    """The lanes of several choices, float64 leaves stacked on a leading axis. Parts that choices share are made once."""

    def unique(items: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
        seen = {id(item): item for item in items}
        place = {key: position for position, key in enumerate(seen)}
        return list(seen.values()), np.array([place[id(item)] for item in items])

    (grouped, d), (stored, w), (used, m) = (unique([getattr(c, name) for c in chosen]) for name in ("deployment", "weights", "methods"))
    boxes = [_box(problem, method) for method in used]
    devices = [problem.device(weights) for weights in stored]
    by_method = {
        "effects": _stack([_effects(problem, method) for method in used]),
        "accuracy": _stack([method.accuracy(problem.asked) for method in used]),
        "charged": Charged(np.full(len(used), np.inf), np.full(len(used), np.inf)),
        "low": np.array([[box[name][0] for name in FIELDS] for box in boxes]),
        "high": np.array([[box[name][1] for name in FIELDS] for box in boxes]),
    }
    by_deployment = {
        "schedule": _stack([_schedule(deployment) for deployment in grouped]),
        "scaleup_bandwidth": np.array([scaleup_bandwidth(problem, devices[0], deployment.tp) for deployment in grouped]),
    }
    by_weights = {
        "checkpoint": _stack([problem.checkpoint(weights) for weights in stored]),
        "peak_flops": np.array([device.peak_flops for device in devices]),
    }
    return Lane(**take(by_method, m), **take(by_deployment, d), **take(by_weights, w), by_head=_by_head(chosen), by_block=_by_block(chosen))


def _by_head(chosen: Sequence[Choice]) -> ByHead | None:
    """The plans by layer and head, stacked; none where there is none. Either all choices have one or none has."""
    plans = [choice.heads for choice in chosen if choice.heads is not None]
    if not plans:
        return None
    return _stack([ByHead(freed=dict(plan.freed), kept=dict(plan.kept), shares=plan.shares) for plan in plans])


def _by_block(chosen: Sequence[Choice]) -> ByBlock | None:
    """The same of plans that a search added up."""
    plans = [choice.blocks.by_block for choice in chosen if choice.blocks is not None]
    return _stack(plans) if plans else None


def memory_left(problem: Problem, grouped: Sequence[Deployment], weights: Weights) -> np.ndarray:
    """[bytes] that the weights leave for caches on one slot of each deployment, with the smallest reserve: negative where they do not fit."""
    lanes = stacked(problem, [Choice(deployment, weights, MethodChoice()) for deployment in grouped])
    smallest = float(chunk_sizes(problem)[0])
    with jax.enable_x64(True):
        return np.asarray(_pools(problem.system(weights), lanes, np.float64(smallest)))


@Program
def _pools(system: System, lanes: Lane, chunk: Array) -> Array:
    def pool(one: Lane) -> Array:
        return kv_pool_bytes(lane_system(system, one), replace(one.schedule, chunk=chunk, max_sequences=jnp.ones_like(chunk)))

    return jax.vmap(pool)(lanes)


def make_choices(problem: Problem, offered: Sequence[MethodChoice], grouped: Sequence[Deployment] | None = None) -> list[Choice]:
    """Every deployment whose weights fit, with every checkpoint and every one of the offered methods."""
    candidates = deployments(problem) if grouped is None else list(grouped)
    fitting = [
        (deployment, weights)
        for weights in problem.checkpoints
        for deployment, left in zip(candidates, memory_left(problem, candidates, weights), strict=True)
        if left > 0
    ]
    return [Choice(deployment, weights, chosen) for deployment, weights in fitting for chosen in offered]


def take(lanes: Any, index: np.ndarray) -> Any:
    """Some rows of stacked pytrees."""
    return jax.tree.map(lambda leaf: leaf[index], lanes)
