"""Concurrency: the memory left for caches on a group, and how many sessions it holds."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from objectives.serving.group import weight_bytes
from objectives.serving.kv_cache import cache, session_bytes
from objectives.types import Effects, Plan, Schedule, System


def reserved_bytes(system: System, schedule: Schedule) -> Array:
    """[bytes] per GPU that the engine keeps from the cache: non-torch memory, graphs and the activation peak.

    Activation peak = the larger of the sampler's pass over `max_sequences` rows and the widest layer's pass over one chunk (vLLM >= 0.17, fitted to public
    start-up logs: 14.15 B per sequence and vocabulary entry; 2 B * (3 intermediate / tp + 3 hidden) per token).
    """
    architecture, efficiency = system.architecture, system.efficiency
    several = jnp.minimum(schedule.tensor_parallel * schedule.pipeline_parallel - 1, 1.0)
    sampler = efficiency.sampler_bytes * schedule.max_sequences * architecture.vocabulary
    width = 3 * architecture.intermediate / schedule.tensor_parallel + 3 * architecture.hidden
    layer = efficiency.activation_bytes * width * schedule.chunk
    return efficiency.context_bytes + efficiency.parallel_bytes * several + jnp.maximum(sampler, layer)


def kv_pool_bytes(system: System, schedule: Schedule, z: Array | float = 0.0) -> Array:
    """[bytes] for caches on one group of `tensor_parallel` GPUs: a share of (memory * fraction - weights - reserve), lowered by z standard deviations.

    A pipeline of p stages is p such groups that hold the weights once: each carries 1/p of them.
    """
    efficiency, ranks = system.efficiency, schedule.tensor_parallel
    usable = efficiency.memory_fraction * system.accelerator.memory_bytes - reserved_bytes(system, schedule) - z * efficiency.memory_sd_bytes
    held = weight_bytes(system.architecture, system.checkpoint, schedule.attention_data_parallel)
    return efficiency.pool_fraction * (ranks * usable - held / schedule.pipeline_parallel)


def concurrency(system: System, plan: Plan, effects: Effects, schedule: Schedule, tokens: Array) -> Array:
    """Sessions of `tokens` tokens that fit in one group's memory at once, relaxed (not floored). Shape of `tokens`; 0 where the weights do not fit."""
    stored = cache(system.architecture, plan, effects, "stored", schedule)
    size = session_bytes(system.architecture, effects, stored, tokens)
    return jnp.maximum(kv_pool_bytes(system, schedule), 0) / size
