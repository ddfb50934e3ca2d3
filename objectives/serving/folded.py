"""Plans in which layers and heads differ, at the cost of a uniform one: what they hold and read is added up by kind of layer, once.

All that a service knows of a plan are sums over layers (`session.Sums`), and each of them is linear in what a layer or head contributes. So a plan of
thousands of settings is folded into one row per kind of layer, and a search adds up tables of contributions instead of evaluating settings.

Every head keeps its whole context (`head_keep` 1), and the model reads all that the plan leaves (`select` infinite): where that is not so, what is held is
not proportional to the length, and `session.sums` of the whole plan is what holds.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objectives.serving import decode
from objectives.serving.kv_cache import Cache, cache, head_shards, while_prefilling
from objectives.serving.prefill import PromptShares, left_of_work
from objectives.serving.session import Sums, sums
from objectives.types import Architecture, Effects, Plan, Schedule, System

ALONE = Schedule(**dict.fromkeys(Schedule.__dataclass_fields__, 1.0))  # one rank: nothing is copied
UNCOMPRESSED = Plan(**{name: 16.0 if name.endswith("bits") else 1.0 for name in Plan.__dataclass_fields__})


class Folded(NamedTuple):
    """What a plan adds up to, per kind of layer and KV head: `(kinds, heads)`, the head axis 1 where the heads of a layer are alike."""

    stored: Array  # [bytes] per entry of the whole context, each byte once
    filling: Array  # the same while the prompt is prefilled
    moved: Array
    read: Array
    attended: Array  # [FLOP] per entry of the whole context
    scored: Array  # [bytes] per entry held, read only to choose what to read
    attention: Array  # share of the kind's prompt attention that is left
    linear: Array  # share of all layers' linear work that is left


def contributions(architecture: Architecture, plan: Plan, effects: Effects) -> Folded:
    """What each layer and head adds to the sums of the whole model, leaves `(layers, heads)`: `fold` adds them up."""

    def held(found: Cache) -> Array:
        return found.entry_bytes * found.token_keep

    reads = decode.reads(architecture, plan, effects, ALONE)
    linear, attention = left_of_work(plan, effects)
    count = jnp.sum(architecture.head_count, axis=-1, keepdims=True)
    heads = jnp.where(count > 0, architecture.head_count / jnp.maximum(count, 1), 1 / architecture.head_count.shape[-1])
    found = Folded(
        stored=held(cache(architecture, plan, effects, "stored")),
        filling=held(cache(architecture, while_prefilling(plan, effects), effects, "stored")),
        moved=held(cache(architecture, plan, effects, "moved")),
        read=held(cache(architecture, plan, effects, "read")),
        attended=held(reads.attended),
        scored=reads.scored,
        attention=attention * heads * architecture.layer_count,
        linear=linear * heads * architecture.layer_count / jnp.sum(architecture.layer_count),
    )
    return jax.tree.map(lambda leaf: leaf * jnp.ones_like(architecture.head_count), found)


def fold(parts: Folded, kinds: Array) -> Folded:
    """The sums over layers of one kind: from leaves `(layers, heads)`, with `kinds` `(kinds, layers)` 1 where the layer is of the kind."""
    found = jax.tree.map(lambda leaf: kinds @ leaf, parts)
    return found._replace(attention=found.attention / jnp.maximum(jnp.sum(kinds, axis=1, keepdims=True), 1))


def folded_sums(system: System, have: Folded, effects: Effects, schedule: Schedule) -> Sums:
    """What a service knows of a folded plan on a group; `system.architecture` has a row per kind of layer, and head columns as the plan has.

    As in `kv_cache.cache`: beyond one rank per KV head the head is copied, and where heads differ, the fullest rank decides.
    """
    arch = system.architecture
    whole = sums(system, UNCOMPRESSED, effects, schedule)
    copies = jnp.maximum(1.0, head_shards(schedule) / jnp.maximum(jnp.sum(arch.head_count, axis=-1, keepdims=True), 1))
    held_copies = copies if arch.head_count.shape[-1] == 1 else 1.0

    def held(found: Cache, entry: Array) -> Cache:
        return found._replace(entry_bytes=entry, token_keep=jnp.ones(()), head_keep=jnp.ones(()))

    return whole._replace(
        shares=PromptShares(jnp.sum(have.linear), jnp.sum(have.attention, axis=-1, keepdims=True)),
        stored=held(whole.stored, have.stored * held_copies),
        filling=held(whole.filling, have.filling * held_copies),
        moved=held(whole.moved, have.moved),
        reads=decode.Reads(
            cache=held(whole.reads.cache, have.read * held_copies),
            attended=held(whole.reads.attended, have.attended),
            scored=have.scored * copies,
        ),
    )
