"""Where an export meets a limit: files that are gone, models without a name, more than one host, small host tiers, plans that no sweep starts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from kvopt.errors import BadInput
from kvopt.export import export, launch_files
from kvopt.results import Result

Grid = dict[str, Result]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
SCRIPTS = {"vllm": "vllm.sh", "sglang": "sglang.sh", "trtllm": "trtllm.sh", "lmcache": "lmcache-vllm.sh", "vllm-bench": "vllm-bench.sh"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mymodel").mkdir()
    (tmp_path / "mymodel" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "mymodel"


def runs(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script with its programs replaced by ones that print their words."""
    stubs = "".join(f'{name}() {{ echo "$@"; }}\n' for name in ("vllm", "python", "trtllm-serve"))
    return subprocess.run(["bash"], input=stubs + script, text=True, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin", **variables})


@pytest.mark.parametrize("engine", list(SCRIPTS))
@pytest.mark.parametrize("file", ["", "config.json"])
def test_a_model_given_as_a_file_has_no_name(grid: Grid, tools: SimpleNamespace, folder: Path, engine: str, file: str) -> None:
    made = export(engine, tools.changed(grid["dense fp8, parked"], {"model": str(folder / file)}))
    script = made.files[SCRIPTS[engine]]
    if engine != "vllm-bench":
        assert "put the checkpoint's path or name into MODEL" in made.notes
    assert runs(script).returncode != 0
    told = runs(script, MODEL="/data/my checkpoint")
    assert (told.returncode, told.stderr) == (0, "")
    assert "/data/my checkpoint" in told.stdout
    assert " mymodel" not in told.stdout


def test_a_folder_beside_a_run_has_no_name_and_a_name_of_the_hub_has(
    grid: Grid, tools: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert '"$MODEL"' in export("vllm", tools.changed(grid["dense"], {"model": "mymodel"})).text
    for name in ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"):
        assert "MODEL" not in export("vllm", tools.changed(grid["dense"], {"model": name})).text


def test_kvpress_takes_the_checkpoint_from_outside(grid: Grid, tools: SimpleNamespace, folder: Path) -> None:
    made = export("kvpress", tools.changed(grid["research"], {"model": str(folder)}))
    assert 'MODEL = os.environ["MODEL"]' in made.text
    assert "import os\n" in made.text
    assert "put the checkpoint's path or name into MODEL" in made.notes
    assert "os.environ" not in export("kvpress", grid["research"]).text


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "lmcache"])
@pytest.mark.parametrize("name", ["dense fp8, parked", "dense, stages", "mixture, experts spread", "bits by layer"])
def test_a_scenario_that_is_gone_is_said_to_be(grid: Grid, tools: SimpleNamespace, folder: Path, engine: str, name: str) -> None:
    gone = folder.parent / "gone.yaml"
    made = export(engine, tools.changed(grid[name], {"accelerator": str(gone)}))
    line = next(line for line in made.cannot if line.startswith("the scenario can no longer be read ("))
    assert line.endswith("checkpoint, length and pool are not checked")
    assert "gone.yaml" in line
    script = made.files[SCRIPTS[engine]]
    assert runs(script).returncode != 0
    assert runs(script, MODEL="mine").stderr == ""
    said = " ".join([*made.notes, *made.cannot])
    for wrong in (
        "no rules are known",
        "the model cannot be read",
        "its workload cannot be read",
        "mixture of experts",
        "dense model",
        "without the methods",
    ):
        assert wrong not in said, wrong


def test_a_length_that_was_saved_is_told_though_the_scenario_is_gone(grid: Grid, tools: SimpleNamespace, tmp_path: Path) -> None:
    made = export("vllm", tools.changed(grid["default"], {"accelerator": str(tmp_path / "gone.yaml")}))
    told = tools.flags(tools.commands(made.text, "vllm")[0])
    assert int(told["max-model-len"]) == grid["default"].data["engine_capacity"]["max_model_len"]


def test_libraries_say_that_the_scenario_is_gone(grid: Grid, tools: SimpleNamespace, tmp_path: Path) -> None:
    gone = {"accelerator": str(tmp_path / "gone.yaml")}
    made = export("kvpress", tools.changed(grid["research"], gone))
    assert made.cannot[0].startswith("the scenario can no longer be read (")
    assert not any("no published heads" in note for note in made.notes)
    made = export("duoattention", tools.changed(grid["research"], {**gone, "head_scores": "scores.tsv"}))
    assert made.cannot[0].startswith("the scenario can no longer be read (")
    assert not any("no file says which" in line for line in made.cannot)


