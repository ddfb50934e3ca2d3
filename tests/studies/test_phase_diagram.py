"""The study `phase_diagram`: known corners, the boundary of HBM moving outward, and cells that `kvopt.analyze` describes alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvopt
from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from studies import phase_diagram
from studies.phase_grid import Plane, evaluated
from studies.phase_plot import FACES, WORDS, regions
from studies.result import StudyResult

CARD: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1}
CONTEXTS, THINKS, KEPT = (4096, 32768, 262144, 655360, 1048576), np.array([1.0, 60.0, 1800.0]), np.array([1.0, 1 / 4, 1 / 16, 1 / 64])


@pytest.fixture(scope="module")
def plane() -> Plane:
    return evaluated([resolve(Scenario.of(**CARD, context=context)) for context in CONTEXTS], THINKS, KEPT)


def test_known_corners(plane: Plane) -> None:
    found = phase_diagram.masks(plane)
    short, million = 0, len(CONTEXTS) - 1
    assert found["HBM capacity"][0, 0, short]  # a whole cache fills HBM long before anything else
    assert not found["HBM capacity"][-1, 0, short]
    assert found["prefill FLOP/s (TTFT)"][-1, 0, short]  # next to no cache: prompts are what is left
    assert found["no HBM"][0, :, million].all()
    assert found["too slow"][-1, :, million].all()  # no cache to speak of, and still 1M tokens to prefill
    assert found["host memory"][0, 1, short]  # thinkers are parked until host memory is full


def test_a_smaller_cache_moves_the_boundary_of_hbm_outward(plane: Plane) -> None:
    full = phase_diagram.masks(plane)["HBM capacity"] | phase_diagram.masks(plane)["no HBM"]
    cells = full.sum(axis=(1, 2))
    assert list(cells) == sorted(cells, reverse=True)
    assert cells[0] > 2 * cells[-1]
    assert plane.serves.sum(axis=(1, 2))[0] < plane.serves.sum(axis=(1, 2))[-1]


def test_rates_only_rise_with_what_is_dropped(plane: Plane) -> None:
    assert np.all(plane.rate[1:] >= plane.rate[:-1] * (1 - 2e-3))
    assert np.all((plane.rate > 0) == plane.serves)


@pytest.mark.parametrize(("think", "context"), [(0, 0), (1, 1), (2, 2), (1, 3)])
def test_a_cell_is_what_analyze_gives(plane: Plane, think: int, context: int) -> None:
    told = kvopt.analyze(**CARD, context=CONTEXTS[context], think=float(THINKS[think]))
    assert told.feasible == plane.serves[0, think, context]
    if told.feasible:  # analyze tries shares of idle caches in steps of 5 %, the plane refines them
        rate = told.data["metrics"]["sessions_per_gpu_hour"]
        assert rate * (1 - 2e-3) <= plane.rate[0, think, context] <= 1.15 * rate


def test_hbm_has_its_colour_only_alone(plane: Plane) -> None:
    masks = {name: mask[0] for name, mask in phase_diagram.masks(plane).items()}
    face, full = regions(masks)
    names = np.array(list(FACES))[face]
    assert np.all(full[names == "HBM capacity"])
    assert np.any(full & (names == "host memory"))
    assert set(FACES) == set(WORDS) == set(masks)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    out = tmp_path_factory.mktemp("phase")
    return phase_diagram.run(out=out, contexts=9, thinks=4, kept="1,1/16", **CARD), out


def test_the_study_has_a_row_per_share_and_a_picture(result: tuple[StudyResult, Path]) -> None:
    found, out = result
    assert [row["kept"] for row in found.rows] == ["1", "1/16"]
    assert found.ok
    assert found.rows[0]["HBM %"] > found.rows[1]["HBM %"]
    assert found.rows[0]["longest context"] < found.rows[1]["longest context"]
    assert "1 x h100-sxm" in found.notes[0]
    assert found.notes[1].startswith("72 cells")
    assert (out / "phase_diagram.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "phase_diagram.svg").read_text()
    for row in found.rows:
        bound = sum(row[name] for name in row if name.endswith("%"))
        assert bound >= 100 - 1e-9  # every cell has a name


def test_weights_that_do_not_fit_are_an_answer() -> None:
    found = phase_diagram.run(model="llama-3.1-70b", accelerator="l4", gpus=1, contexts=2, thinks=2)
    assert not found.ok
    assert "do not fit" in found.notes[0]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"contexts": 1}, "contexts"),
        ({"shortest": "1M", "longest": "4K"}, "contexts"),
        ({"kept": "0,1"}, "kept"),
        ({"kept": "half"}, "kept"),
        ({"think": "10s"}, "option"),
        ({"turns": 1}, "turns"),
    ],
)
def test_bad_input_names_its_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as error:
        phase_diagram.run(**{"contexts": 2, "thinks": 2, **CARD, **options})
    assert error.value.field == field
