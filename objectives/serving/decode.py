"""Decode: the time of a step in which every request in flight gains one token."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from objectives.serving.group import StepCosts, weights_s
from objectives.serving.kv_cache import Cache, cache, entries, head_shards, kept, session_bytes
from objectives.types import Architecture, Effects, Plan, Schedule


def attention_flop(architecture: Architecture, plan: Plan, effects: Effects, read: Cache, tokens: Array) -> Array:
    """[FLOP] of attention for one decoded token at a context of `tokens`, with what rank compression adds. Shape of `tokens`.

    Absorbed MLA does 2 * query heads * (2 * latent + rope) FLOP per cached token: cutting its bytes soon stops helping. Low-rank K and V that are expanded at
    every step cost 2 * width * kept width FLOP per entry.
    """
    heads = architecture.layer_count * architecture.head_count
    share = heads / jnp.maximum(jnp.sum(architecture.head_count, axis=-1, keepdims=True), 1)
    expand = architecture.key_width**2 * expanded(plan.key_rank) + architecture.value_width**2 * expanded(plan.value_rank)
    per_entry = share * architecture.decode_flop + effects.reconstruct * heads * 2 * expand
    index = jnp.sum(architecture.layer_count * architecture.index_flop * architecture.index_rate)
    return jnp.sum(per_entry * entries(architecture, effects, read, tokens), axis=(-2, -1)) + index * tokens


def expanded(rank: Array | float) -> Array:
    """The kept width as a share, where it has to be expanded; none at full width. The step at full width is a ramp over one part in a thousand."""
    return jnp.asarray(rank) * jnp.minimum((1 - jnp.asarray(rank)) * 1e3, 1.0)


def scored_bytes(architecture: Architecture, plan: Plan, effects: Effects, schedule: Schedule, tokens: Array) -> Array:
    """[bytes] read per decoded token by a group only to choose what to read (Quest: two vectors a page). Shape of `tokens`."""
    n = jnp.asarray(tokens)[..., None, None]
    held = jnp.minimum(n, architecture.window) + architecture.global_rate * n
    heads = jnp.sum(architecture.head_count, axis=-1, keepdims=True)
    copies = jnp.maximum(1.0, head_shards(schedule) / jnp.maximum(heads, 1))
    key = architecture.layer_count * architecture.head_count * copies * held * architecture.key_width * 2
    choosing = jnp.minimum((1 - kept(plan.token_keep, effects.token, "read")) * 1e3, 1.0)  # nothing is scored where everything is read
    return jnp.sum(effects.score_read * choosing * key, axis=(-2, -1))


def kv_step_s(architecture: Architecture, plan: Plan, effects: Effects, schedule: Schedule, costs: StepCosts, tokens: Array) -> Array:
    """[s] that one request at a context of `tokens` adds to a step for its cache: the slower of reading it and attending to it. Shape of `tokens`."""
    read = cache(architecture, plan, effects, "read", schedule)
    compressed = session_bytes(architecture, effects, read, tokens) - read.index_bytes * tokens - read.state_bytes
    as_it_is = read.index_bytes * tokens + read.state_bytes + scored_bytes(architecture, plan, effects, schedule, tokens)
    flop = attention_flop(architecture, plan, effects, read, tokens)
    return jnp.maximum((compressed / effects.read_efficiency + as_it_is) * costs.kv_byte, flop * costs.attention_flop)


def decode_step_s(architecture: Architecture, costs: StepCosts, batch: Array, kv_s: Array) -> Array:
    """[s] of one decode step of `batch` requests, each adding `kv_s` for its cache.

    max(weights read, linear FLOP) + batch * KV + overheads per layer and request + all-reduce.
    """
    linear = weights_s(architecture, costs, batch, batch * costs.token)
    return linear + batch * (kv_s + costs.sequence + costs.exchange) + costs.decode_overhead
