"""The small pytrees that the mathematics takes, SI units throughout (bytes, seconds, FLOP/s, bytes/s, tokens).

Every leaf is an array or a float that broadcasts. Axes are named in the field comments:

    ()                  a scalar, the same for the whole model
    (layers,)           one entry per layer group
    (layers, heads)     one entry per layer group and KV-head group
    (atoms,)            one entry per session atom of the workload

A *layer group* stands for `layer_count` identical layers, a *head group* for `head_count` identical KV heads, so that a uniform plan on a dense
model costs one layer and one head, and a per-layer, per-head plan is the same code on an architecture whose counts are all one
(`kvopt.inputs.model.ModelSpec.architecture(per_layer=True)`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import jax
from jaxtyping import Array, Float

Scalar = Float[Array, ""] | float
PerHead = Float[Array, "#layers #heads"] | Float[Array, ""] | float
T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass whose fields are all pytree leaves or subtrees."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True, kw_only=True)(cls))  # type: ignore[return-value]


def replace(tree: T, **changes: Any) -> T:
    """`dataclasses.replace`, under the name that readers of pytrees expect."""
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]


@pytree
class Architecture:
    """What of a model decides memory, traffic and work. Layer arrays are `(layers, 1)`, `head_count` is `(layers, heads)`.

    A layer holds, of a context of n tokens, `min(n, window)` local entries and `global_rate * n` global ones: full attention is
    window 0 and rate 1, a sliding or chunked window is window w and rate 0, DeepSeek-V4 is window 128 and rate 1/4 or 1/128. Attention reads all
    local entries and at most `select` of the global ones (DeepSeek sparse attention: 2048; infinite elsewhere).
    """

    layer_count: Array  # (layers, 1) how many layers the group stands for
    head_count: Array  # (layers, heads) KV heads that attention reads, in each head group; 0 in layers without attention
    stores: Array  # (layers, 1) 1 where the layer stores its own KV, 0 where it reads another layer's
    key_width: Array  # (layers, 1) elements of K per token and KV head (MLA: latent + rope)
    value_width: Array  # (layers, 1) elements of V per token and KV head (MLA and shared K=V: 0)
    window: Array  # (layers, 1) local entries held at most, tokens; 0 where attention is global
    global_rate: Array  # (layers, 1) global entries per token of context
    select: Array  # (layers, 1) global entries read per query at most; inf where all are
    index_width: Array  # (layers, 1) elements of an index key per token (sparse attention), not compressed by the plan
    index_rate: Array  # (layers, 1) index keys per token of context
    attention_flop: Array  # (layers, 1) FLOP per query token and key entry attended, prefill: 2 * query heads * (dk + dv)
    decode_flop: Array  # (layers, 1) the same while decoding (absorbed MLA: over the latent)
    index_flop: Array  # (layers, 1) FLOP per query token and index key scored
    state_bytes: Array  # (layers, 1) bytes of constant state per sequence (linear attention, Mamba, convolutions)
    layers: Scalar  # all layers, those without attention too: each costs a launch
    hidden: Scalar  # model width
    intermediate: Scalar  # widest feed-forward width of one token (activation memory)
    vocabulary: Scalar
    query_heads: Scalar
    parameters: Scalar  # all stored parameters, embeddings included
    embedding_parameters: Scalar  # input embedding plus output head (kept in 16 bit by most quantised checkpoints)
    head_parameters: Scalar  # output head alone: multiplied once per prompt, and at every decoded token
    expert_parameters: Scalar  # of `parameters`, those in routed experts
    active_parameters: Scalar  # touched by one token, without input embedding and output head
    experts: Scalar  # routed experts per layer; 1 in a dense model
    experts_per_token: Scalar


@pytree
class Accelerator:
    """One accelerator and what links it to its peers and its host. Peaks are dense."""

    peak_flops: Scalar  # [FLOP/s] at the precision that the weights are multiplied in
    peak_flops_16bit: Scalar  # [FLOP/s] bf16: attention
    memory_bytes: Scalar  # [bytes] that the driver reports
    memory_bandwidth: Scalar  # [bytes/s]
    scaleup_bandwidth: Scalar  # [bytes/s] one way, to the peers of a tensor-parallel group
    host_bandwidth: Scalar  # [bytes/s] one way, to host memory
    host_memory_bytes: Scalar  # [bytes] of host memory per accelerator, for parked caches
    host_full_duplex: Scalar  # 1 where the host link carries both directions at once
    price_per_hour: Scalar  # [USD/h]
    power: Scalar  # [W] board power


@pytree
class Efficiency:
    """What share of the peaks an engine reaches, and what it adds. `peak` fidelity: shares 1, times and reserves 0."""

    mfu: Scalar  # linear layers, share of peak_flops
    mfu_attention: Scalar  # prefill attention, share of peak_flops_16bit
    mbu: Scalar  # weights, share of memory_bandwidth
    mbu_kv: Scalar  # KV cache, share of memory_bandwidth
    mfu_experts: Scalar  # routed experts (grouped products), share of peak_flops
    unhidden: Scalar  # share of the shorter of reading weights and multiplying them that the longer one does not hide
    ramp_tokens: Scalar  # [tokens] by which the dense products of a step are rounded up (tiles and waves of a kernel)
    expert_ramp_tokens: Scalar  # [tokens] the same, for each routed expert that a step touches
    prefill_layer_s: Scalar  # [s] tau_p, per layer of a step that carries prompt tokens
    decode_layer_s: Scalar  # [s] tau_d, per layer of a decode step
    parallel_layer_s: Scalar  # [s] tau_tp, per layer, added when more than one rank shares a layer
    sequence_s: Scalar  # [s] per request and step: sampling and bookkeeping
    server_s: Scalar  # [s] constant in TTFT: tokenise, schedule, stream
    allreduce: Scalar  # share of the one-way scale-up bandwidth
    host_link: Scalar  # share of the one-way host bandwidth that parking and resuming reach
    exposed_switch: Scalar  # share of the context-switch time in which the group computes nothing
    append_only: Scalar  # 1: only tokens new since the last parking go out; 0: the whole cache does
    memory_fraction: Scalar  # share of memory the engine may use
    pool_fraction: Scalar  # share of what is then left that becomes the pool (TensorRT-LLM, LMDeploy: a share of free memory)
    context_bytes: Scalar  # [bytes] per GPU taken inside that share before any weight (non-torch memory, graphs), one rank
    parallel_bytes: Scalar  # [bytes] the same, added when more than one rank communicates
    sampler_bytes: Scalar  # [bytes] per sequence and vocabulary entry, activation peak of the sampler
    activation_bytes: Scalar  # [bytes] per token of a step and unit of width, activation peak of a layer
    prefill_log_sd: Scalar  # spread of ln(measured/predicted) of prefill and TTFT
    decode_log_sd: Scalar  # the same, of decode steps and TPOT
    memory_sd_bytes: Scalar  # [bytes] spread of the measured KV pool per GPU


@pytree
class Workload:
    """Sessions, as weighted atoms of shape `(atoms,)`: a prompt, then `turns` questions and answers with think time between.

    The first question comes with the prompt; a session ends at prompt + turns * (question + answer) tokens.
    """

    weight: Array  # share of the sessions; sums to 1
    prompt: Array  # [tokens]
    turns: Array
    question: Array  # [tokens] per turn
    answer: Array  # [tokens] per turn
    think_s: Array  # [s] between an answer and the next question
    shared_prefix: Array  # [tokens] of the prompt that other sessions have too
    reuse_tokens: Array  # (points,) [tokens] cache devoted to shared prefixes, rising
    reuse_hits: Array  # (points,) share of the shared-prefix tokens found in a cache of that size, rising, in [0, 1]


@pytree
class Cuts:
    """Which of the four sums a method cuts: 1 where its keep ratio applies in full, 0 where it does not."""

    stored: Scalar
    read: Scalar
    moved: Scalar
    prefill: Scalar
    late: Scalar = 0.0  # 1 where nothing is cut until the whole prompt is prefilled


@pytree
class Effects:
    """What the chosen methods, one per dimension, do with the plan's ratios."""

    layer: Cuts
    head: Cuts
    token: Cuts
    rank: Cuts
    bits: Cuts
    streaming_tokens: Scalar  # [tokens] sink + recent window kept by a streaming head
    scale_bits_per_element: Scalar  # quantisation scales, bits per stored element (group-wise scales)
    scale_bits_per_vector: Scalar  # the same, bits per token, head and tensor (per-token-head scales)
    read_efficiency: Scalar  # speed of reading this cache, bytes/s over those of a 16-bit cache
    score_read: Scalar  # share of the full K read at every step to choose what to read
    reconstruct: Scalar  # 1 where low-rank K and V are expanded at every step
    extra_prefill: Scalar  # extra prefill work, as a share of the prompt's own (KVzip: 1)


