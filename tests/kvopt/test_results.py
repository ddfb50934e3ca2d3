"""A run folder keeps what was found, whatever happens while it is written, and gives it back as it was."""

from __future__ import annotations

import errno
import json
import os

import pytest

from kvopt import results, study
from kvopt.errors import BadInput
from kvopt.plots import save_all
from kvopt.results import FORMAT, Result, chosen, load, write_files


@pytest.fixture
def saved(fronts, tmp_path):
    kept = Result("pareto", fronts.data, ("a warning",), True, {"a": 1}, {"heads.tsv": "1\t0\n"})
    kept.save(tmp_path / "run")
    return kept, tmp_path / "run"


def test_a_run_is_loaded_as_it_was(saved):
    kept, folder = saved
    assert load(folder) == kept
    assert load(folder / "result.json") == kept


def test_pictures_of_a_loaded_run_are_the_same_to_the_byte(saved, tmp_path):
    kept, folder = saved
    first, again = save_all(kept, tmp_path / "first"), save_all(load(folder), tmp_path / "again")
    assert [path.name for path in first] == [path.name for path in again] != []
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def rewritten(folder, **changes):
    file = folder / "result.json"
    whole = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in whole.items() if value is not None}))


def test_a_run_of_a_newer_format_is_refused_with_the_reason(saved):
    _, folder = saved
    rewritten(folder, format=FORMAT + 1, run={"versions": {"kvopt": "9.0.0"}})
    with pytest.raises(BadInput, match=rf"run folder: .*: written by kvopt 9.0.0 in format {FORMAT + 1}, and this one reads up to {FORMAT}"):
        load(folder)


def test_a_run_from_before_formats_were_numbered_is_read(saved):
    kept, folder = saved
    rewritten(folder, format=None, files=None)
    assert load(folder).data == kept.data


@pytest.mark.parametrize("text", ["[]", "{}", "null", "not json", '{"kind": "pareto"}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(BadInput, match=r"run folder: .*: not a result of kvopt"):
        load(tmp_path)


def test_a_file_that_is_missing_from_a_run_is_named(saved):
    _, folder = saved
    (folder / "heads.tsv").unlink()
    with pytest.raises(BadInput, match=r"run folder: .*: heads\.tsv cannot be read"):
        load(folder)


def test_a_full_disk_leaves_what_was_written_and_nothing_half_written(tmp_path, monkeypatch):
    (tmp_path / "b.txt").write_text("old")
    whole = os.fsync
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(handle)

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(BadInput, match=r"out: .*b\.txt: cannot be written \(No space left on device\)"):
        write_files(tmp_path, {"a.txt": "new", "b.txt": "new", "c.txt": "new"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "new", "b.txt": "old"}


def test_chosen_is_the_recommended_plan_or_a_point_of_the_front(fronts):
    assert chosen(fronts) is fronts.data["answer"]
    assert chosen(fronts, 1) is fronts.data["points"][1]
    with pytest.raises(BadInput, match=rf"point: 99: one of 0 to {len(fronts.data['points']) - 1}"):
        chosen(fronts, 99)
    with pytest.raises(BadInput, match="point: -1"):
        chosen(fronts, -1)


def test_chosen_where_there_is_no_plan_or_no_front(optimized, infeasible):
    with pytest.raises(BadInput, match="has no front"):
        chosen(optimized, 0)
    with pytest.raises(BadInput, match="recommends no plan"):
        chosen(infeasible)


def test_frame_has_a_row_for_each_point(fronts):
    pandas = pytest.importorskip("pandas")
    frame = fronts.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(fronts.data["points"])
    assert {"front", "methods", "sessions_per_gpu_hour"} <= set(frame.columns)


def test_the_table_of_a_study_is_no_run(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"title": "t", "columns": [], "rows": [], "notes": [], "ok": True}))
    with pytest.raises(BadInput, match="holds the table of a study"):
        load(tmp_path)


def test_what_kvopt_did_not_write_stays_where_it_is(tmp_path):
    for name in ("result.json", "front.png", "notes.txt", ".env"):
        (tmp_path / name).write_text(name)
    results.kept_runs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"previous-1", "notes.txt", ".env"}
    assert {path.name for path in (tmp_path / "previous-1").iterdir()} == {"result.json", "front.png"}


def test_a_study_asked_wrongly_leaves_the_run_that_was_there(tmp_path):
    study.run("paper", out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadInput, match=r"option\.count"):
        study.run("simulation", out=tmp_path, count="many")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
