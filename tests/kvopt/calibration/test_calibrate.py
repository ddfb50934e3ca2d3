"""`kvopt calibrate`: what it writes is read by the other verbs, and what it refuses it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvopt.calibration import probe, refit
from kvopt.calibration.measurement import Measurement
from kvopt.calibration.verb import kind_of
from kvopt.cli import main
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import read_accelerator

HEADER = "model,gpu,engine,version,weight_dtype,kv_dtype,num_gpus,tp,prompt_len,output_len,batch,prefill_s,ttft_s,tpot_ms,throughput_tok_s,e2e_s,note"
ROW = "llama-3.1-8b,{gpu},vllm,0.19.0,{weights},bf16,1,1,1024,128,{batch},,,{tpot},,,"
BENCH: dict[str, Any] = {
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "request_rate": "inf",
    "max_concurrency": 32,
    "completed": 320,
    "total_input_tokens": 327680,
    "total_output_tokens": 40960,
    "output_throughput": 314.6,
    "mean_ttft_ms": 1210.4,
    "mean_tpot_ms": 16.2,
}
LOG = """\
INFO 05-30 16:22:20 llm_engine.py:234] Initializing a V0 LLM engine (v0.7.3) with config: model='/models/Llama-3.1-8B-Instruct', \
dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto
INFO 05-30 16:23:28 worker.py:267] the current vLLM instance can use total_gpu_memory (79.22GiB) x gpu_memory_utilization (0.90) = 71.29GiB
INFO 05-30 16:23:28 worker.py:267] model weights take 14.99GiB; non_torch_memory takes 0.12GiB; PyTorch activation peak memory takes 1.19GiB; the rest \
of the memory reserved for KV Cache is 54.99GiB.
INFO 05-30 16:23:28 executor_base.py:110] # CUDA blocks: 28155, # CPU blocks: 2048
INFO 05-30 16:23:28 executor_base.py:115] Maximum concurrency for 8192 tokens per request: 54.99x
"""


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Measurement]:
    """A fit that always finds the same, and the rows that it was given. Files go to a folder of their own."""
    seen: list[Measurement] = []

    def stub(rows: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
        seen.extend(rows)
        return {"mbu": (0.77, 0.05), "decode_layer_us": (31.5, 0.2)}

    monkeypatch.setattr(refit, "refit", stub)
    monkeypatch.chdir(tmp_path)
    return seen


def table(*rows: str) -> str:
    Path("my.csv").write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return "my.csv"


def decode(batch: int, tpot: float | str = 9.0, gpu: str = "NVIDIA H100 80GB", weights: str = "bf16") -> str:
    return ROW.format(batch=batch, tpot=tpot, gpu=gpu, weights=weights)


def test_measurements_become_an_accelerator_file(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [decode(1), decode(8, "fast"), decode(16), decode(4, gpu="RTX 999"), decode(32, weights="fp8")]
    assert main(["calibrate", table(*rows)]) == 0
    out, err = capsys.readouterr()
    assert "kvopt: my.csv: a CSV of measurements" in err
    assert [row.line for row in fitted] == [2, 4]
    assert "Fitted to 2 of 5 rows: h100-sxm vllm 16-bit." in out
    assert "3 rows not used:" in out
    assert "line 3: tpot_ms: fast" in out
    assert "line 5: accelerator: RTX 999" in out
    assert "line 6: is of another group, h100-sxm vllm fp8" in " ".join(out.split())
    assert "kvopt analyze --accelerator my-calibrated.yaml" in out
    spec = read_accelerator("my-calibrated.yaml")
    assert spec.id == "h100-sxm"
    assert spec.efficiency is not None
    assert spec.efficiency.mbu is not None
    assert (spec.efficiency.mbu.value, spec.efficiency.mbu.tag) == (0.77, "measured")
    assert spec.efficiency.mbu.source.startswith("fitted to 2 rows of my.csv (20")
    assert spec.memory_bandwidth_gbs == read_accelerator("h100-sxm").memory_bandwidth_gbs


def test_the_file_is_one_that_analyze_takes(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", table(decode(1)), "--out", "mine.yaml", "--name", "My H100"]) == 0
    capsys.readouterr()
    assert main(["analyze", "--accelerator", "mine.yaml", "--gpus", "1", "--model", "llama-3.1-8b", "--context", "8k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["concurrency"] > 0
    assert yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))["name"] == "My H100"


def test_a_file_is_never_written_over_unasked(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("kept", encoding="utf-8")
    command = ["calibrate", table(decode(1)), "--out", "mine.yaml"]
    assert main(command) == 2
    assert "kvopt: out: mine.yaml: is there already" in capsys.readouterr().err
    assert Path("mine.yaml").read_text(encoding="utf-8") == "kept"
    assert fitted == []
    assert main([*command, "--force"]) == 0
    assert read_accelerator("mine.yaml").efficiency is not None


def test_what_the_rows_leave_out_the_command_line_says(fitted: list[Measurement]) -> None:
    bare = "model,batch,prompt_len,output_len,tpot_ms\nllama-3.1-8b,8,1024,128,9\n"
    Path("bare.csv").write_text(bare, encoding="utf-8")
    assert main(["calibrate", "bare.csv", "--accelerator", "h100-sxm", "--engine", "vllm", "--tp", "2"]) == 0
    assert (fitted[0].accelerator.id, fitted[0].tp, fitted[0].gpus, fitted[0].engine) == ("h100-sxm", 2, 2, "vllm")


def test_no_usable_row_is_bad_input(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", table(decode(1, 0.0), decode(2, gpu=""))]) == 2
    assert "kvopt: file: my.csv: no usable row of 2; row 2: tpot_ms: 0.0" in capsys.readouterr().err
    assert main(["calibrate", table(decode(1)), "--accelerator", "a100-80-sxm"]) == 2
    assert "is h100-sxm, not the a100-80-sxm" in capsys.readouterr().err
    assert not Path("my-calibrated.yaml").exists()


def test_a_benchmark_needs_to_be_told_the_gpu(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    Path("bench.json").write_text(json.dumps(BENCH), encoding="utf-8")
    assert main(["calibrate", "bench.json", "--tp", "1"]) == 2
    assert "kvopt: accelerator: missing: the result of a benchmark does not say; give --accelerator ID" in capsys.readouterr().err
    assert main(["calibrate", "bench.json", "--accelerator", "h100-sxm", "--tp", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "the result of vllm bench serve" in err
    assert (found["kind"], found["written"], found["used"]) == ("benchmark", "bench-calibrated.yaml", [1])
    assert found["fitted"]["mbu"] == {"value": 0.77, "log_sd": 0.05}
    assert fitted[0].measured == {"ttft_s": 1.2104, "tpot_ms": 16.2, "throughput_tok_s": 314.6}
    assert (fitted[0].experiment, fitted[0].batch, fitted[0].new, fitted[0].output) == ("closed loop", 32, 1024, 128)


def test_a_log_gives_memory_and_shows_both_pools(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    Path("server.log").write_text(LOG, encoding="utf-8")
    assert main(["calibrate", "server.log"]) == 2
    assert "kvopt: accelerator: missing: a log does not name the GPU" in capsys.readouterr().err
    assert main(["calibrate", "server.log", "--accelerator", "a100-80-sxm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    pool, tokens = found["capacity"]["pool GiB"], found["capacity"]["tokens"]
    assert (pool["logged"], tokens["logged"]) == (54.99, 28155 * 16)
    assert pool["predicted"] == pytest.approx(54.99, rel=0.03)
    assert tokens["predicted"] == pytest.approx(28155 * 16, rel=0.03)
    logged = read_accelerator("server-calibrated.yaml").logged_bytes
    assert logged is not None
    assert logged.value == round(79.22 * 2**30)
    assert logged.source.startswith("vLLM start-up log server.log, as printed")


def test_a_log_of_another_card_is_refused(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    Path("server.log").write_text(LOG, encoding="utf-8")
    assert main(["calibrate", "server.log", "--accelerator", "l40s"]) == 2
    assert "the log states 79.2 GiB: another card" in capsys.readouterr().err


def test_a_log_that_lacks_names_asks_for_them(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    Path("server.log").write_text("".join(LOG.splitlines(keepends=True)[1:]), encoding="utf-8")
    command = ["calibrate", "server.log", "--accelerator", "a100-80-sxm"]
    assert main(command) == 2
    assert "kvopt: model: missing: the log does not name the model; give --model ID" in capsys.readouterr().err
    assert main([*command, "--model", "llama-3.1-8b"]) == 2
    assert "kvopt: tp: missing" in capsys.readouterr().err
    assert main([*command, "--model", "llama-3.1-8b", "--tp", "1"]) == 0
    assert "written to server-calibrated.yaml" in capsys.readouterr().out


def test_a_log_without_memory_writes_nothing(fitted: list[Measurement], capsys: pytest.CaptureFixture[str]) -> None:
    kept = [line for line in LOG.splitlines() if "total_gpu_memory" not in line]
    Path("server.log").write_text("\n".join(kept), encoding="utf-8")
    assert main(["calibrate", "server.log", "--accelerator", "a100-80-sxm"]) == 0
    assert "Nothing written: the log does not state the GPU's memory" in " ".join(capsys.readouterr().out.split())
    assert not Path("server-calibrated.yaml").exists()


def test_this_machine_is_probed(fitted: list[Measurement], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    whole = probe.probe
    monkeypatch.setattr(probe, "probe", lambda largest_bytes: whole(seconds=0.1, largest_bytes=2.0**20))
    assert main(["calibrate", "--probe", "--out", "here.yaml", "--name", "Here"]) == 0
    out = capsys.readouterr().out
    assert "reading a cache" in out
    assert "written to here.yaml" in out
    assert read_accelerator("here.yaml").name == "Here"
    assert main(["analyze", "--accelerator", "here.yaml", "--gpus", "1", "--model", "qwen2.5-0.5b", "--context", "1k", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["metrics"]["prefill_s"] > 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["calibrate"], "takes a FILE, --accuracy FILE or --probe, one of them"),
        (["calibrate", "x.csv", "--probe"], "takes a FILE, --accuracy FILE or --probe, one of them"),
        (["calibrate", "nowhere.csv"], "kvopt: file: nowhere.csv: cannot be read"),
        (["calibrate", "x.csv", "--tp", "two"], "kvopt: tp: two: must be a whole number"),
        (["calibrate", "x.csv", "--out", "mine.json"], "must end in .yaml or .yml"),
        (["calibrate", "x.csv", "--out", "nowhere/mine.yaml"], "its folder does not exist"),
    ],
)
def test_bad_commands_are_one_line(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1


def test_kinds_are_told_by_content() -> None:
    assert kind_of(HEADER + "\n", Path("a.txt")) == "measurements"
    assert kind_of(LOG, Path("a.csv")) == "log"
    assert kind_of("\n" + json.dumps(BENCH), Path("a")) == "benchmark"
    with pytest.raises(BadInput, match="is none of: a CSV of measurements; a vLLM start-up log; the result of vllm bench serve"):
        kind_of("hello,world\n1,2\n", Path("a.csv"))
