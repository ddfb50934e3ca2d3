"""The study `codesign`: a table with the three answers, printed and plain."""

from __future__ import annotations

import json

import pytest

from kvopt import codesign as search
from studies import codesign
from studies.result import StudyResult


@pytest.fixture(scope="module")
def result() -> StudyResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "STEPS", 12)
        return codesign.run(method="duoattention", accuracy_floor=0.5)


def test_every_question_has_its_rows(result: StudyResult) -> None:
    kinds = [row["question"] for row in result.rows]
    assert sum(kind.startswith("least for") for kind in kinds) == len(codesign.ASKED) + 1
    assert sum(kind == "1M at the cost of 4K" for kind in kinds) == 10
    assert sum(kind == "best card per dollar" for kind in kinds) == 6


def test_answers_agree_with_their_ratio(result: StudyResult) -> None:
    for row in result.rows:
        if row["answer"] is None:
            assert row["times"] is None
            assert "not by this alone" in row["remark"] or "no ratio" in row["remark"]
        elif "kept" in row["of"]:
            assert row["times"] == pytest.approx(1 / row["answer"])
        elif row["question"].startswith(("least", "best")):
            assert row["times"] == pytest.approx(row["answer"] / row["at hand"])


def test_the_notes_say_how_far_the_price_is_off(result: StudyResult) -> None:
    told = " ".join(result.notes)
    assert "(derived)" in told
    assert "on cards left out" in told
    assert "a random search of as many cards" in told
    assert json.loads(result.to_json())["ok"]
