"""The pooled model on made-up readings: what went in comes out, little evidence leans on its kind, and an update is a fit of everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kvopt.accuracy import response, spreads
from kvopt.accuracy.levels import PARAMETERS
from kvopt.accuracy.pooled import Pooled, fit, updated
from kvopt.accuracy.reading import Reading

Make = Callable[..., Reading]
KEEPS = (0.9, 0.75, 0.5, 0.35, 0.25, 0.12, 0.06)
MODELS = ("llama-3-8b", "mistral-7b", "qwen2.5-7b", "phi-3-mini")
TRUE = {"good": (-4.0, 0.3, -1.0), "fair": (-3.0, 0.3, -1.0), "poor": (-1.0, 0.3, -1.0)}
NOISE = 0.003
START = spreads.start("token")


def measured(one: Reading, eta: tuple[float, float, float], rng: np.random.Generator) -> Reading:
    kept = float(np.exp(-response.loss([one], np.array(eta)[:, None]))[0]) + rng.normal(0, NOISE)
    return Reading(**{**vars(one), "retained": kept})


@pytest.fixture(scope="module")
def table(make: Make) -> list[Reading]:
    """Three methods of two kinds on four models that differ a little."""
    rng = np.random.default_rng(0)
    found = []
    for method, eta in TRUE.items():
        for model in MODELS:
            shift = rng.normal(0, 0.1)
            pool = "window" if method == "poor" else "agnostic"
            found += [measured(make(method=method, pool=pool, model=model, key=keep), (eta[0] + shift, *eta[1:]), rng) for keep in KEEPS]
    return found


@pytest.fixture(scope="module")
def model(table: list[Reading]) -> Pooled:
    return fit(table, START)


def loss(fitted: Pooled, one: Reading) -> float:
    return float(response.loss([one], fitted.predict([one]).eta)[0])


def spread(fitted: Pooled, one: Reading) -> float:
    return float(np.sqrt(fitted.predict([one]).covariance[0, 0, 0]))


@pytest.mark.parametrize("method", TRUE)
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.12])
def test_curves_come_back(make: Make, model: Pooled, method: str, keep: float) -> None:
    pool = "window" if method == "poor" else "agnostic"
    one = make(method=method, pool=pool, model=MODELS[0], key=keep)
    true = float(response.loss([one], np.array(TRUE[method])[:, None])[0])
    assert np.exp(-loss(model, one)) == pytest.approx(np.exp(-true), abs=0.04)


def test_a_method_with_one_point_takes_after_its_kind(make: Make, table: list[Reading]) -> None:
    single = {"good": make(method="new", pool="agnostic", key=0.5, retained=0.99), "poor": make(method="new", pool="window", key=0.5, retained=0.99)}
    kept = {kind: float(np.exp(-loss(fit([*table, one], START), make(method="new", pool=one.pool, key=0.12)))) for kind, one in single.items()}
    assert kept["good"] > kept["poor"] + 0.02  # the same single point, and another kind
    assert kept["poor"] > np.exp(-loss(fit(table, START), make(method="poor", pool="window", key=0.12)))  # which it pulls towards itself


def test_more_points_lean_less_on_the_kind(make: Make, table: list[Reading]) -> None:
    own = [make(method="new", pool="window", key=keep, retained=0.99) for keep in (0.5, 0.25, 0.12)]
    asked = make(method="new", pool="window", key=0.12)
    few, many = (fit([*table, *own[:count]], START) for count in (1, 3))
    assert np.exp(-loss(few, asked)) < np.exp(-loss(many, asked))
    assert spread(many, asked) < spread(few, asked)


def test_what_was_not_seen_is_wider(make: Make, model: Pooled) -> None:
    known = make(method="good", model=MODELS[0], key=0.25)
    for other in ({"model": "unknown"}, {"task": "gsm8k", "benchmark": "gsm8k", "suite": "gsm8k"}, {"method": "new"}, {"source": "another lab"}):
        assert spread(model, make(**{"method": "good", "model": MODELS[0], "key": 0.25, **other})) > spread(model, known), other


def test_parts_say_whose_the_spread_is(make: Make, model: Pooled) -> None:
    known = model.parts([make(method="good", model=MODELS[0], key=0.25)])
    for part, other in (("method", {"method": "new"}), ("model", {"model": "unknown"}), ("noise", {"source": "another lab"})):
        found = model.parts([make(**{"method": "good", "model": MODELS[0], "key": 0.25, **other})])
        assert found[part][0] > known[part][0]  # type: ignore[index]


def test_where_nothing_speaks_there_is_the_prior(make: Make) -> None:
    strange = make(method="x", pool="random", model="m", benchmark="b", task="gsm8k", suite="s", source="s", retained=0.9)
    seen = fit([strange], START).predict([make()])
    assert np.diag(seen.covariance[:, :, 0]) == pytest.approx(START.prior(), rel=0.05)
    assert seen.eta[:, 0] == pytest.approx([START.mean[name] for name in PARAMETERS], abs=0.3)


def test_an_update_is_a_fit_of_everything(make: Make, table: list[Reading], model: Pooled) -> None:
    own = [make(method="good", model="mine", source="me", key=keep, retained=kept) for keep, kept in ((0.5, 0.93), (0.25, 0.82), (0.12, 0.66))]
    quick, whole = updated(model, own), fit([*table, *own], START)
    asked = [make(method=method, model=name, source=source, key=keep)
             for method in ("good", "fair") for name, source in (("mine", "me"), (MODELS[0], "lab"), ("unknown", "")) for keep in (0.5, 0.12)]  # fmt: skip
    first, second = (np.exp(-response.loss(asked, one.predict(asked).eta)) for one in (quick, whole))
    np.testing.assert_allclose(first, second, atol=0.02)
    before = np.exp(-response.loss(asked, model.predict(asked).eta))
    assert before[1] > first[1] + 0.1  # and it moved what was said of the person's own model
    sds = [np.sqrt(one.predict(asked).covariance[0, 0]) for one in (quick, whole)]
    np.testing.assert_allclose(*sds, rtol=0.25)
    assert updated(model, []) is model


def test_an_update_may_be_updated(make: Make, model: Pooled) -> None:
    own = [make(method="good", model="mine", source="me", key=keep, retained=kept) for keep, kept in ((0.5, 0.97), (0.25, 0.9))]
    asked = make(method="good", model="mine", source="me", key=0.12)
    together, in_turn = updated(model, own), updated(updated(model, own[:1]), own[1:])
    assert np.exp(-loss(in_turn, asked)) == pytest.approx(np.exp(-loss(together, asked)), abs=0.02)


def test_the_same_again(table: list[Reading], model: Pooled) -> None:
    again = fit(table, START)
    np.testing.assert_array_equal(again.weight, model.weight)
    np.testing.assert_array_equal(again.predict(table[:5]).eta, model.predict(table[:5]).eta)
