"""Prefill: the work of a prompt, and the time of a step that carries a chunk of one beside decodes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.serving.group import StepCosts, step_costs, weights_s
from objectives.serving.kv_cache import kept
from objectives.types import Architecture, Effects, Plan, Schedule, System


def attended(cap: Array, rate: Array, start: Array, new: Array) -> Array:
    """Key entries attended by `new` tokens after `start` others, when a token at position x attends min(rate * x, cap): the integral over x.

    Of 100 tokens under full attention half a square, under a window of 10 tokens almost ten for each:

    >>> [float(attended(jnp.asarray(cap), jnp.asarray(1.0), jnp.asarray(0.0), jnp.asarray(100.0))) for cap in (jnp.inf, 10.0)]
    [5000.0, 950.0]
    """

    limit = jnp.minimum(cap, 1e12)  # finite, so that an unlimited cap times nothing is nothing
    bend = limit / jnp.maximum(rate, 1e-12)
    end = start + new
    first, last = jnp.minimum(start, bend), jnp.minimum(end, bend)  # below the cap a token sees the mean of the ends, without a difference of squares
    return rate * (last - first) * (last + first) / 2 + limit * (jnp.maximum(end - bend, 0) - jnp.maximum(start - bend, 0))


def attention_flop(architecture: Architecture, cached: Array, new: Array) -> Array:
    """[FLOP] per layer group of attention (and index scoring) for `new` tokens on `cached` ones: `(*new, layers, 1)`, uncompressed.

    Causal full attention: 2 * query heads * (dk + dv) * (cached * new + new^2 / 2) per layer.
    """
    start, extra = jnp.asarray(cached)[..., None, None], jnp.asarray(new)[..., None, None]
    local = attended(architecture.window, jnp.ones_like(architecture.window), start, extra)
    globally = attended(architecture.select, architecture.global_rate, start, extra)
    index = attended(jnp.asarray(jnp.inf), architecture.index_rate, start, extra)
    return architecture.layer_count * (architecture.attention_flop * (local + globally) + architecture.index_flop * index)


class PromptShares(NamedTuple):
    """What a plan leaves of the work of a prompt."""

    linear: Array  # () of the linear layers
    attention: Array  # (layers, 1) of attention


def left_of_work(plan: Plan, effects: Effects) -> tuple[Array, Array]:
    """What is left of a prompt's work where the plan says so, in its shape: (linear layers, attention).

    A layer or token that is not computed leaves out its linear work too, a streaming head only attention.
    """
    layers = kept(plan.layer_keep, effects.layer, "prefill")
    tokens = kept(plan.token_keep, effects.token, "prefill")
    again = 1 + effects.extra_prefill
    return layers * tokens * again, layers * tokens**2 * kept(plan.head_keep, effects.head, "prefill") * plan.prefill_keep * again


def prompt_shares(architecture: Architecture, plan: Plan, effects: Effects) -> PromptShares:
    """What is left of a prompt's work, layer by layer."""
    linear, attention = left_of_work(plan, effects)
    if max(linear.ndim, attention.ndim) == 0:
        return PromptShares(linear, attention)
    heads = architecture.head_count / jnp.maximum(jnp.sum(architecture.head_count, axis=-1, keepdims=True), 1)
    by_layer = jnp.mean(linear * jnp.ones_like(architecture.head_count), axis=-1, keepdims=True)
    linear = jnp.sum(architecture.layer_count * by_layer) / jnp.sum(architecture.layer_count)
    return PromptShares(linear, jnp.sum(heads * attention, axis=-1, keepdims=True))


def prompt_flop(architecture: Architecture, shares: PromptShares, cached: Array, new: Array) -> tuple[Array, Array]:
    """[FLOP] of prefilling `new` tokens on `cached` ones, shape of `new`: (linear layers, attention). The output head is multiplied once per prompt."""
    linear = 2 * architecture.active_parameters * shares.linear * jnp.asarray(new) + 2 * architecture.head_parameters
    return linear, jnp.sum(attention_flop(architecture, cached, new) * shares.attention, axis=(-2, -1))


class Chunk(NamedTuple):
    """The prompt tokens that one step carries, and their work; any shape."""

    tokens: Array
    linear_flop: Array
    attention_flop: Array
    reread_bytes: Array  # of cache before it, over the group


def mixed_step_s(architecture: Architecture, costs: StepCosts, chunk: Chunk, batch: Array, kv_s: Array) -> Array:
    """[s] of one step that carries a chunk of a prompt beside `batch` decodes whose caches take `kv_s` in all.

    max(weights read, linear and attention FLOP) + the decodes' KV + the chunk's re-read of what is cached + overheads per layer and request + communication.
    """
    tokens = batch + chunk.tokens
    compute = chunk.linear_flop * costs.linear_flop + batch * costs.token + chunk.attention_flop * costs.attention_flop
    weights = weights_s(architecture, costs, tokens, compute)
    return weights + kv_s + chunk.reread_bytes * costs.kv_byte + costs.prefill_overhead + batch * costs.sequence + tokens * costs.exchange


def alone_s(architecture: Architecture, costs: StepCosts, shares: PromptShares, tokens: Array) -> Array:
    """[s] to prefill `tokens` tokens alone and in one piece, with what a plan leaves of the work. Shape of `tokens`."""
    n = jnp.asarray(tokens)
    nothing = jnp.zeros_like(n)
    linear, attention = prompt_flop(architecture, shares, nothing, n)
    return mixed_step_s(architecture, costs, Chunk(n, linear, attention, nothing), nothing, nothing)


def prefill_s(system: System, plan: Plan, effects: Effects, schedule: Schedule, tokens: Array) -> Array:
    """[s] of a plan for the same: the paper's prefill latency."""
    return alone_s(system.architecture, step_costs(system, schedule), prompt_shares(system.architecture, plan, effects), tokens)