def test_replicas_over_several_hosts_are_servers_and_the_later_ones_comments(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("vllm", tools.changed(grid["dense"], tp=4, replicas=5))
    script = made.files["vllm.sh"]
    assert "data-parallel-size" not in "".join(made.files.values())
    found = tools.commands(script, "vllm")
    assert [tools.flags(words)["port"] for words in found] == ["8000", "8001"]
    assert [script.count(f": start it on host {host}\n") for host in (1, 2, 3)] == [0, 2, 1]
    assert script.count("\n# CUDA_VISIBLE_DEVICES=4,5,6,7 vllm serve") == 1
    told = runs(script)
    assert (told.returncode, told.stderr, told.stdout.count("serve ")) == (0, "", 2)
    assert "20 GPUs are more" in " ".join(made.notes)
    assert "--data-parallel-size 2" in export("vllm", tools.changed(grid["dense"], tp=4, replicas=2)).text


def test_the_proxy_names_the_hosts_of_servers(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("trtllm", tools.changed(grid["dense, prefill apart, parked"], tp=4, replicas=3))
    proxy = yaml.safe_load(made.files["trtllm-disagg.yaml"])
    assert proxy["generation_servers"]["urls"] == ["localhost:8002", "HOST_2:8003"]


def test_servers_larger_than_a_host_have_hosts_of_their_own(grid: Grid, tools: SimpleNamespace) -> None:
    script = export("vllm", tools.changed(grid["dense"], tp=8, pp=2, replicas=2)).files["vllm.sh"]
    assert ": start it on host 3\n" in script


@pytest.mark.parametrize("kind", ["sensitivity", "explain"])
def test_the_plan_of_a_sensitivity_and_of_an_explanation_is_exported(grid: Grid, kind: str) -> None:
    result = Result(kind, grid["dense fp8, parked"].data)
    assert export("vllm", result) == export("vllm", grid["dense fp8, parked"])
    assert launch_files(result) == launch_files(grid["dense fp8, parked"])


def test_trtllm_takes_no_more_requests_than_tokens_a_step(grid: Grid) -> None:
    made = export("trtllm", grid["few tokens a step"])
    assert yaml.safe_load(made.text)["max_batch_size"] == 256
    assert "max_batch_size 700: TensorRT-LLM takes no more requests than tokens a step, 256" in made.cannot
    assert not any(line.startswith("max_batch_size") for line in export("trtllm", grid["dense"]).cannot)


def small(result: Result, parked: float) -> Result:
    """The result with `parked` bytes as the limit of its host memory."""
    rows = [{**row, "limit": parked} if row["name"] == "host_memory" else row for row in result.data["constraints"]]
    metrics = {**result.data["metrics"], "host_memory_used_bytes": parked}
    return Result(result.kind, {**result.data, "constraints": rows, "metrics": metrics})


def test_a_host_tier_below_one_gib_is_said_to_be_left_out(grid: Grid) -> None:
    made = export("vllm", small(grid["dense fp8, parked"], 0.5 * 2**30))
    assert "--kv-offloading-size 0" not in made.text
    assert any(line.startswith("parking:") and "512 MiB" in line for line in made.cannot)
    assert not any("host tier" in note for note in made.notes)
    assert not any(line.startswith("parking:") for line in export("vllm", grid["dense fp8, parked"]).cannot)


@pytest.mark.parametrize(("parked", "told"), [(0.5 * 2**30, 0.5), (0.03 * 2**30, 0.1)])
def test_lmcache_takes_small_tiers(grid: Grid, parked: float, told: float) -> None:
    made = export("lmcache", small(grid["dense fp8, parked"], parked))
    assert yaml.safe_load(made.text)["max_local_cpu_size"] == told
    assert not any("kv-offloading-size" in line for line in made.cannot)
    assert "is 0 GiB" not in " ".join(made.notes)


def test_a_small_tier_beside_prefill_servers_is_told_in_bytes(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("vllm", small(grid["dense, prefill apart, parked"], 2.0**29))
    assert f'"cpu_bytes_to_use": {2**29}' in made.files["vllm.sh"]
    assert not any(line.startswith("parking:") for line in made.cannot)


@pytest.mark.parametrize(("name", "why"), [("dense, prefill apart, parked", "separate prefill groups"), ("bits by layer", "skip-layers")])
def test_a_sweep_without_a_plan_is_refused(grid: Grid, tools: SimpleNamespace, name: str, why: str) -> None:
    for result in (grid[name], tools.pareto(grid[name], grid[name])):
        with pytest.raises(BadInput, match=f"vllm-bench.*{why}"):
            export("vllm-bench", result)
        files = launch_files(result)
        assert "vllm.sh" in files
        assert not any("bench" in file for file in files)


def test_a_front_of_an_older_version_has_no_engine_to_sweep(grid: Grid, tools: SimpleNamespace) -> None:
    front = tools.pareto(grid["dense"])
    for point in (*front.data["points"], front.data["answer"]):
        point["plan"] = {name: value for name, value in point["plan"].items() if name != "engine"}
    with pytest.raises(BadInput, match="vllm-bench"):
        export("vllm-bench", front)
