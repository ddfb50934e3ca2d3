"""Context switching: parking the cache of a user who thinks in host memory, and fetching it back."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from objectives.serving.kv_cache import Cache, session_bytes
from objectives.types import Effects, Schedule, System


def link_bandwidth(system: System, schedule: Schedule) -> Array:
    """[bytes/s] one way between a group and its host: one link per GPU."""
    return system.efficiency.host_link * system.accelerator.host_bandwidth * jnp.asarray(schedule.tensor_parallel)


def switch_s(system: System, effects: Effects, moved: Cache, schedule: Schedule, tokens: Array, new_tokens: Array) -> tuple[Array, Array]:
    """[s] of one context switch at a context of `tokens`, of which `new_tokens` came since the last parking: (fetching in, the whole switch).

    Fu, arXiv 2405.08944: (KV of the user going out + KV of the user coming in) / link. KV is append-only, so a real engine writes only what is new; a link
    that carries both directions at once takes the longer of the two.
    """
    n = jnp.asarray(tokens)
    coming = session_bytes(system.architecture, effects, moved, n)
    # what is new: all of a state, and of a window no more than it holds
    going = session_bytes(system.architecture, effects, moved, n - system.efficiency.append_only * jnp.maximum(n - new_tokens, 0))
    bandwidth = link_bandwidth(system, schedule)
    both = jnp.where(jnp.asarray(system.accelerator.host_full_duplex) > 0.5, jnp.maximum(coming, going), coming + going)
    return coming / bandwidth, both / bandwidth
