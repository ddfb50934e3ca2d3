"""Weights of the ranks: shards of layers and embeddings, pipeline stages, quantised linear layers, and buffers loaded beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kvopt.capacity.deployment import GIB, Deployment
from kvopt.errors import BadInput
from kvopt.inputs.model import BYTES_PER_EMBEDDING, BYTES_PER_PARAMETER, ModelSpec

ROPE = 64  # values of a latent that carry positions (DeepSeek-V2 and its descendants)


@dataclass(frozen=True)
class Stage:
    """What one rank of one pipeline stage holds."""

    layers: int
    bytes: float
    last: bool  # it owns the output head, and so the sampler


def stages(deployment: Deployment) -> tuple[Stage, ...]:
    """The first and the last stage, or the only one: between them lies the rank that decides. Raises `BadInput` where parameters are unknown."""
    model, count = deployment.model, deployment.pp
    layers = deployment.stages or (-(-model.layers // count),) * count
    embedding, total = model.parameters.embedding, model.parameters.total
    if total is None or embedding is None or model.hidden is None or model.vocabulary is None:
        raise BadInput("model", model.id, "parameter counts are not known")
    head = model.parameters.head or 0
    tied = embedding < 2 * head or not head
    found = []
    for index in sorted({0, count - 1}):
        held = layers[index] / model.layers
        share = embedding if count == 1 or tied else embedding / 2
        found.append(Stage(layers[index], _rank_bytes(deployment, held, share), index == count - 1))
    return tuple(found)


def _rank_bytes(deployment: Deployment, held: float, embedding: float) -> float:
    """[bytes] per rank: `held` of the layers, `embedding` parameters in 16 bit, and tables of rotary positions on every rank.

    Expert layers are cut over the ranks of all replicas, the rest over those of one (vLLM: data-parallel attention with expert parallelism).
    """
    model = deployment.model
    expert = model.parameters.expert or 0
    linear = BYTES_PER_PARAMETER[deployment.weights]
    narrow = linear if not deployment.experts_only else BYTES_PER_EMBEDDING
    dense = (model.parameters.total or 0) - expert - (model.parameters.embedding or 0)
    embeddings = embedding * max(BYTES_PER_EMBEDDING, linear)
    layers = held * (expert * linear * padding(deployment) / deployment.dp + dense * narrow)
    copied = held * (latent_copies(deployment, narrow) + absorbed(deployment))
    return max((layers + embeddings) / deployment.tp + copied + beside(deployment) - deployment.offloaded_bytes, 0.0)


def padding(deployment: Deployment) -> float:
    """How much larger MXFP4 experts are once loaded: vLLM rounds their width on a rank up to 128 and the model's to 256 (quantization/mxfp4.py).

    gpt-oss-20b on 1, 2 and 4 H100: 13.64, 7.01 and 3.63 GiB.
    """
    model = deployment.model
    if deployment.weights != "mxfp4" or not model.routed:
        return 1.0
    inner, hidden = expert_width(model) / deployment.tp, model.hidden or 0
    return math.ceil(inner / 128) * 128 / inner * math.ceil(hidden / 256) * 256 / hidden


def expert_width(model: ModelSpec) -> float:
    """Feed-forward width of one expert: its parameters are three matrices, in nearly all layers."""
    return (model.parameters.expert or 0) / (3 * (model.hidden or 1) * (model.experts or 1) * model.layers)


def beside(deployment: Deployment) -> float:
    """[bytes] on every rank: cosines and sines of the stated context (vLLM: max_position x rotary width x 2 B), and the encoders, cut as the layers are."""
    model, tower = deployment.model, deployment.tower
    width = ROPE if latent_width(deployment) else max((kind.key_width for kind in model.kinds.values() if kind.kv_heads), default=0)
    rotary = min(model.max_context or 0, 262144) * min(width, 256) * deployment.bytes_per_element
    if tower is None:
        return float(rotary)
    tables = tower.rotary_gib.value * GIB * min(width, 256) / 256 if tower.rotary_gib else 0.0
    return rotary + tables + tower.parameters.value * max(BYTES_PER_EMBEDDING, deployment.bytes_per_element) / deployment.tp


def latent_copies(deployment: Deployment, element: float) -> float:
    """[bytes] that a rank holds of MLA's down projections beyond its share: they are copied on every rank (vLLM: ReplicatedLinear).

    The query's rank is not kept in a `ModelSpec`: three times the latent's in models of 64 heads and more (DeepSeek-V3 1,536 of 512), none in small ones.
    """
    model, width = deployment.model, latent_width(deployment)
    query = 3 * (width - ROPE) if width and model.query_heads >= 64 else 0
    whole = model.layers * (model.hidden or 0) * (width + query) * element
    return whole * (1 - 1 / deployment.tp)


def absorbed(deployment: Deployment) -> float:
    """[bytes] of MLA's up projections kept a second time, in 16 bit, for decoding over the latent (vLLM: process_weights_after_loading)."""
    latents = [
        (kind, repeat) for name, repeat in deployment.model.order if (kind := deployment.model.kinds[name]).kv_heads == 1 and kind.value_width == 0
    ]
    copies = sum(repeat * (kind.attention_flop / 2 - kind.query_heads * ROPE) * (kind.key_width - ROPE) for kind, repeat in latents)
    return copies * BYTES_PER_EMBEDDING / deployment.tp


def latent_width(deployment: Deployment) -> int:
    """Width of the latent that MLA caches, rope included; 0 in models without one."""
    return next((kind.key_width for kind in deployment.model.kinds.values() if kind.kv_heads == 1 and kind.value_width == 0), 0)
