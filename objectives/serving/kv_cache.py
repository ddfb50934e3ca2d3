"""Bytes of KV cache: what is stored, read per decoded token, and moved on a context switch.

Source of the uncompressed formula: Fu, arXiv 2405.08944, `KV = tokens * layers * kv_heads * head_dim * 2 * bytes`. Compression multiplies it along layer,
head, token and hidden (rank and bits); each method says which of the sums it cuts (`Cuts`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.types import Architecture, Cuts, Effects, Plan, Schedule, replace

Sum = Literal["stored", "read", "moved", "prefill"]
INDEX_BYTES = 2  # an element of an index key, 16 bit (vLLM 0.33 stores 132 bytes for 128 elements instead)


def kept(keep: Array | float, cuts: Cuts, which: Sum) -> Array:
    """The share of one sum that remains: `keep` where the method cuts that sum, 1 where it does not.

    A method that reads a quarter of the cache and stores all of it:

    >>> reads = Cuts(stored=0.0, read=1.0, moved=0.0, prefill=0.0)
    >>> float(kept(0.25, reads, "read")), float(kept(0.25, reads, "stored"))
    (0.25, 1.0)
    """
    return 1 - getattr(cuts, which) * (1 - jnp.asarray(keep))


def element_bits(bits: Array | float, effects: Effects, which: Sum) -> Array:
    """Bits per stored element, group-wise scales included. Exact at 16 bits (no scales) and from 8 bits down (all of them), linear between."""
    scaled = jnp.asarray(bits) + effects.scale_bits_per_element * jnp.clip((16 - jnp.asarray(bits)) / 8, 0, 1)
    return 16 - getattr(effects.bits, which) * (16 - scaled)


def vector_bits(bits: Array | float, effects: Effects, which: Sum) -> Array:
    """Bits of the per-token, per-head scales of one tensor; none at 16 bits."""
    return getattr(effects.bits, which) * effects.scale_bits_per_vector * jnp.clip((16 - jnp.asarray(bits)) / 8, 0, 1)


def entry_bytes(architecture: Architecture, plan: Plan, effects: Effects, which: Sum) -> Array:
    """[bytes] of one K and V entry of one KV head, `(layers, heads)`."""
    key = architecture.key_width * kept(plan.key_rank, effects.rank, which) * element_bits(plan.key_bits, effects, which)
    value = architecture.value_width * kept(plan.value_rank, effects.rank, which) * element_bits(plan.value_bits, effects, which)
    scales = vector_bits(plan.key_bits, effects, which) * (architecture.key_width > 0)
    scales = scales + vector_bits(plan.value_bits, effects, which) * (architecture.value_width > 0)
    return (key + value + scales) / 8


class Cache(NamedTuple):
    """One of the sums over a cache, ready to be taken at any length (`session_bytes`)."""

    entry_bytes: Array  # (layers, heads) of one entry, all layers and heads of the group counted, copies on ranks included
    token_keep: Array
    head_keep: Array
    select: Array  # (layers, 1) global entries at most
    index_bytes: Array  # () per token of context, which no plan compresses
    state_bytes: Array  # () per sequence
    shards: Array | None  # () ranks over which per-head plans are spread; None where the copies are in entry_bytes


def cache(
    architecture: Architecture,
    plan: Plan,
    effects: Effects,
    which: Sum = "stored",
    schedule: Schedule | None = None,
) -> Cache:
    """One sum of a plan: every byte once, or, with a schedule, what a tensor-parallel group must set aside.

    Every rank sets aside what the fullest one needs, and beyond one rank per KV head the head is copied: uniform plans cost `max(1, ranks/kv_heads)` times
    their bytes (vLLM 0.33: kv heads per rank = max(1, kv_heads // tp); MLA has one latent and is copied on every rank).
    """
    share = kept(plan.layer_keep, effects.layer, which)
    if which != "read":  # a layer that reads another's cache reads all of it
        share = share * architecture.stores
    per_entry = architecture.layer_count * architecture.head_count * share * entry_bytes(architecture, plan, effects, which)
    copies = jnp.asarray(1.0) if schedule is None else head_shards(schedule)
    per_head = schedule is not None and per_entry.shape[-1] > 1
    if not per_head:
        per_entry = per_entry * jnp.maximum(1.0, copies / jnp.maximum(architecture.head_count, 1))
    return Cache(
        entry_bytes=per_entry,
        token_keep=kept(plan.token_keep, effects.token, which),
        head_keep=kept(plan.head_keep, effects.head, which),
        select=architecture.select if which == "read" else jnp.full_like(architecture.select, jnp.inf),
        index_bytes=jnp.sum(architecture.layer_count * architecture.index_width * architecture.index_rate * INDEX_BYTES) * copies,
        state_bytes=jnp.sum(architecture.layer_count * architecture.state_bytes),
        shards=copies if per_head else None,
    )


def while_prefilling(plan: Plan, effects: Effects) -> Plan:
    """The plan as memory has it until the prompt is done: methods that need the whole cache for their choice have cut nothing yet."""

    def keep(name: str, cuts: Cuts) -> Array:
        share = jnp.asarray(getattr(plan, name))
        return share + cuts.late * (1 - share)

    by_field = {
        "layer_keep": effects.layer,
        "head_keep": effects.head,
        "token_keep": effects.token,
        "key_rank": effects.rank,
        "value_rank": effects.rank,
    }
    return replace(plan, **{name: keep(name, cuts) for name, cuts in by_field.items()})


def entries(architecture: Architecture, effects: Effects, held: Cache, tokens: Array) -> Array:
    """Entries per KV head for a context of `tokens` (any shape): `(*tokens, layers, heads)`.

    A retrieval head keeps `token_keep` of its entries, a streaming head a sink and a recent window. Reading stops at `select` global entries where
    the model chooses them itself.
    """
    n = jnp.asarray(tokens)[..., None, None]
    whole = held.token_keep * jnp.minimum(n, architecture.window) + jnp.minimum(held.token_keep * architecture.global_rate * n, held.select)
    return held.head_keep * whole + (1 - held.head_keep) * jnp.minimum(effects.streaming_tokens, whole)


def session_bytes(architecture: Architecture, effects: Effects, held: Cache, tokens: Array) -> Array:
    """[bytes] of one session of `tokens` tokens, state included. Shape of `tokens`."""
    per_head = held.entry_bytes * entries(architecture, effects, held, tokens)
    whole = jnp.sum(per_head, axis=(-2, -1)) if held.shards is None else held.shards * fullest_rank(architecture, per_head, held.shards)
    return whole + held.index_bytes * tokens + held.state_bytes


def token_bytes(architecture: Architecture, effects: Effects, held: Cache, tokens: Array) -> Array:
    """[bytes/token] at the margin: of the token that follows a context of `tokens`."""
    return session_bytes(architecture, effects, held, jnp.asarray(tokens) + 1) - session_bytes(architecture, effects, held, tokens)


def head_shards(schedule: Schedule) -> Array:
    """Ranks over which the KV heads of one session are spread: those that neither hold other sessions nor other tokens of it."""
    return jnp.maximum(schedule.tensor_parallel / (schedule.attention_data_parallel * schedule.context_parallel), 1.0)


def fullest_rank(architecture: Architecture, per_head: Array, shards: Array) -> Array:
    """[bytes] on the fullest of `shards` ranks that split the heads of `(..., layers, heads)` bytes in contiguous blocks: shape `(...)`."""
    heads = jnp.sum(architecture.head_count, axis=-1, keepdims=True)
    ranks = per_head.shape[-1]
    blocks = jnp.maximum(jnp.minimum(shards, heads), 1)  # (layers, 1) distinct shares of the heads
    head_block = jnp.floor(jnp.arange(ranks) * blocks / jnp.maximum(heads, 1) + 1e-6)  # (layers, heads)
    rank_block = jnp.floor(jnp.arange(ranks) * blocks / ranks + 1e-6)
    holds = head_block[:, :, None] == rank_block[:, None, :]  # (layers, heads, ranks)
    return jnp.max(jnp.einsum("...lh,lhr->...r", per_head, holds.astype(per_head.dtype)), axis=-1)
