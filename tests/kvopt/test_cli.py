"""The command line: bad input is one line and exit code 2, infeasible is 1 and an answer, and `--json` is one object and nothing else."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from kvopt import api, arguments, cli, results
from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.hierarchy import PARAMETERS

CARD = "memory_gb: 80\nmemory_bandwidth_gbs: 2039\nbf16_tflops: 312\n"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:50.99,-5,109\n"
FILES = {
    "typo.yaml": "contxt: 4k\n",
    "list.yaml": "- 1\n",
    "broken.yaml": "model: x\ncontext: [\n",
    "number.yaml": "5: 4k\n",
    "nan.yaml": "context: .nan\n",
    "cut.json": json.dumps(CONFIG)[:40],
    "words.json": "hello",
    "partial.json": json.dumps(CONFIG),
    "family.json": json.dumps({**CONFIG, "model_type": "lama"}),
    "columns.csv": "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.68,374\n",
    "negative.csv": AZURE,
    "card.yaml": CARD + "memory_bandwith_gbs: 2000\n",
    "poor-card.yaml": "memory_gb: 80\nbf16_tflops: 312\n",
    "negative-card.yaml": CARD.replace("312", "-312"),
    "file": "",
    "option.yaml": "study: paper\nmodl: yi-34b-200k\n",
    "nameless.yaml": "model: yi-34b-200k\n",
    "value.yaml": "study: paper\nmodel: 5\n",
    "field.yaml": "study: context_scaling\ngpu: 4\n",
    "context.yaml": "study: context_scaling\ncontext: 4k\n",
    "zero.yaml": "study: context_scaling\ncontexts: [4k, 0]\n",
    "goals.yaml": "study: pareto\nobjectives: [ttft, tpot_s]\n",
}
REFUSED = [
    ("analyze --model lama-3.1-70b", "model: lama-3.1-70b: not known; did you mean llama-3.1-70b"),
    ("analyze --accelerator h100-smx", "accelerator: h100-smx: not known; did you mean h100-sxm"),
    ("analyze --engine vlm", "engine: vlm: not known; did you mean vllm?"),
    ("analyze --workload paper-sesion", "did you mean paper-session?"),
    ("analyze --task longbech", "did you mean longbench?"),
    ("analyze --weights fp9", "weight format: fp9: one of bf16"),
    ("analyze --fidelity peek", "fidelity: peek: must be 'peak' or 'calibrated'"),
    ("analyze --contxt 4k", "--contxt: not known; did you mean --context"),
    ("analyze --contxt=4k", "--contxt: not known; did you mean --context"),
    ("analyze --context", "--context: expected one argument"),
    ("analize", "analize: not known; did you mean analyze"),
    ("catalog model", "model: not known; did you mean models"),
    ("cache wipe", "wipe: not known; one of clear"),
    ("analyze --config typo.yaml", "contxt: not known; did you mean context?"),
    ("analyze --config list.yaml", "must be a mapping"),
    ("analyze --config broken.yaml", "not YAML, line 3"),
    ("analyze --config number.yaml", "5: not known"),
    ("analyze --config nan.yaml", "context: nan: must be a whole number of tokens"),
    ("analyze --config nowhere.yaml", "nowhere.yaml: cannot be read"),
    ("analyze --context 0", "context: 0: must be a whole number of tokens"),
    ("analyze --context -5", "context: -5: must be a whole number of tokens"),
    ("analyze --context nan", "context: nan: must be a whole number of tokens"),
    ("analyze --turns nan", "turns: nan: must be 1 or more"),
    ("analyze --ttft 0", "ttft: 0: must be a time above zero"),
    ("analyze --gpus 0", "gpus: 0: must be 1 or more"),
    ("analyze --gpus 3 --tp 3", "tp: 3: must divide the 56 query heads"),
    ("analyze --gpus 2 --tp 4", "tp: 4: must not exceed the 2 gpus"),
    ("analyze --accuracy-floor 1.5", "accuracy_floor: 1.5: must be above 0 and at most 1"),
    ("analyze --confidence nan", "confidence: nan: must be at least 0.5 and below 1"),
    ("analyze --model cut.json", "cut.json: is not JSON"),
    ("analyze --model words.json", "words.json: is not JSON"),
    ("analyze --model partial.json", "num_attention_heads: missing"),
    ("analyze --model family.json", "model_type: lama: not a family kvopt knows"),
    ("analyze --model nowhere/config.json", "cannot be read"),
    ("analyze --workload columns.csv", "columns.csv line 1"),
    ("analyze --workload negative.csv", "negative.csv line 3, prompt_tokens: -5"),
    ("analyze --accelerator card.yaml", "not a field of card.yaml; did you mean memory_bandwidth_gbs?"),
    ("analyze --accelerator poor-card.yaml", "memory_bandwidth_gbs: missing: must be given in poor-card.yaml"),
    ("analyze --accelerator negative-card.yaml", "bf16_tflops: -312: input should be greater than 0"),
    ("analyze --out file", "out: file: cannot be written"),
    ("analyze --out file/deeper", "cannot be written"),
    ("analyze --out=", "out: '': must name a folder"),
    ("analyze --methods kivi", "kivi: say which bits"),
    ("analyze --methods kivi:3", "kivi:3: its bits are 2, 4"),
    ("analyze --methods kivvi:4", "kivvi: not known; did you mean kivi"),
    ("analyze --methods duoattention", "needs the share it keeps"),
    ("analyze --methods fp8,kivi:4", "at most one per dimension"),
    ("optimize --objective sesions_per_gpu_hour", "did you mean sessions_per_gpu_hour"),
    ("optimize --model inkling", "does not hold parameters"),
    ("pareto --objectives ttft_s", "give 2 to 4 different ones"),
    ("pareto --per layer --chance 32", "knows no plans per layer or head"),
    ("study run papr", "papr: not known; did you mean paper"),
    ("study run", "needs a name"),
    ("study run nowhere.yaml", "cannot be read"),
    ("study run option.yaml", "modl: not known; did you mean model?"),
    ("study run nameless.yaml", "must say which study it runs"),
    ("study run value.yaml", "model: 5: input should be a valid string"),
    ("study run field.yaml", "gpu: not known; did you mean gpus?"),
    ("study run context.yaml", "this study takes several: contexts"),
    ("study run zero.yaml", "contexts: 0: must be a whole number of tokens"),
    ("study run goals.yaml", "ttft: not known; did you mean ttft_s"),
    ("study run paper --out file", "out: file: cannot be written"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A folder of its own, and no compilation cache: that is a choice for the whole process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_compiled", lambda: None)


@pytest.fixture
def run(capsys):
    def command(text):
        code = cli.main(text.split())
        return code, *capsys.readouterr()

    return command


def strict(text):
    """One JSON object without NaN or infinities."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, command, said):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    code, out, err = run(command)
    assert code == 2
    assert out == ""
    assert err.startswith("kvopt: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no read-only place is known here")
