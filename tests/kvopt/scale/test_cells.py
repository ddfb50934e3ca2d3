from __future__ import annotations

import json

import pytest

from kvopt.compiling import clock
from kvopt.errors import BadInput
from kvopt.scale import cells as module
from kvopt.scale.cells import cells, solve

TINY = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}


def one(verb="analyze", seed=0, **changed):
    (cell,) = cells({**TINY, **changed}, verb, {}, seed)
    return cell


def test_every_combination_is_a_cell_with_its_own_name_seed_and_key():
    found = cells({**TINY, "context": ["16k", "32k"], "gpus": [1, 2, 4]}, "analyze", {})
    assert [cell.at for cell in found] == [{"gpus": gpus, "context": context} for gpus in (1, 2, 4) for context in ("16k", "32k")]
    for what in ("name", "seed", "key"):
        assert len({getattr(cell, what) for cell in found}) == 6


def test_a_cell_is_the_same_whatever_stands_beside_it():
    (alone,) = cells({**TINY, "context": ["32k"]}, "analyze", {})
    beside = cells({**TINY, "context": ["16k", "32k"]}, "analyze", {})[1]
    assert (alone.name, alone.seed, alone.key) == (beside.name, beside.seed, beside.key)
    assert one(seed=1).seed != one().seed


def test_the_key_follows_the_question_its_files_and_the_program(tmp_path, monkeypatch):
    assert len({one().key, one(ttft="2s").key, one("optimize").key, one(seed=1).key}) == 4
    file = tmp_path / "evidence.csv"
    file.write_text("a")
    before, key = one(accuracy_evidence=str(file)), one().key
    name_and_key = before.name, before.key
    file.write_text("b")
    after = one(accuracy_evidence=str(file))
    assert after.name == name_and_key[0]
    assert after.key != name_and_key[1]
    monkeypatch.setattr(module, "program", lambda: "another version")
    assert one().key != key


@pytest.mark.parametrize(
    ("fields", "verb", "message"),
    [({"modl": "x"}, "analyze", "did you mean model"), ({}, "optimise", "did you mean optimize"), ({"gpus": []}, "analyze", "at least one value")],
)
def test_a_sweep_that_cannot_be_is_refused(fields, verb, message):
    with pytest.raises(BadInput, match=message):
        cells(fields, verb, {})


def test_what_cannot_be_read_or_met_is_an_answer():
    unread = solve(one(model="no-such-model"))
    assert unread["status"] == "bad input"
    assert "no-such-model: not known" in unread["reason"]
    assert solve(one(gpus=2, tp=3))["reason"] == "tp: 3: must not exceed the 2 gpus"
    unmet = solve(one(model="llama-3.1-70b"))
    assert unmet["status"] == "infeasible"
    assert "do not fit" in unmet["reason"]
    assert "least change: --gpus" in unmet["reason"]


def test_a_second_cell_of_one_shape_compiles_nothing_and_a_cell_is_the_same_again():
    seconds = clock()
    first = solve(one())
    before = seconds.seconds
    other = solve(one(context="48k", model="mistral-7b-v0.3", accelerator="h200-sxm", ttft="9s"))
    assert seconds.seconds == before
    assert other["result"]["metrics"] != first["result"]["metrics"]
    assert json.dumps(solve(one())) == json.dumps(first)


def test_times_are_no_part_of_an_answer():
    data = {"search": {"seconds": 1.0, "compile_seconds": 2.0, "evaluations": 3}, "answer": {"search": {"seconds": 4.0}, "seconds": 5.0}}
    assert module._lasting(data) == {"search": {"evaluations": 3}, "answer": {"search": {}, "seconds": 5.0}}
