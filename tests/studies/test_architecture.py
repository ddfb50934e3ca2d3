"""The study `architecture`: caches by hand, one size for all, and what each kind of attention does to users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvopt.errors import BadInput
from kvopt.inputs.hf_config import read_model
from studies import architecture
from studies.architecture_models import LONG_WINDOW, WINDOW, architectures, read_trunk
from studies.architecture_plot import LINES, apart
from studies.result import StudyResult

LAYERS, HEADS, KV_HEADS, WIDTH = 32, 32, 8, 128  # of Llama-3.1-8B
GQA_TOKEN = LAYERS * KV_HEADS * 2 * WIDTH * 2  # [bytes] K and V in 16 bit
SHORT, LONG = 4_000, 64_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    out = tmp_path_factory.mktemp("architecture")
    return architecture.run(out=out, contexts=[SHORT, LONG], gpus=2), out


def row(result: StudyResult, name: str, context: int) -> Any:
    return next(entry for entry in result.rows if (entry["attention"], entry["context"]) == (name, context))


def cached(result: StudyResult, name: str, context: int) -> float:
    return float(row(result, name, context)["KV GiB/session"]) * 2**30


def test_all_have_one_size_and_one_trunk() -> None:
    for trunk in ("llama-3.1-8b", "yi-34b-200k"):
        given = read_trunk(trunk)
        found = architectures(given)
        assert len(found) == len({one.name for one in found}) == 10
        for one in found:
            assert (one.model.hidden, one.model.layers, one.model.query_heads) == (given.hidden, given.layers, given.query_heads), one.name
            assert one.model.parameters.total == pytest.approx(given.parameters.total, rel=1e-3), one.name
    grouped = next(one for one in found if one.name == "GQA")
    assert grouped.model.intermediate == given.intermediate  # the trunk itself needs no other width


def test_caches_by_hand(made: tuple[StudyResult, Path]) -> None:
    result, _ = made
    for context in (SHORT, LONG):
        assert cached(result, "GQA", context) == pytest.approx(GQA_TOKEN * context)
        assert cached(result, "MHA", context) == pytest.approx(cached(result, "GQA", context) * HEADS / KV_HEADS)
        assert cached(result, "MQA", context) == pytest.approx(cached(result, "GQA", context) / KV_HEADS)
        assert cached(result, "shared layers", context) == pytest.approx(cached(result, "GQA", context) / 2)
        assert cached(result, "MLA", context) == pytest.approx(LAYERS * (4 * WIDTH + WIDTH // 2) * 2 * context)
        assert cached(result, "MLA + DSA", context) == pytest.approx(cached(result, "MLA", context) + LAYERS * 128 * 2 * context)
        assert cached(result, "MLA", context) < cached(result, "GQA", context)
    full = LAYERS // 6
    held = full * LONG + (LAYERS - full) * WINDOW
    assert cached(result, "windows 5:1", LONG) == pytest.approx(GQA_TOKEN / LAYERS * held)
    assert cached(result, "windows only", LONG) == pytest.approx(GQA_TOKEN * LONG_WINDOW)  # flat from here on


def test_states_do_not_grow(made: tuple[StudyResult, Path]) -> None:
    result, _ = made
    for name, attends in (("linear 3:1", 8), ("Mamba 7:1", 4)):
        grown = cached(result, name, LONG) - cached(result, name, SHORT)
        assert grown == pytest.approx(GQA_TOKEN / LAYERS * attends * (LONG - SHORT)), name
    assert cached(result, "linear 3:1", SHORT) > GQA_TOKEN / 4 * SHORT  # the state comes on top


def test_a_smaller_cache_serves_more(made: tuple[StudyResult, Path]) -> None:
    result, _ = made
    for context in (SHORT, LONG):
        rates = [row(result, name, context)["sessions/GPU-hour"] for name in ("MHA", "GQA", "shared layers", "MQA")]
        assert rates == sorted(rates)
        assert 0 < rates[0] < rates[-1]
    assert row(result, "windows only", LONG)["sessions/GPU-hour"] == max(
        entry["sessions/GPU-hour"] for entry in result.rows if entry["context"] == LONG
    )
    for entry in result.rows:
        first = row(result, entry["attention"], SHORT)
        assert entry["times its shortest"] == pytest.approx(first["sessions/GPU-hour"] / entry["sessions/GPU-hour"])
        assert entry["times GQA"] == pytest.approx(entry["sessions/GPU-hour"] / row(result, "GQA", entry["context"])["sessions/GPU-hour"])


def test_what_is_written_reads_as_the_model_that_was_used(made: tuple[StudyResult, Path]) -> None:
    result, out = made
    assert (out / "architecture.png").stat().st_size > 0
    assert set(LINES) == {entry["attention"] for entry in result.rows}
    folders = sorted((out / "models").iterdir())
    assert len(folders) == len(LINES)
    for folder in folders:
        assert read_model(str(folder / "config.json")).parameters.total == pytest.approx(8.03e9, rel=1e-3)
    assert json.loads((out / "models" / "mqa" / "config.json").read_text())["num_key_value_heads"] == 1


def test_some_of_them_and_wrong_options() -> None:
    result = architecture.run(attention="MQA,GQA", contexts="4k", gpus=1)
    assert [entry["attention"] for entry in result.rows] == ["GQA", "MQA"]
    for options, field in (
        ({"attention": "GQ"}, "attention"),
        ({"contexts": []}, "contexts"),
        ({"trunk": "mixtral-8x7b-v0.1"}, "trunk"),
        ({"trunk": "gemma-3-27b-it"}, "trunk"),
        ({"context": "4k"}, "option"),
    ):
        with pytest.raises(BadInput) as caught:
            architecture.run(**options)  # type: ignore[arg-type]
        assert caught.value.field == field


def test_what_does_not_fit_is_a_row_and_no_error() -> None:
    result = architecture.run(attention="MHA", contexts="256k", accelerator="l4", gpus=1, trunk="llama-3.1-8b")
    assert result.rows[0]["users/GPU"] == 0
    assert "infeasible" in result.rows[0]["binds"]


def test_names_do_not_lie_on_one_another() -> None:
    places = apart(np.array([0.5, 0.5, 0.5, 0.98, 1.0]), 0.05)
    assert np.diff(places).min() >= 0.05 - 1e-6
    assert places.max() <= 1 + 1e-6