def test_a_read_only_place(run):
    code, out, err = run("analyze --out /proc/kvopt")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be written" in err


@pytest.mark.parametrize("verb", ["analyze", "optimize"])
def test_weights_that_do_not_fit_are_infeasible_and_still_an_answer(run, verb):
    code, out, err = run(f"{verb} --model llama-3.1-70b --accelerator rtx-4090 --gpus 1 --json")
    found = strict(out)
    assert code == 1
    assert err == ""
    assert found["infeasible"]["constraint"] == "hbm"
    assert found["infeasible"]["value"] > found["infeasible"]["limit"]
    ledger = found["infeasible"]["ledger"]
    assert ledger["left"] == pytest.approx(ledger["usable"] - ledger["reserve"] - ledger["weights"])
    assert ledger["weights"] == pytest.approx(found["metrics"]["weight_bytes"]) == pytest.approx(141.1e9, rel=0.01)
    assert "--gpus" in found["infeasible"]["change"]
    assert found["metrics"]["sessions_per_gpu_hour"] == 0
    assert found["metrics"]["cost_per_session_usd"] is None


def test_infeasible_without_json(run):
    code, out, _ = run("analyze --model llama-3.1-70b --accelerator rtx-4090 --gpus 1")
    assert code == 1
    assert "nfeasible" in out
    assert "--gpus" in out


def test_json_is_one_object(run):
    code, out, err = run("analyze --json")
    found = strict(out)
    assert (code, err) == (0, "")
    assert {"scenario", "plan", "metrics", "constraints", "bottleneck"} <= set(found)
    assert all(value is None or math.isfinite(value) for value in found["metrics"].values())


def test_a_context_beyond_the_models_is_a_warning(run):
    code, out, err = run("analyze --gpus 8 --context 300k --ttft 1h --json")
    assert code == 0
    assert strict(out)["metrics"]["sessions_per_gpu_hour"] > 0
    assert err.count("\n") == 1
    assert "301,500 tokens exceed the 200,000" in err


def test_command_line_before_file_before_default(tmp_path):
    (tmp_path / "mine.yaml").write_text("gpus: 4\naccuracy-floor: 0.9\ncontext: 64k\n")
    asked = arguments.scenario(arguments.parse(["analyze", "--config", "mine.yaml", "--context", "32k"]))
    assert (asked.gpus, asked.accuracy_floor, asked.context, asked.model) == (4, 0.9, "32k", "yi-34b-200k")


def test_out_keeps_an_earlier_run(run, tmp_path):
    pictures = {f"{name}.{kind}" for name in ("ledger", "roofline", "session_cost") for kind in ("png", "svg")}
    launch = {"vllm.sh", "vllm.yaml", "vllm-bench.sh", "vllm-bench-serve.json", "vllm-bench-load.json", "lmcache.yaml", "lmcache-vllm.sh"}
    files = {"result.json", "points.csv", "scenario.yaml", "report.html"} | pictures | launch
    assert run("analyze --out kept")[0] == 0
    first = (tmp_path / "kept" / "result.json").read_text()
    code, out, err = run("analyze --context 30k --json --out kept")
    assert code == 0
    assert "written to kept" in err
    assert {path.name for path in (tmp_path / "kept").iterdir()} == files | {"previous-1"}
    assert {path.name for path in (tmp_path / "kept" / "previous-1").iterdir()} == files
    assert (tmp_path / "kept" / "previous-1" / "result.json").read_text() == first
    assert results.load(tmp_path / "kept").data == strict(out)
    code, again, _ = run("analyze --config kept/scenario.yaml --json")
    assert code == 0
    assert strict(again)["metrics"] == strict(out)["metrics"]


