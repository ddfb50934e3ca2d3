import pytest

import kvopt
from kvopt import plots

NAMES = ["ledger", "session_cost", "roofline", "elasticities", "heat_map"]


def test_everything_that_there_is_data_for(explained, played, tmp_path):
    paths = plots.save_all(explained, tmp_path / "answer")
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    assert [path.name for path in plots.save_all(played, tmp_path / "played")] == ["timeline.png", "timeline.svg"]


def test_a_front_has_its_answers_pictures_too(fronts, explained):
    assert plots.drawable(fronts) == ["front", "ledger"]
    fronts.data["answer"] = explained.data
    assert plots.drawable(fronts) == ["front", *NAMES]


@pytest.mark.parametrize("which", ["explained", "fronts", "played", "infeasible"])
def test_a_loaded_run_gives_the_same_files(which, request, tmp_path):
    result = request.getfixturevalue(which)
    result.save(tmp_path / "run")
    with_it, loaded = plots.save_all(result, tmp_path / "one"), plots.save_all(kvopt.load(tmp_path / "run"), tmp_path / "two")
    assert [path.name for path in with_it] == [path.name for path in loaded] != []
    assert [path.read_bytes() for path in with_it] == [path.read_bytes() for path in loaded]


def test_a_result_without_a_plan(optimized):
    sensitivity = kvopt.Result("sensitivity", {"scenario": optimized.data["scenario"], "elasticities": optimized.data["elasticities"]})
    assert plots.drawable(sensitivity) == ["elasticities"]
