"""The curves as they are fitted and the curves as plans are judged by them are the same."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from kvopt.accuracy import response
from kvopt.accuracy.curves import Curve
from kvopt.accuracy.reading import Reading
from objectives.accuracy.proxies import SMALLEST_KEEP, bits_loss, keep_loss

Make = Callable[..., Reading]
KEEPS = np.array([1.0, 0.99, 0.9, 0.5, 0.25, 0.1, 0.03, SMALLEST_KEEP])
BITS = np.array([16.0, 15.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0])
SEEDS = range(40)


def curve(eta: tuple[float, float, float], growth: float, outlier: float = 0.0) -> Curve:
    return Curve(eta, growth, outlier, 0.3, 0.1, {}, 1, 0, None, 0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_keep_curves_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    eta = (rng.uniform(-8, 1), rng.uniform(-2, 1.5), rng.uniform(-5, 3))
    growth = rng.uniform(-2, 1)  # of ln k0: what the context changes
    fitted = response.keep_loss(KEEPS, np.repeat(np.array(eta)[:, None], len(KEEPS), axis=1), np.full(len(KEEPS), growth))
    with jax.enable_x64(True):
        judged = np.asarray(keep_loss(KEEPS, curve(eta, growth).keep_loss()), float)
    np.testing.assert_allclose(judged, fitted, rtol=1e-9, atol=1e-12)
    assert fitted[0] == 0
    assert np.all(np.diff(fitted) >= 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_curves_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    eta = (rng.uniform(-8, 0), rng.uniform(-1, 1.0), 0.0)
    growth, outlier = rng.uniform(0, 2), rng.choice([0.0, 4.5])
    values = rng.permutation(BITS)
    many = np.repeat(np.array(eta)[:, None], len(BITS), axis=1)
    fitted = response.bits_loss(BITS, values, many, np.full(len(BITS), growth), outlier)
    with jax.enable_x64(True):
        judged = np.asarray(bits_loss(BITS, values, curve(eta, growth, outlier).bits_loss()), float)
    np.testing.assert_allclose(judged, fitted, rtol=1e-9, atol=1e-12)
    both = response.bits_loss(BITS, BITS, many, np.full(len(BITS), growth), outlier)
    assert both[0] == pytest.approx(0, abs=1e-15)
    assert np.all(np.diff(both) >= 0)


@pytest.mark.parametrize("amplitude", [-50.0, 50.0])
@pytest.mark.parametrize("slope", [-50.0, 50.0])
@pytest.mark.parametrize("midpoint", [-50.0, 50.0])
def test_curves_are_finite_at_the_corners(make: Make, amplitude: float, slope: float, midpoint: float) -> None:
    keeps = [make(key=key, context=context) for key in (1e-6, 1.0) for context in (1.0, 1e7)]
    bits = [make(dimension="bits", key=key, value=value, context=1e7) for key in (1.0, 16.0) for value in (1.0, 16.0)]
    for readings in (keeps, bits):
        eta = np.repeat([[amplitude], [slope], [midpoint]], len(readings), axis=1)
        with np.errstate(all="raise", under="ignore"):
            found = response.loss(readings, eta)
        assert np.all(np.isfinite(found))
        assert np.all(found > 0)


def test_longer_contexts_forgive_eviction_and_not_few_bits(make: Make) -> None:
    short, long = (make(context=context) for context in (4096.0, 131072.0))
    eta = np.repeat([[-2.0], [0.5], [-1.0]], 2, axis=1)
    kept = response.loss([short, long], eta)
    assert kept[1] < kept[0]
    stored = response.loss([make(dimension="bits", key=4.0, context=context) for context in (4096.0, 131072.0)], eta)
    assert stored[1] > stored[0]


def test_keys_with_outliers_lose_more_at_four_bits_in_careful_formats_alone(make: Make) -> None:
    known = make(dimension="bits", pool="careful", method="kivi", model="qwen2.5-7b", key=4.0)
    assert response.key_outlier(known) > 0
    for other in ({"model": "llama-3.1-8b"}, {"pool": "plain"}, {"method": "kvtuner"}):
        assert (
            response.key_outlier(make(**{"dimension": "bits", "pool": "careful", "method": "kivi", "model": "qwen2.5-7b", "key": 4.0, **other})) == 0
        )