def test_pareto_makes_a_folder_of_its_own(run, tmp_path, monkeypatch, fronts):
    monkeypatch.setattr(api, "pareto", lambda *_, **__: fronts)
    assert run("pareto")[0] == run("pareto")[0] == 0
    assert sorted(path.name for path in (tmp_path / "kvopt-runs").iterdir()) == ["yi-34b-200k-a100-80-sxm-x2-001", "yi-34b-200k-a100-80-sxm-x2-002"]
    assert run("pareto --json")[0] == 0
    assert len(list((tmp_path / "kvopt-runs").iterdir())) == 2


def test_catalog(run):
    code, out, _ = run("catalog accelerators a100-80-sxm --json")
    assert code == 0
    assert strict(out)["memory_bandwidth_gbs"]["value"] == 2039
    assert "h100-sxm" in run("catalog accelerators")[1]
    assert strict(run("catalog models llama-3.1-70b --json")[1])["id"].endswith("llama-3.1-70b")


def test_catalog_of_profiles(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("catalog profiles")
    assert code == 0
    assert any({"h100-sxm", "vllm", "fp8"} <= set(line.split()) and "±" in line for line in out.splitlines())
    groups = {entry["id"]: entry for entry in strict(run("catalog profiles --json")[1])}
    assert groups["h100-sxm vllm fp8"]["rows"] > 10


def test_one_profile(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["catalog", "profiles", "h100-sxm vllm fp8"]) == 0
    out = capsys.readouterr().out
    for name, one in PARAMETERS.items():
        assert any(line.split()[:1] == [name] and one.about in line for line in out.splitlines()), name
    assert cli.main(["catalog", "profiles", "h100-sxm vllm fp8", "--json"]) == 0
    found = strict(capsys.readouterr().out)
    known = profile.closest(read_accelerator("h100-sxm"), "vllm", "fp8")
    assert set(found["parameters"]) == set(PARAMETERS)
    assert found["parameters"]["server_s"]["unit"] == "ms"
    assert found["parameters"]["server_s"]["value"] == pytest.approx(1e3 * known.figures["server_s"].value)
    assert found["parameters"]["mfu"]["value"] == pytest.approx(known.figures["mfu"].value)
    assert found["sources"]
    assert cli.main(["catalog", "profiles", "h100-smx vllm fp8"]) == 2
    assert capsys.readouterr().err.startswith("kvopt: profile: h100-smx vllm fp8: not known; did you mean h100-sxm vllm fp8")


def test_version_and_help(run):
    assert run("--version")[0] == 0
    assert "analyze" in run("")[1]


def test_cache_clear(run, tmp_path, monkeypatch):
    monkeypatch.setenv("KVOPT_CACHE", str(tmp_path / "programs"))
    folders = (cli.cache_folder(), cli.programs_folder())
    for folder in folders:
        (folder / "some").mkdir(parents=True)
    assert run("cache clear")[0] == 0
    assert not any(folder.exists() for folder in folders)


def test_interrupted(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "analyze", interrupt)
    assert run("analyze") == (130, "", "kvopt: interrupted\n")


def test_study_list(run):
    code, out, _ = run("study list")
    assert code == 0
    for name in ("paper", "context_scaling", "pareto", "benchmark"):
        assert name in out


def test_study_paper(run, tmp_path):
    code, out, err = run("study run paper --json --out paper")
    found = strict(out)
    assert code == 0
    assert found["ok"] is True
    assert err == "written to paper\n"
    assert strict((tmp_path / "paper" / "result.json").read_text()) == found
    assert "critical batch" in run("study run paper")[1]


def test_a_study_of_ones_own(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("study: context_scaling\ncontexts: [4k, 128k]\ngpus: 4\nfidelity: calibrated\n")
    assert run("study run mine.yaml --out mine")[0] == 0
    code, out, _ = run("study run mine.yaml --json --out mine")
    assert code == 0
    assert [row["context"] for row in strict(out)["rows"]] == [4000, 128000]
    files = {"result.json", "table.csv", "context_scaling.png", "context_scaling.svg"}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == files | {"previous-1"}
    table = list(csv.DictReader((tmp_path / "mine" / "table.csv").read_text().splitlines()))
    assert [row["context"] for row in table] == ["4000", "128000"]


def test_an_engine_on_another_makers_card_is_refused(run):
    code, out, err = run("analyze --model mistral-7b-v0.3 --accelerator gaudi3 --engine trtllm")
    assert (code, out) == (2, "")
    assert err == "kvopt: engine: trtllm: runs on accelerators of NVIDIA, and gaudi3 is one of Intel\n"
