"""What each dimension of a plan costs in accuracy: log losses L = -ln(retained accuracy), one smooth curve per dimension.

Two curves cover all dimensions. Their forms were compared with power laws and exponentials on about 1,700 published measurements (kvpress RULER plots
and leaderboard, QPruningKV, the KV benchmark of Yuan et al., KVSharer, DuoAttention, Palu, X-EcoMLA, KIVI, KVTuner, the vLLM FP8 and TurboQuant
posts, SGLang and lmdeploy): which method and task a curve belongs to matters about ten times more than its form, so forms are few and parameters
come per method and task family.

Every curve is exactly 0 without compression, never falls when more is given up, and has finite slopes everywhere, at no compression too.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from objectives.types import PerHead, Scalar, pytree

SMALLEST_KEEP = 1 / 128  # below it a curve stays flat: no measurement keeps less, and float32 overflows at k^-16
FULL_BITS = 16.0
FLOOR_BITS = 8.0  # the quantiser floor is fully there at this many bits


@pytree
class KeepLoss:
    """Loss against a kept share k, logistic in ln k: retained = [(1 + k0^s) / (1 + (k0/k)^s)]^amplitude * e^(-floor (1-k)). Leaves are scalars.

    `weight` = k0^s / (1 + k0^s) stands for k0, which makes the curve `amplitude * ln(1 + weight * (k^-s - 1))`: exact at k = 1, without cancellation.
    A weight near 0 is a cliff far below k = 1, weight 1 the power law k^(s * amplitude). The floor is what near-lossless methods are still measured
    to lose (DuoAttention .995, KVzip .996 at half); without it an interval on ln L would have no width there.
    """

    amplitude: Scalar  # exp(method + task family + context + model effects); 0 where no method is chosen
    weight: Scalar  # in (0, 1]
    slope: Scalar  # s, in (0, 16]
    floor: Scalar  # loss per share dropped, whatever is dropped
    log_sd: Scalar  # spread of ln L where nothing is dropped yet
    log_sd_growth: Scalar = 0.0  # of it, per unit of -ln k: the less is kept, the farther from what was measured


@pytree
class BitsLoss:
    """Loss against bits per element of K and V: exponential in the bits, plus a small floor below 16 bits. Leaves are scalars.

    L = exp(A_task + D_quantiser) * [share_k * e^(-rate*b_k) + share_v * e^(-rate*b_v) - e^(-16 rate)] + floor * fade(b). The amplitudes here are
    taken at 16 bits, `exp(A + D - 16 rate) * share`, so that the bracket is an `expm1` that vanishes exactly at 16. Rate 2.2 per bit fits 466
    measurements of KIVI, KVQuant, KVTuner, TurboQuant, FP8 and INT KV caches: steeper than the noise power (1.39), because below 4 bits the loss is
    a threshold effect.
    """

    key_amplitude: Scalar
    value_amplitude: Scalar
    rate: Scalar  # per bit, natural exponent; 2.2 = 2^(3.17 bits)
    floor: Scalar  # loss of any cache below 16 bits, fully there at 8
    log_sd: Scalar  # spread of ln L just below 16 bits
    log_sd_growth: Scalar = 0.0  # of it, per bit below 16


def keep_loss(keep: PerHead, curve: KeepLoss, z: Scalar = 0.0) -> Float[Array, ...]:
    """Log loss of keeping a share, at z standard deviations of ln L; same shape as `keep`. Four transcendental operations.

    z = 1.28 is what 90 % of measurements do not exceed, 0 the median. Monotone in the share for every z >= 0, since the spread never falls with less kept.
    """
    dropped = -jnp.log(jnp.maximum(keep, SMALLEST_KEEP))
    median = curve.amplitude * jnp.log1p(curve.weight * jnp.expm1(curve.slope * dropped)) + curve.floor * (1 - jnp.asarray(keep))
    return _at(median, z, lambda: curve.log_sd + curve.log_sd_growth * dropped)


def bits_loss(key_bits: PerHead, value_bits: PerHead, curve: BitsLoss, z: Scalar = 0.0) -> Float[Array, ...]:
    """Log loss of storing K and V in so many bits, at z standard deviations of ln L; the shape that both broadcast to."""
    exponential = curve.key_amplitude * jnp.expm1(curve.rate * (FULL_BITS - key_bits)) + curve.value_amplitude * jnp.expm1(
        curve.rate * (FULL_BITS - value_bits)
    )
    median = exponential + curve.floor * (_fade(key_bits) + _fade(value_bits)) / 2
    return _at(median, z, lambda: curve.log_sd + curve.log_sd_growth * (FULL_BITS - (jnp.asarray(key_bits) + value_bits) / 2))


def _at(median: Array, z: Scalar, log_sd: Callable[[], Array]) -> Array:
    """A loss at z standard deviations of its logarithm. The median is asked for as often as the edge, and a compiler cannot leave out exp(0)."""
    return median if isinstance(z, float) and z == 0 else median * jnp.exp(z * log_sd())


def _fade(bits: PerHead) -> Float[Array, ...]:
    """0 at 16 bits, 1 from 8 down, with slope 0 at both ends: the floor must not make 15.9 bits a cliff."""
    t = jnp.clip((FULL_BITS - bits) / (FULL_BITS - FLOOR_BITS), 0.0, 1.0)
    return t * t * (3 - 2 * t)
