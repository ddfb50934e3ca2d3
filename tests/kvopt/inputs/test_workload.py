import json
import math

import numpy as np
import pytest
import yaml

from kvopt.catalog import ids
from kvopt.errors import BadInput
from kvopt.inputs.sourced import UNSOURCED
from kvopt.inputs.workload import TASKS, WorkloadSpec, read_workload

FIELDS = ("weight", "prompt", "turns", "question", "answer", "think_s", "shared_prefix")
ATOM = {"prompt": 1000, "turns": 2, "question": 10, "answer": 20, "think_s": 5}
SPEC = {"atoms": [ATOM], "ttft_s": 1, "tpot_s": 0.1}


def written(folder, spec, name="mine.yaml"):
    path = folder / name
    path.write_text(json.dumps(spec) if name.endswith("json") else yaml.safe_dump(spec))
    return str(path)


def test_catalog_has_the_named_workloads():
    assert {"paper-session", "chat", "long-document-qa", "coding-agent", "summarisation", "hour-long-video"} <= set(ids("workloads"))


@pytest.mark.parametrize("id_", ids("workloads"))
def test_catalog_workloads(id_):
    spec = read_workload(id_.upper())
    assert spec.id == id_
    assert spec.description
    assert spec.task in TASKS
    for atom in spec.atoms:
        for name in FIELDS:
            assert getattr(atom, name).source != UNSOURCED
    for target in (spec.ttft_s, spec.ttft_s_per_1k_tokens, spec.tpot_s):
        assert target.source != UNSOURCED
    tree = spec.pytree()
    for name in FIELDS:
        leaf = getattr(tree, name)
        assert leaf.dtype == np.float64
        assert leaf.shape == (len(spec.atoms),)
    assert tree.weight.sum() == pytest.approx(1, abs=1e-15)
    assert tree.reuse_tokens.shape == tree.reuse_hits.shape
    assert np.all(np.diff(tree.reuse_tokens) > 0)
    assert np.all(np.diff(tree.reuse_hits) >= 0)
    assert WorkloadSpec.model_validate_json(spec.model_dump_json()) == spec


def test_paper_session():
    spec = read_workload("paper-session")
    tree = spec.pytree()
    assert [float(getattr(tree, name)[0]) for name in FIELDS] == [1, 50_000, 5, 50, 250, 60, 0]
    assert spec.task == "longbench"
    assert spec.ttft_target_s(50_000) == pytest.approx(30)
    assert spec.tpot_s.value == 0.1
    assert "2405.08944" in spec.atoms[0].prompt.source


def test_chat_keeps_the_means_of_its_trace():
    tree = read_workload("chat").pytree()
    assert tree.weight @ tree.prompt == pytest.approx(1154.7, rel=1e-3)  # Azure 2023 conversation
    assert tree.weight @ tree.answer == pytest.approx(211.1, rel=1e-3)


def test_context_sets_the_prompt_of_a_single_atom():
    spec = read_workload("paper-session").with_session(context=131_072, turns=3, answer=100, followup=0, think=0)
    tree = spec.pytree()
    assert [float(getattr(tree, name)[0]) for name in FIELDS] == [1, 131_072, 3, 0, 100, 0, 0]
    assert spec.atoms[0].prompt.tag == "assumed"
    assert spec.ttft_s == read_workload("paper-session").ttft_s


def test_context_scales_several_atoms_their_prefixes_and_the_cache_these_need():
    before, after = read_workload("long-document-qa").pytree(), read_workload("long-document-qa").with_session(context=100_000).pytree()
    scale = 100_000 / float(before.weight @ before.prompt)
    assert after.weight @ after.prompt == pytest.approx(100_000, rel=1e-12)
    np.testing.assert_allclose(after.prompt, before.prompt * scale)
    np.testing.assert_allclose(after.shared_prefix, before.shared_prefix * scale)
    np.testing.assert_allclose(after.reuse_tokens, before.reuse_tokens * scale)
    np.testing.assert_array_equal(after.reuse_hits, before.reuse_hits)
    np.testing.assert_array_equal(after.answer, before.answer)


def test_no_override_changes_nothing():
    spec = read_workload("chat")
    assert spec.with_session() == spec


@pytest.mark.parametrize("change", [{"context": 0}, {"context": math.nan}, {"turns": 0}, {"answer": math.inf}, {"followup": -1}, {"think": -1}])
def test_impossible_session(change):
    with pytest.raises(BadInput, match=f"^{next(iter(change))}: .*must be a number"):
        read_workload("paper-session").with_session(**change)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json"])
def test_file_of_ones_own(tmp_path, name):
    spec = read_workload(written(tmp_path, SPEC, name))
    assert spec.id == "mine"
    assert spec.atoms[0].prompt.tag == "assumed"
    tree = spec.pytree()
    assert tree.weight.tolist() == [1]
    assert tree.reuse_hits.tolist() == [0, 0]


def test_weights_in_any_unit(tmp_path):
    spec = read_workload(written(tmp_path, {**SPEC, "atoms": [{**ATOM, "weight": 3}, {**ATOM, "weight": 1}]}))
    assert spec.pytree().weight.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"atoms": []}, "atoms", "at least 1"),
        ({"atoms": [{**ATOM, "prompt": 0}]}, "atoms.0.prompt", "greater than or equal to 1"),
        ({"atoms": [{**ATOM, "think_s": -1}]}, "atoms.0.think_s", "greater than or equal to 0"),
        ({"atoms": [{**ATOM, "weight": 0}]}, "atoms.0.weight", "greater than 0"),
        ({"atoms": [{**ATOM, "promt": 5}]}, "atoms.0.promt", "did you mean prompt"),
        ({"atoms": [{**ATOM, "shared_prefix": 2000}]}, "atoms.0", "must not be above prompt"),
        ({"atoms": [{**ATOM, "shared_prefix": 100}]}, "", "need reuse"),
        ({"task": "chess"}, "task", "longbench"),
        ({"ttft_s": 0}, "ttft_s", "greater than 0"),
        ({"ttft": 1}, "ttft", "did you mean ttft_s"),
        ({"reuse": {"tokens": [0, 10], "hits": [0, 1.5], "source": "x", "tag": "assumed"}}, "reuse", "must rise"),
        ({"reuse": {"tokens": [10, 0], "hits": [0, 1], "source": "x", "tag": "assumed"}}, "reuse", "must rise"),
        ({"reuse": {"tokens": [0, 10], "hits": [0], "source": "x", "tag": "assumed"}}, "reuse", "equally long"),
    ],
)
def test_bad_files(tmp_path, change, field, why):
    with pytest.raises(BadInput, match=why) as caught:
        read_workload(written(tmp_path, {**SPEC, **change}))
    assert caught.value.field == f"workload.{field}".rstrip(".")
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_id_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean paper-session"):
        read_workload("paper-sesion")


def test_other_kinds_of_file(tmp_path):
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(BadInput, match=r"must be a catalog id, or a file that ends in .*\.jsonl"):
        read_workload(str(tmp_path / "w.txt"))


def test_trace_becomes_a_workload_with_targets(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text("prompt_tokens,answer_tokens\n100,10\n300,0\n")
    spec = read_workload(str(path))
    assert spec.id == "calls"
    assert [atom.prompt.value for atom in spec.atoms] == [100, 300]
    assert [atom.answer.value for atom in spec.atoms] == [10, 1]
    assert spec.atoms[0].prompt.source == "trace calls.csv"
    assert spec.tpot_s == read_workload("paper-session").tpot_s
