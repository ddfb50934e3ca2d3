"""How the dimensions' losses add up, at any confidence.

Retained scores multiply, so log losses add: over the measured pairs of dimensions (QPruningKV token x bits, exllamav2 weights x KV, vLLM FP8 x FP8,
MLKV head x layer) the product predicts the joint score within .028, the sum of losses within .049. Two pairs need a term of their own, see
`Interactions`. No published source measures three compressed dimensions at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from objectives.accuracy.heads import Ranking, head_loss, weighted_mean
from objectives.accuracy.proxies import BitsLoss, KeepLoss, bits_loss, keep_loss
from objectives.types import PerHead, Plan, Scalar, pytree

CORRELATION = (
    0.3  # of what dimensions lose beyond their medians: the model's share of the spread, .1-.5 over the fitted curves, is common to all (derived)
)
TINY = 1e-7  # loss below which a spread is none: keeps the slope of the square root finite


@pytree
class Interactions:
    """Losses of two dimensions together beyond their sum. Leaves are scalars."""

    rank_bits: Scalar  # rho: added is rho * L_rank / (1 + L_rank) * max(0, (8 - b)/4)
    eviction_low_bits: Scalar  # loss per bit below 3 and share of tokens evicted
    log_sd: Scalar  # spread of ln of what these two add
    composed_log_sd: Scalar = 0.0  # spread of ln of the whole loss where dimensions are combined; 0 for one alone


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
    """The log loss of each dimension, all scalars."""

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
    ranking: Ranking | None = None  # scores of the heads, for `head_keep`; None: the heads kept are those that matter most


def losses(plan: Plan, accuracy: Accuracy, shares: Shares | None = None, z: Scalar = 0.0) -> Losses:
    """The log loss of each dimension of a plan, its fields `()`, `(layers, 1)` or `(layers, heads)`. Equal weights by default.

    Tokens, rank, bits and sparse prefill may differ anywhere in degree: their loss is the weighted mean of the curve over layers and heads. Layers
    and heads are kept or not, one by one, and their measurements are over the share that is kept: their loss is the curve at the mean share, so that
    a plan of zeros and ones is what it was measured as. With scores of the heads the curve is read where as much of the score is kept
    (`objectives.accuracy.heads`). A uniform plan has the same loss however it is written.

    At z standard deviations of ln L, each dimension by itself; `retained_at` puts them together. z = 1.28 for 90 % confidence, 0 for the median, negative
    for a lower bound of the loss. Without compression every loss is exactly 0 at any z.
    """
    shares = Shares(layer=1.0, head=1.0, content=1.0) if shares is None else shares
    token = keep_loss(plan.token_keep, accuracy.token, z)
    rank = (keep_loss(plan.key_rank, accuracy.rank, z) + keep_loss(plan.value_rank, accuracy.rank, z)) / 2
    found = Losses(
        layer=keep_loss(weighted_mean(plan.layer_keep, shares.layer), accuracy.layer, z),
        head=head_loss(plan.head_keep, shares.head, accuracy.head, shares.ranking, z),
        token=weighted_mean(token, shares.content),
        rank=weighted_mean(rank, shares.content),
        prefill=weighted_mean(keep_loss(plan.prefill_keep, accuracy.prefill, z), shares.content),
        bits=weighted_mean(bits_loss(plan.key_bits, plan.value_bits, accuracy.bits, z), shares.content),
        interactions=weighted_mean(together(plan, rank, accuracy.interactions) * jnp.exp(z * accuracy.interactions.log_sd), shares.content),
    )
    if isinstance(z, float) and z == 0:
        return found
    combined = jnp.exp(z * accuracy.interactions.composed_log_sd)
    return jax.tree.map(lambda loss: loss * combined, found)


def together(plan: Plan, rank_loss: PerHead, pair: Interactions) -> Float[Array, ...]:
    """The log loss of rank with few bits, and of eviction with less than 3, beyond their sum; the shape that plan and `rank_loss` broadcast to."""
    mean_bits = (jnp.asarray(plan.key_bits) + plan.value_bits) / 2
    both = pair.rank_bits * rank_loss / (1 + rank_loss) * jnp.maximum(0.0, (8 - mean_bits) / 4)
    return both + pair.eviction_low_bits * jnp.maximum(0.0, 3 - mean_bits) * (1 - jnp.asarray(plan.token_keep))


def retained(loss: Losses, checkpoint_retained: Scalar = 1.0) -> Float[Array, ""]:
    """Share of the 16-bit, uncompressed model's accuracy that is kept: exp(-sum of the losses) times the checkpoint's own."""
    return jnp.exp(-sum(jax.tree.leaves(loss))) * checkpoint_retained


def retained_at(middle: Losses, edge: Losses, checkpoint_retained: Scalar = 1.0) -> Float[Array, ""]:
    """Retained accuracy of a whole plan at the confidence of `edge`; `middle` is the same plan's losses at the median.

    Dimensions need not be at their worst together: what each may lose beyond its median adds up like spreads that have `CORRELATION` in common. One dimension
    alone is exactly at its own edge, and without compression the result is exactly the checkpoint's.
    """
    # plain sums: a stacked axis would be written to memory, which costs more than all else here
    beyond = [jnp.asarray(high - low) for high, low in zip(jax.tree.leaves(edge), jax.tree.leaves(middle), strict=True)]
    whole = sum(beyond, jnp.zeros(()))
    squares = sum((one * one for one in beyond), jnp.zeros(()))
    joint = jnp.sqrt((1 - CORRELATION) * squares + CORRELATION * whole * whole + TINY**2) - TINY
    return retained(middle, checkpoint_retained) * jnp.exp(-jnp.sign(whole) * joint)
