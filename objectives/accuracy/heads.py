"""What layers and heads that are not alike do to accuracy: scores say how much each KV head matters, and a plan is judged by what it keeps of them.

Published curves of head methods (DuoAttention) were measured with the heads *ranked* by their own scores: the curve at k is the loss of keeping the k
heads that matter most, not any k. A plan with scores is therefore read at the ranked share that holds as much of the score as it does.
Curves of token budgets, precisions and ranks were measured with every head alike: there a head's share of the loss is its importance.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from objectives.accuracy.proxies import KeepLoss, keep_loss
from objectives.types import PerHead, Scalar, pytree, replace

BISECTIONS = 60  # halvings of a logarithm: beyond the precision of float64


@pytree
class Concentration:
    """How unequal the scores of a model's heads are: F(k), the share of the score that the k heads with the highest scores hold. Leaves are scalars.

    F(k) = k / [m^p + (1 - m^p) k^p]^(1/p): it leaves 0 with slope 1/m and bends, the more sharply the larger p, to 1. m = 1 is heads that are all
    alike, F(k) = k. It has finite slopes at both ends (1/m and m^p) and a closed inverse.
    """

    scale: Scalar  # m in (0, 1]: about the share of the heads that matter
    bend: Scalar  # p >= 1
    headroom: Scalar  # a plan may be read at most at so many times the share of heads that it keeps


@pytree
class Ranking:
    """How much each KV head matters to what a head method drops."""

    score: PerHead  # of each head, 0 or more; only their ratios matter
    heads: Concentration  # of the models on which the method was measured


def score_held(keep: Float[Array, ...] | float, heads: Concentration) -> Float[Array, ...]:
    """F(k): the share of the score that the `keep` heads with the highest scores hold. Shape of `keep`, in [0, 1]."""
    first = jnp.power(heads.scale, heads.bend)
    return jnp.asarray(keep) / jnp.power(first + (1 - first) * jnp.power(keep, heads.bend), 1 / heads.bend)


def ranked_share(score: Float[Array, ...] | float, heads: Concentration) -> Float[Array, ...]:
    """The inverse of `score_held`: the share of heads, ranked, that holds so much of the score. Exactly 1 at 1, and the score itself where m = 1."""
    over = jnp.power(heads.scale, -heads.bend) - 1
    return jnp.asarray(score) / jnp.power(1 + over * (1 - jnp.power(score, heads.bend)), 1 / heads.bend)


def equivalent_share(keep: PerHead, shares: PerHead, ranking: Ranking) -> Float[Array, ""]:
    """The ranked share of heads at which the curve of a head method is read, for a plan that keeps `keep` of each head.

    `keep` is () or (layers, heads) in [0, 1]; `shares`, the number of heads each entry stands for, broadcasts to it. The plan's score is
    S = sum(score * keep) / sum(score), and the share is F^-1(S): about k where it keeps the best k of the heads, less where it keeps any k.
    """
    held = ranked_share(weighted_mean(keep, jnp.asarray(ranking.score) * shares), ranking.heads)
    return jnp.minimum(held, ranking.heads.headroom * weighted_mean(keep, shares))


def head_loss(keep: PerHead, shares: PerHead, curve: KeepLoss, ranking: Ranking | None = None, z: Scalar = 0.0) -> Float[Array, ""]:
    """Log loss of keeping `keep` of each head, at z standard deviations of ln L.

    It is the measured curve at the share of heads kept or, with scores, at the equivalent ranked share. The curve's floor is what any dropping costs,
    whatever is dropped: it stays at the share of heads that is really kept.
    """
    mean = weighted_mean(keep, shares)
    if ranking is None:
        return keep_loss(mean, curve, z)
    return keep_loss(equivalent_share(keep, shares, ranking), replace(curve, floor=0.0), z) + keep_loss(mean, replace(curve, amplitude=0.0), z)


def importance(score: Float[Array, ...], score_weight: Scalar) -> Float[Array, ...]:
    """Each head's share of the loss that token budgets cause, mean 1: `score_weight` of it as the score says, the rest alike. Shape of `score`."""
    return 1 - score_weight + score_weight * jnp.asarray(score) / jnp.mean(score)


@jax.jit
def budgets(shares: Float[Array, " heads"], mean: Scalar, least: Scalar, curve: KeepLoss) -> Float[Array, " heads"]:
    """The kept shares of tokens, one per head and `mean` on average, that lose least when head h has `shares[h]` of the loss.

    Water filling: every head between `least` and 1 has the same marginal loss, and each of them falls as the head keeps more. The floor has no part in it.
    """
    shares = jnp.asarray(shares)
    bottom = jnp.log(least)

    def log_marginal(log_keep: Array) -> Array:
        return -log_keep - jnp.log(curve.weight + (1 - curve.weight) * jnp.exp(curve.slope * log_keep))

    def kept(level: Array) -> Array:
        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = (ends[0] + ends[1]) / 2
            more = jnp.log(shares) + log_marginal(middle) > level
            return jnp.where(more, middle, ends[0]), jnp.where(more, ends[1], middle)

        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.full_like(shares, bottom), jnp.zeros_like(shares)))
        return jnp.exp((low + high) / 2)

    def fill(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        level = (ends[0] + ends[1]) / 2
        spare = jnp.mean(kept(level)) < mean
        return jnp.where(spare, ends[0], level), jnp.where(spare, level, ends[1])

    ends = (jnp.min(jnp.log(shares)) + log_marginal(jnp.zeros(())) - 1, jnp.max(jnp.log(shares)) + log_marginal(bottom) + 1)
    low, high = jax.lax.fori_loop(0, BISECTIONS, fill, ends)
    return kept((low + high) / 2)


def weighted_mean(values: PerHead, weights: PerHead) -> Float[Array, ""]:
    """Weighted mean over layers and heads, the weights broadcast to the values and the values to the weights; a scalar passes through as it is."""
    values, weights = jnp.asarray(values), jnp.asarray(weights)
    if values.ndim == 0:
        return values
    # Deviations from one entry are averaged, so that equal entries come out exactly as they went in.
    first = values[(0,) * values.ndim]
    spread = jnp.broadcast_arrays(values - first, weights)
    return first + jnp.sum(spread[0] * spread[1]) / jnp.sum(spread[1])
