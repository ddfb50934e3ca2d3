"""Decode: the time of a step in which every request in flight gains one token."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.serving.group import StepCosts, weights_s
from objectives.serving.kv_cache import Cache, cache, head_shards, kept, session_bytes
from objectives.types import Architecture, Effects, Plan, Schedule


class Reads(NamedTuple):
    """What a decoded token reads and multiplies of a cache, ready to be taken at any length (`reading_s`)."""

    cache: Cache  # over the group
    attended: Cache  # the same with [FLOP] in the place of bytes: of attention, with what rank compression adds
    scored: Array  # (layers, heads) [bytes] per entry held, read only to choose what to read


def reads(architecture: Architecture, plan: Plan, effects: Effects, schedule: Schedule) -> Reads:
    """What decoding on a group reads under a plan."""
    read = cache(architecture, plan, effects, "read", schedule)
    attended = read._replace(
        entry_bytes=entry_flop(architecture, plan, effects),
        index_bytes=jnp.sum(architecture.layer_count * architecture.index_flop * architecture.index_rate),
        state_bytes=jnp.zeros(()),
        shards=None,
    )
    return Reads(read, attended, scored_bytes(architecture, plan, effects, schedule))


def entry_flop(architecture: Architecture, plan: Plan, effects: Effects) -> Array:
    """[FLOP] of attention for one decoded token per entry attended to, with what rank compression adds: `(layers, heads)`.

    Absorbed MLA does 2 * query heads * (2 * latent + rope) FLOP per cached token: cutting its bytes soon stops helping. Low-rank K and V that are expanded at
    every step cost 2 * width * kept width FLOP per entry.
    """
    heads = architecture.layer_count * architecture.head_count
    share = heads / jnp.maximum(jnp.sum(architecture.head_count, axis=-1, keepdims=True), 1)
    expand = architecture.key_width**2 * expanded(plan.key_rank) + architecture.value_width**2 * expanded(plan.value_rank)
    return share * architecture.decode_flop + effects.reconstruct * heads * 2 * expand


def expanded(rank: Array | float) -> Array:
    """The kept width as a share, where it has to be expanded; none at full width. The step at full width is a ramp over one part in a thousand."""
    return jnp.asarray(rank) * jnp.minimum((1 - jnp.asarray(rank)) * 1e3, 1.0)


def scored_bytes(architecture: Architecture, plan: Plan, effects: Effects, schedule: Schedule) -> Array:
    """[bytes] per entry held that a group reads only to choose what to read (Quest: two vectors a page), `(layers, heads)`."""
    heads = jnp.sum(architecture.head_count, axis=-1, keepdims=True)
    copies = jnp.maximum(1.0, head_shards(schedule) / jnp.maximum(heads, 1))
    key = architecture.layer_count * architecture.head_count * copies * architecture.key_width * 2
    choosing = jnp.minimum((1 - kept(plan.token_keep, effects.token, "read")) * 1e3, 1.0)  # nothing is scored where everything is read
    return effects.score_read * choosing * key


def reading_s(architecture: Architecture, effects: Effects, have: Reads, costs: StepCosts, tokens: Array) -> Array:
    """[s] that one request at a context of `tokens` adds to a step for its cache: the slower of reading it and attending to it. Shape of `tokens`."""
    n = jnp.asarray(tokens)[..., None, None]
    held = jnp.minimum(n, architecture.window) + architecture.global_rate * n
    compressed = session_bytes(architecture, effects, have.cache, tokens) - have.cache.index_bytes * tokens - have.cache.state_bytes
    as_it_is = have.cache.index_bytes * tokens + have.cache.state_bytes + jnp.sum(have.scored * held, axis=(-2, -1))
    flop = session_bytes(architecture, effects, have.attended, tokens)
    return jnp.maximum((compressed / effects.read_efficiency + as_it_is) * costs.kv_byte, flop * costs.attention_flop)


def kv_step_s(architecture: Architecture, plan: Plan, effects: Effects, schedule: Schedule, costs: StepCosts, tokens: Array) -> Array:
    """`reading_s` of a plan."""
    return reading_s(architecture, effects, reads(architecture, plan, effects, schedule), costs, tokens)


def decode_step_s(architecture: Architecture, costs: StepCosts, batch: Array, kv_s: Array) -> Array:
    """[s] of one decode step of `batch` requests, each adding `kv_s` for its cache.

    max(weights read, linear FLOP) + batch * KV + overheads per layer and request + all-reduce.
    """
    linear = weights_s(architecture, costs, batch, batch * costs.token)
    return linear + batch * (kv_s + costs.sequence + costs.exchange) + costs.decode_overhead
