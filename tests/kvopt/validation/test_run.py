"""`kvopt validate`: outcomes, errors, files and the command line, with a kind made for the purpose and with capacity."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from kvopt import cli
from kvopt.errors import BadInput
from kvopt.validation import report, run
from kvopt.validation.errors import by_group, errors
from kvopt.validation.outcome import Outcome, Prediction
from kvopt.validation.rows import Refusal, Row

GOOD = {
    "engine": "vLLM", "engine_version": "0.19.0", "engine_era": "V1", "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "NVIDIA H100 80GB", "tp": "1",
    "weights_quant": "none (bfloat16)", "activation_dtype": "bfloat16", "mem_fraction": "0.95", "max_model_len": "8192", "kv_tokens": "476016",
}  # fmt: skip
GEMMA = {**GOOD, "model": "google/gemma-3-12b-it", "kv_tokens": "130304", "max_concurrency_logged": "15.88"}
COLUMNS = (*GOOD, "max_num_seqs", "max_concurrency_logged", "gpu_total_gib_logged")


def table(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "logs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that predicts twice x."""

    def predict(rows: Sequence[Row], confidence: float) -> list[Outcome]:
        found = []
        for row in rows:
            try:
                x, y = row.need_positive("x"), row.positive("y")
            except Refusal as refusal:
                found.append(Outcome(row.line, refused=True, why=str(refusal)))
                continue
            found.append(Outcome(row.line, row.text("group"), (Prediction("y", y, 2 * x * 2 * (1 - confidence), 1.5 * x, 2.5 * x),), label=f"x={x}"))
        return found

    module = ModuleType("kvopt.validation.doubling")
    module.predict = predict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kvopt.validation.doubling", module)
    monkeypatch.setitem(run.KINDS, "doubling", run.Kind("doubling", ("x",), ("y",)))


