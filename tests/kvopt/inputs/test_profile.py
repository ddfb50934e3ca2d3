"""Profiles: every case of the catalog has one, what was not measured is less certain, and what one measured oneself comes first."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvopt import catalog
from kvopt.calibration.refit import LEFT, UNITS
from kvopt.inputs import profile
from kvopt.inputs.accelerator import WEIGHT_FORMATS, read_accelerator
from kvopt.inputs.efficiency import EfficiencySpec
from kvopt.inputs.engine import load
from kvopt.inputs.hierarchy import BEND, FACTORS, PARAMETERS, WEIGHT_CLASSES, composed, group, levels, narrowing, natural
from kvopt.inputs.profile import BENCHMARK_ONLY, Profile
from kvopt.inputs.reserves import reserves
from objectives.types import Efficiency

SHARES = [name for name, one in PARAMETERS.items() if one.share]
OVERHEADS = {"prefill_layer_us": 90.0, "decode_layer_us": 45.0, "parallel_layer_us": 12.0, "sequence_us": 3.0, "server_ms": 55.0}


def of(card: str, engine: str = "vllm", weights: str = "bf16", model: str = "", routed: bool = False) -> Profile:
    return profile.closest(read_accelerator(card), engine, weights, model, routed)


@pytest.mark.parametrize("engine", catalog.ids("engines"))
def test_every_case_of_the_catalog_has_a_profile(engine: str) -> None:
    spec = load(engine)
    for card in catalog.ids("accelerators"):
        device = read_accelerator(card)
        for weights in WEIGHT_FORMATS:
            for routed in (False, True):
                found = profile.closest(device, spec.generation, weights, routed=routed)
                values = vars(found.efficiency(reserves(spec, device)))
                assert all(math.isfinite(value) and value >= 0 for value in values.values()), (card, weights, values)
                assert all(0 < found.figures[name].value <= 1 for name in SHARES), (card, weights)
                assert all(0 < figure.log_sd < 2 for figure in found.figures.values()), (card, weights)
                assert 0 < found.prefill_log_sd < 1
                assert 0 < found.decode_log_sd < 1


def test_parameters_are_those_of_the_mathematics() -> None:
    assert set(PARAMETERS) - set(BENCHMARK_ONLY) <= set(Efficiency.__dataclass_fields__)
    assert all(len(one.spread) == len(FACTORS) for one in PARAMETERS.values())
    stated = {UNITS.get(name, (name, 1.0))[0] for name in PARAMETERS if name not in LEFT}
    assert stated <= set(EfficiencySpec.model_fields)
    assert set(vars(profile.peak())) == set(Efficiency.__dataclass_fields__)


def test_evidence_says_how_far_the_measurements_speak_of_a_case() -> None:
    fit = profile.fitted()
    for name in ("h100-sxm vllm fp8", "a100-80-sxm vllm-0.6 16-bit", "b200-sxm trtllm fp4"):
        card, engine, weights = name.split(" ")
        form = next(form for form, one in WEIGHT_CLASSES.items() if one == weights)
        assert group(card, engine, form) == name
        known = of(card, engine, form, fit.groups[name].models[0])
        assert (known.id, known.evidence, known.rows) == (name, "model", fit.groups[name].rows)
        other = of(card, engine, form, "a-model-that-nobody-measured")
        assert (other.evidence, other.rows) == ("group", known.rows)
        assert other.figures == known.figures
    assert (of("gaudi3").evidence, of("gaudi3").rows) == ("none", 0)


@pytest.mark.parametrize("quantity", ["prefill_log_sd", "decode_log_sd"])
def test_less_evidence_is_a_wider_spread(quantity: str) -> None:
    spreads = [
        getattr(of("h100-sxm", weights="fp8", model=model), quantity) for model in (profile.fitted().groups["h100-sxm vllm fp8"].models[0], "")
    ]
    spreads.append(getattr(of("gaudi3", weights="fp8"), quantity))
    assert spreads == sorted(spreads)
    assert spreads[0] < spreads[2]


def test_parameters_of_unmeasured_groups_are_less_certain() -> None:
    measured, unmeasured = of("h100-sxm", weights="fp8").figures, of("gaudi3", weights="fp8").figures
    for name in ("mfu", "prefill_layer_s", "decode_layer_s", "server_s", "mbu_kv"):
        assert measured[name].log_sd < unmeasured[name].log_sd, name


def test_an_unknown_level_adds_nothing_but_its_spread() -> None:
    at = levels(read_accelerator("h100-sxm"), "vllm", "bf16", False)
    assert set(at) == set(FACTORS)
    assert composed("mfu", {}, at) == (0.0, pytest.approx(math.hypot(*PARAMETERS["mfu"].spread)))
    told = {"accelerator": {"h100-sxm": {"mfu": (0.2, 0.01)}}, "weights": {"fp8": {"mfu": (5.0, 0.01)}}}
    value, spread = composed("mfu", told, at)
    assert value == 0.2
    assert spread < composed("mfu", {}, at)[1]


def test_shares_are_bent_below_one() -> None:
    logs = np.linspace(-6, 3, 2001)
    values = natural("mfu", logs)
    assert np.all(np.diff(values) >= 0)
    assert np.all((values > 0) & (values <= 1))
    below, above = (float(natural("mfu", math.log(BEND) + side)) for side in (-1e-9, 1e-9))
    assert below == pytest.approx(BEND) == above
    slopes = [(natural("mfu", math.log(BEND) + side) - BEND) / side for side in (-1e-6, 1e-6)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)
    np.testing.assert_allclose(values[logs < math.log(BEND)], np.exp(logs[logs < math.log(BEND)]))
    np.testing.assert_allclose(natural("server_s", logs), np.exp(logs))
    for place in (200, 1200, 1300, 1400):
        slope = (np.log(values[place + 1]) - np.log(values[place - 1])) / (logs[place + 1] - logs[place - 1])
        assert narrowing("mfu", float(values[place])) == pytest.approx(slope, rel=1e-3)
    assert narrowing("server_s", 5.0) == 1


def test_what_an_accelerator_file_was_measured_to_reach_comes_first(tmp_path: Path) -> None:
    shares = {"mfu": 0.61, "mfu_experts": 0.33, "mbu": 0.91, "ramp_tokens": 40.0, "host_link": 0.7, "decode_log_sd": 0.04}
    section = {name: {"value": value, "source": "my own measurements, 1 May", "tag": "measured"} for name, value in {**shares, **OVERHEADS}.items()}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"id": "h100-sxm", **catalog.read("accelerators", "h100-sxm"), "efficiency": section}), encoding="utf-8"
    )
    known, found = of("h100-sxm"), of(str(tmp_path / "mine.yaml"))
    expected = {"prefill_layer_s": 90e-6, "decode_layer_s": 45e-6, "parallel_layer_s": 12e-6, "sequence_s": 3e-6, "server_s": 55e-3}
    expected |= {name: shares[name] for name in ("mfu", "mfu_experts", "mbu", "ramp_tokens")}
    assert {name: found.figures[name].value for name in expected} == pytest.approx(expected)
    for name in set(PARAMETERS) - set(expected):
        assert found.figures[name] == known.figures[name], name
    assert (found.host_link, found.decode_log_sd, found.evidence) == (0.7, 0.04, "model")
    assert found.id == "measured: h100-sxm"
    device = read_accelerator(str(tmp_path / "mine.yaml"))
    assert float(found.efficiency(reserves(load("vllm"), device)).decode_layer_s) == pytest.approx(45e-6)