@pytree
class Plan:
    """The compression plan, relaxed. Each field is () or (layers, 1) or (layers, heads); all ones and 16 bits is uncompressed."""

    layer_keep: PerHead  # share of the layers that store their own KV
    head_keep: PerHead  # 1: retrieval head, whole context; 0: streaming head
    token_keep: PerHead  # share of the tokens kept
    key_rank: PerHead  # share of K's width kept
    value_rank: PerHead  # share of V's width kept
    key_bits: PerHead  # bits per element of K, without scales
    value_bits: PerHead
    prefill_keep: PerHead  # share of the prompt's attention work done (sparse prefill)


@pytree
class Schedule:
    """How the GPUs are grouped and how sessions are scheduled on one group."""

    tensor_parallel: Scalar  # ranks that share every layer
    pipeline_parallel: Scalar  # stages
    replicas: Scalar  # groups of tensor_parallel * pipeline_parallel GPUs
    context_parallel: Scalar  # decode-context parallelism: ranks of the group that split the tokens of a KV head
    attention_data_parallel: Scalar  # ranks of the group that hold whole sessions (attention replicated)
    expert_parallel: Scalar  # 1: experts whole on their rank, all-to-all; 0: every expert cut over the ranks, all-reduce
    prefill_groups: Scalar  # of `replicas`, how many only prefill; 0: every group does both
    batch: Scalar  # mean number of decodes in flight per group: the outcome of the session rate, see session.py
    max_sequences: Scalar  # cap on the requests in flight per group
    chunk: Scalar  # [tokens] of a prompt per step
    idle_resident: Scalar  # share of the thinking sessions whose cache stays in HBM
    idle_parked: Scalar  # of the others: share parked in host memory; the rest is dropped and recomputed
    prefix_cache_tokens: Scalar  # [tokens] of shared prefixes held


@pytree
class Checkpoint:
    """How the weights are stored."""

    bytes_per_parameter: Scalar  # linear layers
    bytes_per_embedding: Scalar  # embeddings and output head
    retained: Scalar  # accuracy of this checkpoint over the 16-bit one's


@pytree
class System:
    """Everything given: what is served, on what, by which engine, to whom."""

    architecture: Architecture
    accelerator: Accelerator
    efficiency: Efficiency
    checkpoint: Checkpoint
    workload: Workload