def doubles(folder: Path) -> Path:
    path = folder / "doubles.csv"
    path.write_text("x,y,group\n10,20,a\n10,25,a\n10,40,b\n,1,b\n-3,1,b\n10,,b\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("doubling")
def test_every_row_is_predicted_or_refused(tmp_path: Path) -> None:
    data = run.validate("doubling", doubles(tmp_path)).data
    assert (data["rows"], data["predicted"]) == (6, 4)
    assert data["refused"] == [{"row": 5, "why": "x: missing"}, {"row": 6, "why": "x: -3: must be above 0"}]
    found = data["errors"]["y"]
    assert found["n"] == 3  # what was not measured is predicted and not judged
    assert found["median_abs_pct"] == pytest.approx(20)
    assert found["p90_abs_pct"] == pytest.approx(44)
    assert found["bias_pct"] == pytest.approx(-20)
    assert found["interval_coverage"] == pytest.approx(2 / 3)
    assert found["over_predicted_pct"] == 0
    assert list(data["by_group"]) == ["a", "b"]
    assert data["by_group"]["b"]["y"]["n"] == 1


@pytest.mark.usefixtures("doubling")
def test_predictions_keep_the_files_rows_and_order(tmp_path: Path) -> None:
    result = run.validate("doubling", doubles(tmp_path), 0.9)
    out = tmp_path / "out.csv"
    result.write_predictions(out)
    assert out.read_text().splitlines() == [
        "x,y,group,predicted_y,lower_y,upper_y", "10,20,a,4,15,25", "10,25,a,4,15,25", "10,40,b,4,15,25", ",1,b,,,", "-3,1,b,,,", "10,,b,4,15,25",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    again = run.validate("doubling", out, 0.5)  # its own columns are replaced
    again.write_predictions(out)
    assert out.read_text().splitlines()[1] == "10,20,a,20,15,25"
    with pytest.raises(BadInput, match=r"predictions: .*: cannot be written"):
        result.write_predictions(tmp_path / "missing" / "out.csv")


@pytest.mark.usefixtures("doubling")
def test_the_report_names_groups_worst_rows_and_refusals(tmp_path: Path) -> None:
    out = io.StringIO()
    report.show(run.validate("doubling", doubles(tmp_path)), Console(file=out, width=140))
    text = out.getvalue()
    assert "4 of 6 rows" in text
    for words in ("median %", "x=10.0", "-50.0", "outside its interval", "x: missing", "x: -3: must be above 0"):
        assert words in text, words


def test_errors_other_than_relative_ones() -> None:
    outcomes = [Outcome(2, predictions=(Prediction("kept", 0.9, 0.8, 0.7, 0.95),))]
    assert errors(outcomes, {"kept": lambda predicted, measured: 100 * (predicted - measured)})["kept"]["median_abs_pct"] == pytest.approx(10)
    assert by_group([Outcome(3, refused=True, why="x")]) == {}


def test_capacity_rows(tmp_path: Path) -> None:
    dense, windowed = run.validate("capacity", table(tmp_path, GOOD, GEMMA)).outcomes
    assert [p.quantity for p in dense.predictions] == ["kv_tokens"]
    assert dense.predictions[0].predicted == pytest.approx(476016, rel=0.01)
    assert [p.quantity for p in windowed.predictions] == ["kv_tokens", "max_concurrency_logged"]
    assert windowed.predictions[1].predicted == pytest.approx(15.88, rel=0.01)
    quoted = run.validate("capacity", table(tmp_path, GOOD), 0.9).outcomes[0].predictions[0]
    assert quoted.lower < quoted.predicted < dense.predictions[0].predicted < quoted.upper
    assert (quoted.lower, quoted.upper) == (dense.predictions[0].lower, dense.predictions[0].upper)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"engine": "TGI"}, "engine: TGI: no capacity rules"),
        ({"engine": ""}, "engine: missing"),
        ({"model": "nobody/never-heard-of-9b"}, "model: nobody/never-heard-of-9b: not known"),
        ({"gpu": "NVIDIA H999"}, "gpu: NVIDIA H999: not known"),
        ({"gpu": ""}, "gpu: missing"),
        ({"tp": ""}, "tp: missing"),
        ({"tp": "1.5"}, "tp: 1.5: must be a whole number"),
        ({"tp": "0"}, "tp: 0: must be 1 or more"),
        ({"mem_fraction": ""}, "mem_fraction: missing"),
        ({"mem_fraction": "95"}, "mem_fraction: 95: must be above 0 and at most 1"),
        ({"weights_quant": ""}, "weights_quant: missing"),
        ({"weights_quant": "ternary"}, "weights_quant: ternary: not a weight format kvopt knows"),
        ({"kv_tokens": "nan"}, "kv_tokens: nan: not a finite number"),
        ({"kv_tokens": "-5"}, "kv_tokens: -5: must be above 0"),
        ({"kv_tokens": "many"}, "kv_tokens: many: not a number"),
        ({"max_num_seqs": "-1"}, "max_num_seqs: -1: must be 1 or more"),
        ({"gpu_total_gib_logged": "0"}, "gpu_total_gib_logged: 0: must be above 0"),
        ({"engine": "TensorRT-LLM"}, "max_num_seqs: missing"),
        ({"model": "deepseek-ai/DeepSeek-V4-Flash"}, "rules of its own"),
    ],
)
def test_rows_that_do_not_say_enough_are_refused_by_line(tmp_path: Path, changed: dict[str, str], why: str) -> None:
    good, refused = run.validate("capacity", table(tmp_path, GOOD, {**GOOD, **changed})).outcomes
    assert not good.refused
    assert refused.line == 3
    assert refused.refused
    assert why in refused.why


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs, out = table(tmp_path, GOOD, {**GOOD, "tp": ""}), tmp_path / "out.csv"
    assert cli.main(["validate", "capacity", str(logs), "--json", "--predictions", str(out)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"rows", "predicted", "refused", "errors", "by_group"} <= set(data)
    assert data["refused"] == [{"row": 3, "why": "tp: missing"}]
    header = out.read_text().splitlines()[0]
    assert header.endswith("predicted_kv_tokens,lower_kv_tokens,upper_kv_tokens")
    assert cli.main(["validate", "capacity", str(logs)]) == 0
    assert "1 of 2 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weather", "x.csv"], "kind: weather: not known; one of accuracy, capacity, composition, latency"),
        (["capacity", "nowhere.csv"], "file: nowhere.csv: cannot be read"),
        (["capacity", "nowhere.csv", "--confidence", "sure"], "confidence: sure: must be a number"),
        (["capacity", "nowhere.csv", "--confidence", "1"], "confidence: 1.0: must be above 0 and below 1"),
        (["capacity"], "the following arguments are required: FILE.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_file_without_the_columns_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\na,b\n", encoding="utf-8")
    with pytest.raises(BadInput, match="needs the columns engine, kv_tokens"):
        run.validate("capacity", path)
