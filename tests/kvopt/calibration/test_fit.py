"""The fit on measurements made by the mathematics itself: what it recovers, what it ignores, what it says of what it has not seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import yaml

from kvopt.calibration import fit as fitting
from kvopt.calibration import publish
from kvopt.calibration.cases import log_times
from kvopt.calibration.fit import Design, Effects
from kvopt.calibration.folds import folds
from kvopt.calibration.measurement import Measurement, read
from kvopt.calibration.refit import refit
from kvopt.errors import BadInput
from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.efficiency import EfficiencySpec
from kvopt.inputs.hierarchy import PARAMETERS
from kvopt.inputs.profile import Fitted
from kvopt.inputs.sourced import checked
from objectives.serving.benchmark import Times

GROUPS = {"h100-sxm": 0.0, "h200-sxm": 0.0, "a100-80-sxm": -0.25}  # how far the logarithm of each card's mfu is from the fit's beginning
SLOW = 1.3  # of all delays, over where the fit begins


@dataclass(frozen=True)
class Known:
    """Measurements whose parameters are known, and the fit of them."""

    data: Design
    parameters: dict[str, np.ndarray]
    effects: Effects


def rows() -> list[Measurement]:
    """Prefills, decode steps and closed loops of two sizes of model on three cards."""
    made = []
    for gpu, model, (prompt, batch) in itertools.product(GROUPS, ("llama-3.1-8b", "qwen2.5-14b"), ((256, 1), (2048, 8), (8192, 32))):
        base = {"model": model, "gpu": gpu, "engine": "vllm", "weight_dtype": "bf16", "prompt_len": str(prompt), "output_len": "256"}
        made += [{**base, "prefill_s": "1", "batch": "1"}, {**base, "ttft_s": "1", "tpot_ms": "1", "batch": str(batch)}]
    return [read(row, line) for line, row in enumerate(made, 2)]


def design(measurements: list[Measurement], values: np.ndarray) -> Design:
    """The measurements with these values [s] of their readings."""
    data = fitting.design(measurements)
    return replace(data, readings=replace(data.readings, log_value=values))


@pytest.fixture(scope="module", autouse=True)
def _one_program() -> Iterator[None]:
    """As many steps for rows that are left out as for all: both share a program, and few rows need few steps."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 300, "REFIT_STEPS": 300, "REFIT_RATE": fitting.RATE}.items():
            patch.setattr(fitting, name, value)
        yield


@pytest.fixture(scope="module")
def known() -> Known:
    measurements = rows()
    data = fitting.design(measurements)
    parameters = {name: np.full(len(measurements), one.start * (SLOW if name.endswith("_s") else 1.0)) for name, one in PARAMETERS.items()}
    parameters["mfu"] = parameters["mfu"] * np.exp([GROUPS[one.accelerator.id] for one in measurements])
    table = np.stack([log_times(data.cases, parameters)[name] for name in Times._fields])
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(data.readings.case))
    data = design(measurements, table[data.readings.reading, data.readings.case] + noise)
    return Known(data, parameters, fitting.fit(data))


@pytest.fixture(scope="module")
def published(known: Known) -> Fitted:
    """What the catalog would hold of this fit, written and read again."""
    content = publish.fitted(
        known.data, [f"log {place % 2}" for place in range(len(known.data.measurements))], "measurements made by the mathematics"
    )
    text = publish.text(content)
    found = checked(Fitted, yaml.safe_load(text), "profile", "a file")
    assert found == Fitted.model_validate(content)
    return found


def errors(data: Design, effects: Effects) -> np.ndarray:
    return np.asarray(fitting.errors(data, effects), float)


def test_the_fit_recovers_what_made_the_measurements(known: Known) -> None:
    assert np.max(np.abs(errors(known.data, known.effects))) < 0.05
    found = np.exp(np.asarray(fitting.log_parameters(known.effects, known.data)[list(PARAMETERS).index("mfu")]))
    np.testing.assert_allclose(found, known.parameters["mfu"], rtol=0.08)


def test_the_same_rows_give_the_same_fit(known: Known) -> None:
    again = fitting.fit(known.data)
    for factor, effects in known.effects.items():
        np.testing.assert_array_equal(effects, again[factor])


def test_a_row_that_nothing_explains_does_not_bend_the_others(known: Known) -> None:
    values = known.data.readings.log_value.copy()
    values[3] += np.log(5)
    bent = errors(known.data, fitting.fit(design(list(known.data.measurements), values)))
    others = np.arange(len(values)) != 3
    assert np.max(np.abs(bent - errors(known.data, known.effects))[others]) < 0.04


def test_consistent_rows_are_predicted_by_the_others(known: Known) -> None:
    found = fitting.left_out(known.data, known.effects, folds(known.data.measurements, "row"))
    assert np.median(np.abs(found)) < 0.02
    assert np.percentile(np.abs(found), 90) < 0.06


def test_folds() -> None:
    measurements = rows()
    assert set(folds(measurements, "row")) <= set(range(8))
    np.testing.assert_array_equal(folds(measurements, "row"), folds(measurements, "row"))
    assert len(set(folds(measurements, "model"))) == 2
    assert len(set(folds(measurements, "group"))) == 3
    same = [one for one in measurements if one.accelerator.id == "h100-sxm" and one.model.id == measurements[0].model.id and one.new == 2048]
    assert len(same) == 2
    assert len(set(folds(same, "settings"))) == 1


