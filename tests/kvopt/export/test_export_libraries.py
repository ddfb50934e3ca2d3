"""KVTuner, DuoAttention and kvpress: files that kvopt's own readers take back to the same plan, and code that is Python."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvopt.export import export
from kvopt.export.presses import removed
from kvopt.inputs import method as methods
from kvopt.inputs.head_scores import read_table
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.layer_bits import read_layer_bits
from kvopt.results import Result

Grid = dict[str, Result]


def test_bits_by_layer_are_read_back(grid: Grid, tmp_path: Path) -> None:
    made = export("kvtuner", grid["bits by layer"])
    (tmp_path / "kvtuner.yaml").write_text(made.text)
    found = read_layer_bits(tmp_path / "kvtuner.yaml", read_model("llama-3.1-8b"))
    table = np.array(grid["bits by layer"].data["plan"]["blocks"]["key_bits"])[:, 0]
    np.testing.assert_array_equal(found.key, table)
    np.testing.assert_array_equal(found.value, table)


def test_a_plan_that_is_the_same_everywhere_is_written_for_every_layer(grid: Grid, tmp_path: Path) -> None:
    path = tmp_path / "kvtuner.yaml"
    path.write_text(export("kvtuner", grid["turboquant"]).text)
    found = read_layer_bits(path, read_model("llama-3.1-8b"))
    assert set(found.key[2:-2]) == {4.0}
    assert set(found.key[[0, 1, -2, -1]]) == {16.0}  # this format keeps two layers at both ends in 16 bit


def test_heads_of_a_layer_that_differ_cannot_be_told_to_kvtuner(grid: Grid, tools: SimpleNamespace) -> None:
    bits = [[8.0] * 7 + [4.0]] * 32
    made = export("kvtuner", tools.changed(grid["bits by layer"], blocks={"per": "head", "key_bits": bits, "value_bits": bits}))
    assert any(line.startswith("bits by layer") for line in made.cannot)


def test_heads_are_read_back(grid: Grid, tools: SimpleNamespace, tmp_path: Path) -> None:
    keep = (np.random.default_rng(0).random((32, 8)) < 0.5).astype(float)
    share = float(keep.mean())
    plan = {"methods": ["duoattention"], "head_keep": share, "where": "research library", "blocks": {"per": "head", "head_keep": keep.tolist()}}
    made = export("duoattention", tools.changed(grid["dense"], **plan))
    path = tmp_path / "full_attention_heads.tsv"
    path.write_text(made.text)
    found = read_table(path, read_model("llama-3.1-8b"))
    assert (found.kind, found.keeps) == ("plan", "head_keep")
    np.testing.assert_array_equal(found.values, keep)
    np.testing.assert_array_equal(np.loadtxt(path, delimiter="\t"), keep)
    assert made.cannot == ()


def test_heads_come_from_the_scores_that_the_scenario_names(grid: Grid, tools: SimpleNamespace, tmp_path: Path) -> None:
    """A quarter of 256 heads: the 64 with the highest gates."""
    gates = np.random.default_rng(1).permutation(256).reshape(32, 8) / 255
    np.savetxt(tmp_path / "gates.tsv", gates, delimiter="\t")
    asked = {"head_scores": str(tmp_path / "gates.tsv")}
    result = tools.changed(grid["dense"], asked, methods=["duoattention"], head_keep=0.25, where="research library")
    made = export("duoattention", result)
    (tmp_path / "plan.tsv").write_text(made.text)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "plan.tsv"), gates >= 192 / 255)
    assert read_table(tmp_path / "plan.tsv", read_model("llama-3.1-8b")).scored_by is not None


def test_without_scores_a_pattern_is_said_to_be_needed(grid: Grid) -> None:
    line = export("duoattention", grid["research"]).cannot[0]
    assert "pattern" in line
    assert "mit-han-lab/duo-attention" in line


@pytest.mark.parametrize("name", ["research", "dense", "turboquant", "latent"])
def test_the_code_is_python_and_removes_what_the_plan_drops(grid: Grid, name: str) -> None:
    made = export("kvpress", grid[name])
    tree = ast.parse(made.text)
    calls = {
        node.func.id: {word.arg: ast.unparse(word.value) for word in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    plan = grid[name].data["plan"]
    if "snapkv" in plan["methods"]:
        assert float(calls["SnapKVPress"]["compression_ratio"]) == 1 - plan["token_keep"]
        assert float(calls["DuoAttentionPress"]["head_compression_ratio"]) == 1 - plan["head_keep"]
        assert calls["QuantizedCache"]["nbits"] == "4"
    else:
        assert not any(called.endswith("Press") for called in calls)


def test_the_share_removed_is_free_of_rounding() -> None:
    assert removed(0.9) == 0.1


def test_every_press_of_the_catalog_is_written_or_said_not_to_be(grid: Grid, tools: SimpleNamespace) -> None:
    fields = {"layer": "layer_keep", "head": "head_keep", "token": "token_keep", "rank": "key_rank"}
    written = 0
    for method in methods.load_all():
        if method.dimension not in fields or not any(entry.version.startswith("kvpress") for entry in method.runs_in):
            continue
        plan = {"methods": [method.id], fields[method.dimension]: 0.5, "where": "research library"}
        made = export("kvpress", tools.changed(grid["dense"], **plan))
        ast.parse(made.text)
        pressed = "Press(" in made.text.split("def build_press")[1].split("def build_cache")[0]
        assert pressed or any(line.startswith(method.id) for line in made.cannot), method.id
        written += pressed
    assert written >= 25


def test_presses_that_compose_with_none_are_left_out(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("kvpress", tools.changed(grid["dense"], methods=["kvzip", "think"], token_keep=0.5, key_rank=0.5, where="research library"))
    assert "KVzipPress(" not in made.text
    assert any(line.startswith("KVzipPress") for line in made.cannot)


def test_shares_by_layer_are_a_list_of_what_is_removed(grid: Grid, tools: SimpleNamespace) -> None:
    keep = [[1.0], [0.25], *[[0.5]] * 30]
    plan = {"methods": ["snapkv"], "token_keep": 0.5, "where": "research library", "blocks": {"per": "layer", "token_keep": keep}}
    code = export("kvpress", tools.changed(grid["dense"], **plan)).text
    assert "PerLayerCompressionPress(SnapKVPress(" in code
    assert "[0.0, 0.75, 0.5," in code
