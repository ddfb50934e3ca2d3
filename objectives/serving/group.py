"""What a step costs on one tensor-parallel group: the coefficients that prefill and decode steps share."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.types import Architecture, Checkpoint, Schedule, System


class StepCosts(NamedTuple):
    """Seconds per unit of what a step does, on all ranks of the group together. Scalars."""

    dense_read: Array  # reading all weights but routed experts once
    experts_read: Array  # reading all routed experts once
    linear_flop: Array  # per FLOP of the linear layers, routed experts in their share
    ramp: Array  # what the dense products of a step are rounded up by
    experts_ramp: Array  # the same for the routed experts, were all of them touched
    unhidden: Array  # share of the shorter of reading and multiplying weights that shows
    attention_flop: Array  # per FLOP of attention
    token: Array  # per token: the linear work of a decoded one, output head included
    sequence: Array  # per request of a step
    kv_byte: Array  # per byte of cache read
    exchange: Array  # per token: what the ranks say to each other
    prefill_overhead: Array  # per step that carries prompt tokens
    decode_overhead: Array  # per step that carries none


def dense_bytes(architecture: Architecture, checkpoint: Checkpoint) -> Array:
    """[bytes] of everything but routed experts and embeddings, held once."""
    dense = architecture.parameters - architecture.expert_parameters - architecture.embedding_parameters
    return jnp.asarray(dense * checkpoint.bytes_per_parameter)


def weight_bytes(architecture: Architecture, checkpoint: Checkpoint, copies: Array | float = 1.0) -> Array:
    """[bytes] of the weights over one group. `copies`: attention data parallelism holds the dense part that many times."""
    embeddings = architecture.embedding_parameters * checkpoint.bytes_per_embedding
    return dense_bytes(architecture, checkpoint) * copies + architecture.expert_parameters * checkpoint.bytes_per_parameter + embeddings


def experts_hit(architecture: Architecture, tokens: Array) -> Array:
    """Share of the routed experts that a step of `tokens` tokens touches: 1 - (1 - k/E)^tokens, for uniform independent routing."""
    miss = 1 - architecture.experts_per_token / architecture.experts
    return 1 - jnp.where(miss > 0, jnp.exp(jnp.maximum(tokens, 1.0) * jnp.log(jnp.maximum(miss, 1e-6))), 0.0)


def exchanged_bytes(architecture: Architecture, schedule: Schedule) -> Array:
    """[bytes] per token that a rank sends in a step, 16-bit activations.

    Tensor parallel: two ring all-reduces per layer, each moving 2(n-1)/n of the activations. Attention data parallel: the attention's all-reduce stays
    among the ranks that share a session. Expert parallel: dispatch and combine to at most `experts_per_token` ranks instead of the second one.
    Decode-context parallel: queries and partial outputs are exchanged once more.
    """
    ranks, replicas = jnp.asarray(schedule.tensor_parallel), jnp.asarray(schedule.attention_data_parallel)
    attention = 2 * (1 - replicas / ranks) / replicas
    reduced = 2 * (1 - 1 / ranks)
    dispatched = reduced / ranks * jnp.minimum(architecture.experts_per_token, ranks)
    feed_forward = reduced + schedule.expert_parallel * (dispatched - reduced)
    context = 2 * (1 - 1 / jnp.asarray(schedule.context_parallel))
    return architecture.layers * architecture.hidden * 2 * (attention + feed_forward + context)


def step_costs(system: System, schedule: Schedule) -> StepCosts:
    """The coefficients of a system on one group."""
    architecture, accelerator, efficiency, checkpoint = system.architecture, system.accelerator, system.efficiency, system.checkpoint
    ranks = jnp.asarray(schedule.tensor_parallel)
    weights_bandwidth = efficiency.mbu * accelerator.memory_bandwidth * ranks
    dense = dense_bytes(architecture, checkpoint) * schedule.attention_data_parallel + architecture.head_parameters * checkpoint.bytes_per_embedding
    dense_flop = 1 / (efficiency.mfu * accelerator.peak_flops * ranks)
    expert_flop = 1 / (efficiency.mfu_experts * accelerator.peak_flops * ranks)
    routed = architecture.expert_parameters * architecture.experts_per_token / architecture.experts  # parameters that one token multiplies
    unrouted = architecture.active_parameters - routed
    linear_flop = (unrouted * dense_flop + routed * expert_flop) / architecture.active_parameters
    collectives = jnp.minimum(ranks - 1, 1.0) + jnp.minimum(schedule.context_parallel - 1, 1.0)
    parallel = architecture.layers * efficiency.parallel_layer_s * collectives
    # over an unknown link next to nothing: one rank sends nothing and does not care
    link = jnp.where(jnp.isnan(accelerator.scaleup_bandwidth), 1.0, accelerator.scaleup_bandwidth)
    return StepCosts(
        dense_read=dense / weights_bandwidth,
        experts_read=architecture.expert_parameters * checkpoint.bytes_per_parameter / weights_bandwidth,
        linear_flop=linear_flop,
        ramp=2 * unrouted * dense_flop * efficiency.ramp_tokens,
        experts_ramp=2 * architecture.expert_parameters * expert_flop * efficiency.expert_ramp_tokens,
        unhidden=jnp.asarray(efficiency.unhidden),
        attention_flop=1 / (efficiency.mfu_attention * accelerator.peak_flops_16bit * ranks),
        token=2 * (architecture.active_parameters * linear_flop + architecture.head_parameters * dense_flop),
        sequence=jnp.asarray(efficiency.sequence_s),
        kv_byte=1 / (efficiency.mbu_kv * accelerator.memory_bandwidth * ranks),
        exchange=exchanged_bytes(architecture, schedule) / (efficiency.allreduce * link),
        prefill_overhead=architecture.layers * efficiency.prefill_layer_s + parallel,
        decode_overhead=architecture.layers * efficiency.decode_layer_s + parallel,
    )


def weights_s(architecture: Architecture, costs: StepCosts, tokens: Array, compute_s: Array) -> Array:
    """[s] of a step of `tokens` tokens for its weights: reading those it touches, and `compute_s` of multiplying, the longer of the two and what shows of
    the shorter. Products are rounded up to tiles: by some tokens in all, and by some for each routed expert that is touched.
    """
    hit = experts_hit(architecture, tokens)
    read_s = costs.dense_read + costs.experts_read * hit
    multiply_s = compute_s + costs.ramp + costs.experts_ramp * hit
    return jnp.maximum(read_s, multiply_s) + costs.unhidden * jnp.minimum(read_s, multiply_s)
