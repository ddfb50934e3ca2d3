"""How the dimensions' losses add up, and a lower bound on what is retained.

Retained scores multiply, so log losses add: over the measured pairs of dimensions (QPruningKV token x bits, exllamav2 weights x KV, vLLM FP8 x FP8,
MLKV head x layer) the product predicts the joint score within .028, the sum of losses within .049. Two pairs need a term of their own, see
`Interactions`. No published source measures three compressed dimensions at once.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from objectives.accuracy.proxies import BitsLoss, KeepLoss, bits_loss, keep_loss
from objectives.types import PerHead, Plan, Scalar, pytree

_NAMES = ("layer", "head", "token", "rank", "prefill", "bits", "interactions")


@pytree
class Interactions:
    """Losses of two dimensions together beyond their sum. Leaves are scalars."""

    rank_bits: Scalar  # rho: L_rank is larger by rho * max(0, (8 - b)/4); K-only PCA x 4 bit (Qwen3-14B perplexity): .15-.5
    eviction_low_bits: Scalar  # loss per bit below 3 and share of tokens evicted; QPruningKV 2 bit x eviction: 2-bit scores x .44-.63
    log_sd: Scalar


@pytree
class Accuracy:
    """The curves of one choice of methods, for one task family, context length and knowledge of the question."""

    layer: KeepLoss
    head: KeepLoss
    token: KeepLoss
    rank: KeepLoss
    prefill: KeepLoss
    bits: BitsLoss
    interactions: Interactions


@pytree
class Losses:
    """One number for each dimension, all scalars: log losses, or factors on them."""

    layer: Scalar
    head: Scalar
    token: Scalar
    rank: Scalar
    prefill: Scalar
    bits: Scalar
    interactions: Scalar


@pytree
class Shares:
    """Weights of layers and heads in a plan's mean loss, of shapes that broadcast to `(layers, heads)`; only their ratios matter.

    For layer and head groups of unequal size, the number of heads each stands for; or how sensitive each is.
    """

    layer: PerHead  # of layers, for `layer_keep`
    head: PerHead  # of KV heads, for `head_keep`
    content: PerHead  # for tokens, rank, bits and sparse prefill


def losses(plan: Plan, accuracy: Accuracy, shares: Shares | None = None) -> Losses:
    """The log loss of each dimension of a plan, its fields `()`, `(layers, 1)` or `(layers, heads)`. Equal weights by default.

    Tokens, rank, bits and sparse prefill may differ anywhere in degree: their loss is the weighted mean of the curve over layers and heads. Layers
    and heads are kept or not, one by one, and their measurements are over the share that is kept: their loss is the curve at the mean share, so that
    a plan of zeros and ones is what it was measured as. A uniform plan has the same loss however it is written.
    """
    shares = Shares(layer=1.0, head=1.0, content=1.0) if shares is None else shares
    token = keep_loss(plan.token_keep, accuracy.token)
    rank = (keep_loss(plan.key_rank, accuracy.rank) + keep_loss(plan.value_rank, accuracy.rank)) / 2
    bits = bits_loss(plan.key_bits, plan.value_bits, accuracy.bits)
    mean_bits = (jnp.asarray(plan.key_bits) + plan.value_bits) / 2
    pair = accuracy.interactions
    both = pair.rank_bits * rank * jnp.maximum(0.0, (8 - mean_bits) / 4)
    both = both + pair.eviction_low_bits * jnp.maximum(0.0, 3 - mean_bits) * (1 - jnp.asarray(plan.token_keep))
    return Losses(
        layer=keep_loss(_mean(plan.layer_keep, shares.layer), accuracy.layer),
        head=keep_loss(_mean(plan.head_keep, shares.head), accuracy.head),
        token=_mean(token, shares.content),
        rank=_mean(rank, shares.content),
        prefill=_mean(keep_loss(plan.prefill_keep, accuracy.prefill), shares.content),
        bits=_mean(bits, shares.content),
        interactions=_mean(both, shares.content),
    )


def retained(loss: Losses, checkpoint_retained: Scalar = 1.0) -> Float[Array, ""]:
    """Share of the 16-bit, uncompressed model's accuracy that is kept: exp(-sum of the losses) times the checkpoint's own."""
    total = loss.layer + loss.head + loss.token + loss.rank + loss.prefill + loss.bits + loss.interactions
    return jnp.exp(-total) * checkpoint_retained


def widening(accuracy: Accuracy, z: Scalar) -> Losses:
    """What each loss may be multiplied by at z standard deviations of ln L. Does not depend on the plan: compute it outside a search's loop."""
    spreads = (getattr(accuracy, name).log_sd for name in _NAMES)
    return Losses(**{name: jnp.exp(z * jnp.asarray(sd)) for name, sd in zip(_NAMES, spreads, strict=True)})


def lower(loss: Losses, widened: Losses, checkpoint_retained: Scalar = 1.0) -> Float[Array, ""]:
    """Retained accuracy when every loss is as large as `widening` allows: exp(-sum_d L_d e^(z sd_d)).

    Conservative: it takes all dimensions to be at their worst at once. Like the mean it is exactly 1 without compression, because the
    interval is on ln L. z = 1.28 for 90 % confidence, 0 for the median; negative for an upper bound.
    """
    return retained(Losses(**{name: getattr(loss, name) * getattr(widened, name) for name in _NAMES}), checkpoint_retained)


def _mean(values: PerHead, weights: PerHead) -> Float[Array, ""]:
    """Weighted mean over layers and heads, the weights broadcast to the values and the values to the weights; a scalar passes through as it is."""
    values, weights = jnp.asarray(values), jnp.asarray(weights)
    if values.ndim == 0:
        return values
    # Deviations from one entry are averaged, so that equal entries come out exactly as they went in.
    first = values[(0,) * values.ndim]
    spread = jnp.broadcast_arrays(values - first, weights)
    return first + jnp.sum(spread[0] * spread[1]) / jnp.sum(spread[1])
