"""The curves: zero without compression, monotone, with finite slopes that finite differences confirm."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.accuracy.proxies import BitsLoss, KeepLoss, bits_loss, keep_loss

keeps = st.floats(1 / 64, 1.0)
bits = st.floats(2.0, 16.0)
midpoints = st.floats(1e-3, 10.0)
slopes = st.floats(0.2, 16.0)


def curve(k0: float = 0.1, slope: float = 1.0, amplitude: float = 1.0, floor: float = 0.005) -> KeepLoss:
    weight = k0**slope / (1 + k0**slope)
    return KeepLoss(
        amplitude=np.float64(amplitude),
        weight=np.float64(weight),
        slope=np.float64(slope),
        floor=np.float64(floor),
        log_sd=np.float64(1.0),
        log_sd_growth=np.float64(0.3),
    )


def quantiser(log_amplitude: float = 2.0, floor: float = 0.004, key_share: float = 0.75) -> BitsLoss:
    at_full = math.exp(log_amplitude - 16 * 2.2)
    leaves = {
        "key_amplitude": key_share * at_full,
        "value_amplitude": (1 - key_share) * at_full,
        "rate": 2.2,
        "floor": floor,
        "log_sd": 1.0,
        "log_sd_growth": 0.1,
    }
    return BitsLoss(**{name: np.float64(value) for name, value in leaves.items()})


@settings(deadline=None, max_examples=50)
@given(keeps, midpoints, slopes)
def test_is_the_logistic_in_the_log_of_the_share(keep: float, k0: float, slope: float) -> None:
    with jax.enable_x64(True):
        expected = math.log((1 + (k0 / keep) ** slope) / (1 + k0**slope))
        assert float(keep_loss(keep, curve(k0, slope, floor=0.0))) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(keeps, keeps, midpoints, slopes)
def test_keeping_more_never_loses_more(one: float, other: float, k0: float, slope: float) -> None:
    less, more = sorted((one, other))
    assert keep_loss(more, curve(k0, slope)) <= keep_loss(less, curve(k0, slope))
    assert keep_loss(more, curve(k0, slope), 1.28) <= keep_loss(less, curve(k0, slope), 1.28)


@settings(deadline=None, max_examples=50)
@given(bits, bits, bits)
def test_more_bits_never_lose_more(one: float, other: float, value_bits: float) -> None:
    fewer, more = sorted((one, other))
    # Rounding of expm1 in float32 may turn two equal losses by a last digit.
    assert bits_loss(more, value_bits, quantiser()) <= bits_loss(fewer, value_bits, quantiser()) * (1 + 1e-5) + 1e-9
    assert bits_loss(value_bits, more, quantiser()) <= bits_loss(value_bits, fewer, quantiser()) * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize("slope", [0.2, 1.0, 16.0])
def test_without_compression_the_loss_is_exactly_zero(slope: float) -> None:
    assert float(jax.jit(keep_loss)(1.0, curve(slope=slope))) == 0.0
    assert float(jax.jit(bits_loss)(16.0, 16.0, quantiser())) == 0.0


@settings(deadline=None, max_examples=50)
@given(keeps, midpoints, slopes)
def test_slope_of_keep_curves_agrees_with_finite_differences(keep: float, k0: float, slope: float) -> None:
    with jax.enable_x64(True):
        step = 1e-6 * keep
        keep = min(max(keep, 1 / 64), 1.0)
        numeric = (keep_loss(keep + step, curve(k0, slope)) - keep_loss(keep - step, curve(k0, slope))) / (2 * step)
        assert float(jax.grad(keep_loss)(keep, curve(k0, slope))) == pytest.approx(float(numeric), rel=1e-4, abs=1e-7)


@settings(deadline=None, max_examples=50)
@given(st.floats(2.01, 15.99), st.floats(2.01, 15.99))
def test_slope_of_bits_curves_agrees_with_finite_differences(key_bits: float, value_bits: float) -> None:
    with jax.enable_x64(True):
        for argument in (0, 1):
            point = [key_bits, value_bits]
            exact = jax.grad(bits_loss, argnums=argument)(*point, quantiser())
            point[argument] += 1e-5
            above = bits_loss(*point, quantiser())
            point[argument] -= 2e-5
            numeric = (above - bits_loss(*point, quantiser())) / 2e-5
            assert float(exact) == pytest.approx(float(numeric), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("keep", [1 / 64, 0.5, 1.0])
@pytest.mark.parametrize("slope", [0.2, 16.0])
def test_slopes_are_finite_at_the_ends_of_the_box_in_float32(keep: float, slope: float) -> None:
    assert jnp.isfinite(jax.grad(keep_loss)(keep, curve(0.3, slope)))
    assert jax.grad(keep_loss)(keep, curve(0.3, slope)) < 0
    for argument in (0, 1):
        assert all(jnp.isfinite(jax.grad(bits_loss, argnums=argument)(b, b, quantiser())) for b in (2.0, 8.0, 16.0))


def test_keys_weigh_more_than_values() -> None:
    assert bits_loss(8.0, 4.0, quantiser()) < bits_loss(4.0, 8.0, quantiser())


def test_floor_is_there_at_eight_bits_and_fades_towards_sixteen() -> None:
    floor_only = quantiser(log_amplitude=-50.0, floor=0.004)
    assert float(bits_loss(8.0, 8.0, floor_only)) == pytest.approx(0.004)
    assert float(bits_loss(12.0, 12.0, floor_only)) == pytest.approx(0.002)
    assert float(bits_loss(15.9, 15.9, floor_only)) < 1e-5


@settings(deadline=None, max_examples=30)
@given(keeps, bits, st.floats(0.0, 3.0))
def test_the_spread_is_on_the_logarithm_of_the_loss_and_grows_with_what_is_dropped(keep: float, key_bits: float, z: float) -> None:
    with jax.enable_x64(True):
        ratio = float(keep_loss(keep, curve(), z)) / max(float(keep_loss(keep, curve())), 1e-300)
        assert keep > 1 - 1e-9 or ratio == pytest.approx(math.exp(z * (1.0 + 0.3 * -math.log(keep))), rel=1e-6)
        median = float(bits_loss(key_bits, key_bits, quantiser()))
        assert float(bits_loss(key_bits, key_bits, quantiser(), z)) == pytest.approx(median * math.exp(z * (1.0 + 0.1 * (16 - key_bits))), rel=1e-6)
