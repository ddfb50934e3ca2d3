"""The study `sensitivity`: the numbers of `kvopt.sensitivity`, in their order, and what changes with the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvopt
from kvopt.errors import BadInput
from studies import sensitivity
from studies.result import StudyResult

SHORT, LONG = 8_000, 128_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    out = tmp_path_factory.mktemp("sensitivity")
    return sensitivity.run(out=out, context=SHORT, contexts=[LONG]), out


def of(result: StudyResult, context: int) -> list[Any]:
    return [row for row in result.rows if row["context"] == context]


def test_the_numbers_are_those_of_the_verb(made: tuple[StudyResult, Path]) -> None:
    result, out = made
    entries = kvopt.sensitivity(**{**sensitivity.DEFAULT, "context": SHORT}).data["elasticities"]
    rows = of(result, SHORT)
    assert {row["input"] for row in rows} == set(entries)
    for row in rows:
        entry = entries[row["input"]]
        assert (row["less"], row["more"]) == (entry["left"], entry["right"]), row["input"]
        bought = entry["per_unit"]
        assert row["unit"] == bought["unit"]
        assert row["sessions/GPU-hour per unit"] == bought["sessions_per_gpu_hour"]
        assert (row["sessions/GPU-hour per unit, ends"] == "") == ("sessions_per_gpu_hour_interval" not in bought)
    assert any(row["more"] for row in rows)
    assert (out / "sensitivity.png").stat().st_size > 0


def test_worth_most_comes_first(made: tuple[StudyResult, Path]) -> None:
    result, _ = made
    for context in (SHORT, LONG):
        worths = [sensitivity.worth(row) for row in of(result, context)]
        assert worths == sorted(worths, reverse=True)
        assert worths[0] > 0.1
        told = next(note for note in result.notes if note.startswith(f"{context:,} tokens"))
        assert f"worth most is {of(result, context)[0]['input']} " in told


def test_computing_matters_more_the_longer_the_context(made: tuple[StudyResult, Path]) -> None:
    result, _ = made
    worth = {context: {row["input"]: sensitivity.worth(row) for row in of(result, context)} for context in (SHORT, LONG)}
    assert worth[LONG]["flops"] > 2 * worth[SHORT]["flops"] > 0
    assert worth[LONG]["think_time"] < worth[SHORT]["think_time"]
    assert result.shown == tuple(place for place, row in enumerate(result.rows) if row["context"] == SHORT)


def test_an_interval_counts_by_its_further_end() -> None:
    row = {"less": None, "less, from": -0.4, "less, to": -0.2, "more": 0.1, "more, from": None, "more, to": None}
    assert sensitivity.worth(row) == pytest.approx(0.4)
    assert sensitivity.worth({**row, "less, from": None, "less, to": None}) == pytest.approx(0.1)
    assert sensitivity.worth(dict.fromkeys(row)) == 0


def test_infeasible_is_said_and_options_are_checked() -> None:
    result = sensitivity.run(context="4k", contexts="4k", model="llama-3.1-70b", accelerator="l4", gpus=1)
    assert not result.ok
    assert "nobody is served" in " ".join(result.notes)
    for options in ({"context": "many"}, {"contexts": "4k,x"}, {"per": "layer"}, {"accelerators": "l4"}):
        with pytest.raises(BadInput):
            sensitivity.run(**options)  # type: ignore[arg-type]