def test_what_is_published_gives_the_fitted_values(known: Known, published: Fitted) -> None:
    logs = fitting.log_parameters(known.effects, known.data)
    for place in (0, 12, 24):
        one = known.data.measurements[place]
        found = profile.closest(one.accelerator, one.engine, one.weights, one.model.id, fit=published)
        assert (found.evidence, found.rows, found.id) == ("model", 12, f"{one.accelerator.id} vllm 16-bit")
        for number, name in enumerate(PARAMETERS):
            if not PARAMETERS[name].share:
                assert found.figures[name].value == pytest.approx(float(np.exp(logs[number][place])), rel=0.05), name
        assert found.figures["mfu"].value == pytest.approx(known.parameters["mfu"][place], rel=0.1)
        assert set(published.groups[found.id].sources) == {"log 0", "log 1"}
        assert len(published.groups[found.id].models) == 2


def test_what_was_not_measured_is_its_class_with_a_wider_spread(published: Fitted) -> None:
    measured, sibling, other = (
        profile.closest(read_accelerator(card), "vllm", "bf16", fit=published) for card in ("a100-80-sxm", "a100-40-sxm", "rtx-4090")
    )
    assert (measured.evidence, sibling.evidence, other.evidence, sibling.rows) == ("group", "none", "none", 0)
    for name in ("mfu", "prefill_layer_s", "decode_layer_s"):
        assert measured.figures[name].log_sd < sibling.figures[name].log_sd <= other.figures[name].log_sd
    hopper = profile.closest(read_accelerator("h100-pcie"), "vllm", "bf16", fit=published)
    assert sibling.figures["mfu"].value < hopper.figures["mfu"].value  # as the measured cards of their classes


@pytest.fixture(scope="module")
def own() -> list[Measurement]:
    """One's own decode steps and prefills, 15 % slower than the catalog says."""
    base = {"model": "llama-3.1-8b", "gpu": "h100-sxm", "engine": "vllm", "version": "0.19.0", "weight_dtype": "bf16", "output_len": "128"}
    made = [{**base, "prompt_len": "1024", "batch": str(batch), "tpot_ms": "1"} for batch in (1, 4, 16, 64)]
    made += [{**base, "prompt_len": str(prompt), "prefill_s": "1"} for prompt in (512, 2048, 8192)]
    measurements = [read(row, line) for line, row in enumerate(made, 2)]
    return at_catalog(measurements, 1.15)


def at_catalog(measurements: list[Measurement], factor: float) -> list[Measurement]:
    """The measurements with `factor` times what the catalog predicts."""
    first = measurements[0]
    known = profile.closest(first.accelerator, first.engine, first.weights, first.model.id)
    logs = log_times(fitting.design(measurements).cases, {name: np.full(len(measurements), known.figures[name].value) for name in PARAMETERS})
    made = []
    for place, one in enumerate(measurements):
        name = next(iter(one.measured))
        seconds = factor * float(np.exp(logs["decode_s" if name == "tpot_ms" else "prefill_s"][place]))
        made.append(replace(one, measured={name: seconds * (1e3 if name == "tpot_ms" else 1.0)}))
    return made


def test_a_refit_moves_towards_ones_own_measurements(own: list[Measurement]) -> None:
    found = refit(own)
    assert set(found) <= set(EfficiencySpec.model_fields)
    known = profile.closest(own[0].accelerator, own[0].engine, own[0].weights, own[0].model.id)
    assert found["mfu"][0] < known.figures["mfu"].value
    assert found["decode_layer_us"][0] > 1e6 * known.figures["decode_layer_s"].value
    assert all(0 < spread < 1 for _, spread in found.values())
    moved = {name: figure.value for name, figure in known.figures.items()}
    for field, (value, _) in found.items():
        stem, _, unit = field.rpartition("_")
        moved[f"{stem}_s" if unit in ("us", "ms") else field] = value * {"us": 1e-6, "ms": 1e-3}.get(unit, 1.0)
    data = fitting.design(own)
    before, after = (
        log_times(data.cases, {name: np.full(len(own), values[name]) for name in PARAMETERS})
        for values in ({name: figure.value for name, figure in known.figures.items()}, moved)
    )
    errors = [
        np.array([np.exp(logs[Times._fields[reading]][case] - value) for case, reading, value in zip(data.readings.case, data.readings.reading,
        data.readings.log_value, strict=True)]) for logs in (before, after)
    ]  # fmt: skip
    np.testing.assert_allclose(errors[0], 1 / 1.15, rtol=1e-3)
    assert np.max(np.abs(errors[1] - 1)) < 0.08
    assert np.median(np.abs(errors[1] - 1)) < 0.06


def test_a_refit_is_of_one_group(own: list[Measurement]) -> None:
    other = read({"model": "llama-3.1-8b", "gpu": "a100-80-sxm", "engine": "vllm", "prompt_len": "1024", "tpot_ms": "9"}, 9)
    with pytest.raises(BadInput, match="measurements: a100-80-sxm vllm 16-bit, h100-sxm vllm 16-bit: must be of one accelerator"):
        refit([*own, other])
    with pytest.raises(BadInput, match="measurements: none"):
        refit([])
    alone = read({"model": "llama-3.1-8b", "gpu": "h100-sxm", "engine": "vllm", "prompt_len": "1024", "throughput_tok_s": "900", "batch": "8"}, 9)
    with pytest.raises(BadInput, match="measurements: 1 rows: must hold a time"):
        refit([alone])  # a throughput of clients is no reading
