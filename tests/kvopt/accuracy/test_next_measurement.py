"""`kvopt next`: the regret of a choice, the value of a measurement, and what is said of how to run it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kvopt
from kvopt.accuracy import posterior
from kvopt.accuracy.joint import joint
from kvopt.accuracy.pooled import fit, updated, without
from kvopt.accuracy.value import Belief, belief, best_measurements, expected, regret
from kvopt.cli import main
from kvopt.errors import BadInput

ASKED = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": 16384, "task": "ruler", "engine": "vllm"}


def known(mean: list[float], sd: list[float], scale: float = 0.01) -> Belief:
    """Readings that share nothing."""
    return Belief(np.array(mean), np.diag(np.array(sd) ** 2), np.full(len(mean), scale))


def test_regret() -> None:
    assert regret(known([-1.0, -2.0], [0.0, 0.0])) == pytest.approx(0, abs=1e-2)
    close, apart = regret(known([-1.0, -1.1], [0.5, 0.5])), regret(known([-1.0, -4.0], [0.5, 0.5]))
    assert close > 1 > apart >= 0
    assert regret(known([-1.0], [1.0])) == pytest.approx(0, abs=1e-9)


def test_expected_is_the_mean_over_draws() -> None:
    draws = np.exp(-np.exp(-1 + 0.8 * np.random.default_rng(0).standard_normal(200_000)))
    assert expected(np.array(-1.0), np.array(0.64)) == pytest.approx(draws.mean(), abs=2e-3)


def test_what_is_known_is_not_worth_measuring() -> None:
    one = known([-1.0, -1.1, -1.05], [0.6, 0.6, 0.0])
    (place, after), *_ = best_measurements(one, [0, 1], [2], 1)
    assert place == 2
    assert after == pytest.approx(regret(one.of([0, 1])), rel=1e-6)
    assert best_measurements(one, [0, 1], [2], 1, least=0.01) == []
    both = best_measurements(one, [0, 1], [0, 1, 2], 2)
    assert {place for place, _ in both} == {0, 1}
    assert both[1][1] < 0.2 * regret(one.of([0, 1]))
    assert both == best_measurements(one, [0, 1], [0, 1, 2], 2)


def test_a_measurement_that_tells_of_the_best_is_worth_more() -> None:
    covariance = np.array([[0.36, 0.0, 0.34, 0.0], [0.0, 0.36, 0.0, 0.05], [0.34, 0.0, 0.36, 0.0], [0.0, 0.05, 0.0, 0.36]])
    one = Belief(np.array([-1.0, -1.0, -1.0, -1.0]), covariance, np.full(4, 0.01))
    assert best_measurements(one, [0, 1], [2, 3], 1)[0][0] == 2


def test_readings_together_are_what_the_model_says() -> None:
    model = posterior.load("head")
    mask = np.array([one.benchmark == model.readings[0].benchmark for one in model.readings])
    left, out = without(model, mask), [one for one, gone in zip(model.readings, mask, strict=True) if gone]
    assert len(left.readings) + len(out) == len(model.readings)
    some = joint(left, out)
    said = left.predict(out)
    np.testing.assert_allclose(some.eta, said.eta, atol=1e-9)
    np.testing.assert_allclose(np.einsum("ijnn->ijn", some.covariance), said.covariance, atol=1e-9)
    seen = some.seen([0, 1], [out[0].retained or 0, out[1].retained or 0])
    full = updated(left, out[:2]).predict(out)
    np.testing.assert_allclose(seen.eta, full.eta, atol=1e-6)
    np.testing.assert_allclose(np.einsum("ijnn->ijn", seen.covariance), full.covariance, atol=1e-6)
    assert some.seen([], []) is some
    assert np.linalg.eigvalsh(belief([seen]).covariance).min() > -1e-9


def test_without_is_near_a_fit_of_the_rest() -> None:
    model = posterior.load("bits")
    mask = np.arange(len(model.readings)) % 20 == 0
    kept = [one for one, gone in zip(model.readings, mask, strict=True) if not gone]
    out = [one for one, gone in zip(model.readings, mask, strict=True) if gone]
    ours, refit = without(model, mask).predict(out).eta[0], fit(kept, model.spreads).predict(out).eta[0]
    assert np.median(np.abs(ours - refit)) < 0.1
    unchanged = without(model, np.zeros(len(model.readings), bool)).predict(out).eta
    np.testing.assert_allclose(unchanged, model.predict(out).eta, atol=1e-6)


@pytest.fixture(scope="module")
def named() -> kvopt.Result:
    """What is said where vLLM must run the method."""
    return kvopt.next_measurements(**ASKED)


def test_it_names_measurements_in_order(named: kvopt.Result) -> None:
    data = named.data
    after = [one["regret_after_points"] for one in data["measurements"]]
    assert data["regret_points"] >= 0
    assert len(after) <= 5
    assert [data["regret_points"], *after] == sorted([data["regret_points"], *after], reverse=True)
    assert all(one["expected_retained"] <= data["choice"]["expected_retained"] for one in data["alternatives"])
    assert all(one["bytes_kept"] <= 1.02 * data["bytes_kept"] for one in data["alternatives"])
    assert data["certain"] == (not data["measurements"]) or data["regret_points"] >= 0.1
    assert data == kvopt.next_measurements(**ASKED).data
    json.dumps(data, allow_nan=False)
    assert "Expected regret" in str(named)


def test_runs_are_commands_that_can_be_followed() -> None:
    rows = kvopt.next_measurements(**{**ASKED, "engine": "hf", "methods": "snapkv:0.25", "turns": 3}).data["measurements"]
    assert rows
    presses = [one["run"] for one in rows if one["run"].startswith("python evaluate.py")]
    assert presses
    assert all("--dataset ruler --data_dir 16384 --model meta-llama/" in run and "--compression_ratio 0." in run for run in presses)
    quantised = kvopt.next_measurements(**{**ASKED, "methods": "fp8"}).data
    assert any(one["method"] == "fp8" for one in quantised["alternatives"])
    for one in quantised["measurements"]:
        assert one["run"].startswith("lm_eval --model vllm --model_args pretrained=meta-llama/")
        assert "kv_cache_dtype=" in one["run"]
        assert "--tasks ruler" in one["run"]


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="single methods"):
        kvopt.next_measurements(**{**ASKED, "methods": "fp8,snapkv:0.5"})
    assert main(["next", "--task", "rulr"]) == 2
    assert "did you mean ruler" in capsys.readouterr().err


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--{name}={value}" for name, value in ASKED.items()]
    assert main(["next", *words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) >= {"choice", "regret_points", "measurements", "feed_back"}
