"""The study `regret`: what a pick loses, which limits it breaks, and what a throughput is."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from kvopt.calibration import fit as fitting
from kvopt.calibration.measurement import read
from kvopt.calibration.publish import rows_for_fit
from studies import regret
from studies.evidence import AICONFIGURATOR, LATENCY, table
from studies.left_out import LeftOut
from studies.regret import Setting, picks, rate

ANY = math.inf


def setting(group: str, measured: tuple[float, float], predicted: tuple[float, float] | None = None) -> Setting:
    """Tokens/s and milliseconds."""
    told = predicted or measured
    return Setting(group, (measured[0], measured[1] / 1e3), (told[0], told[1] / 1e3), None)


def test_the_best_prediction_loses_nothing() -> None:
    made = picks([setting("a", (100, 8)), setting("a", (150, 18)), setting("a", (180, 60))], lambda one: one.predicted)
    assert [(pick.limit_ms, pick.loss, pick.excess) for pick in made] == [
        (10, 0, 0),
        (20, 0, 0),
        (100, 0, 0),
    ]  # limits that change nothing are asked once
    assert [pick.certain for pick in made] == [True, False, False]


def test_a_known_loss() -> None:
    found = [setting("a", (200, 8), (90, 8)), setting("a", (150, 9), (100, 9)), setting("a", (10, 9.5), (50, 9.5))]
    (made,) = picks(found, lambda one: one.predicted)
    assert (made.group, made.limit_ms, made.excess) == ("a", 10, 0)
    assert made.loss == pytest.approx(0.25)


def test_a_limit_that_is_broken() -> None:
    found = [setting("a", (100, 8), (100, 8)), setting("a", (150, 13), (150, 9.9))]
    tight, loose = picks(found, lambda one: one.predicted)
    assert (tight.limit_ms, tight.excess) == (10, pytest.approx(0.3))
    assert (loose.limit_ms, loose.excess, loose.loss) == (15, 0, 0)


def test_where_no_setting_is_predicted_within_the_limit_the_quickest_is_picked() -> None:
    found = [setting("a", (100, 8), (100, 30)), setting("a", (150, 9), (150, 40))]
    (made,) = picks(found, lambda one: one.predicted)
    assert made.loss == pytest.approx(1 / 3)


def test_settings_without_a_tpot_have_no_limit() -> None:
    (made,) = picks([setting("a", (100, 0), (120, 0)), setting("a", (110, 0), (100, 0))], lambda one: one.predicted)
    assert made.loss == pytest.approx(1 / 11)
    only_slow = picks([setting("b", (100, 500)), setting("b", (50, 400))], lambda one: one.predicted)
    assert [(pick.limit_ms, pick.loss, pick.excess) for pick in only_slow] == [(ANY, 0, 0)]


def test_a_throughput_follows_from_the_readings() -> None:
    row = {"model": "llama-3.1-8b", "gpu": "h100-sxm", "engine": "vllm", "prompt_len": "1000", "output_len": "100", "batch": "8", "num_gpus": "2"}
    clients = read({**row, "ttft_s": "0.5", "tpot_ms": "10"}, 2)
    assert rate(clients, regret.measured_seconds(clients)) == (pytest.approx(8 * 100 / 1.5 / 2), 0.01)
    assert rate(clients, {"ttft_s": 0.5}) is None
    batch = read({**row, "e2e_s": "2"}, 2)
    assert rate(batch, {"e2e_s": 2.0}) == (200, 0.02)
    load = read({**row, "batch": "", "throughput_tok_s": "5000"}, 2)
    assert rate(load, {"throughput_tok_s": 5000.0}) == (2500, 0)
    steps = read({**row, "tpot_ms": "10"}, 2)
    assert rate(steps, {"tpot_ms": 0.01}) is None


def subset(folder: Path) -> Path:
    """The published rows of one model and accelerator that aiconfigurator predicts too."""
    peers = {row.text("id") for row in table(AICONFIGURATOR).rows if row.text("aic_predicted_ttft_ms")}
    rows = [row.cells for row in table(LATENCY).rows if row.text("source_id") in peers and (row.text("model"), row.text("gpu")) == CASE]
    path = folder / "some.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


CASE = ("Llama-3.1-70B", "H200-SXM")


def stub(factor: float) -> object:
    """Rows predicted at `factor` times what was measured."""

    def left_out(by: str, path: Path) -> LeftOut:
        data = fitting.design(rows_for_fit(path)[0])
        assert by == "settings"
        return LeftOut(data, np.full(len(data.readings.case), math.log(factor)), np.ones(len(data.readings.case), bool))

    return left_out


def test_perfect_predictions_have_no_regret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regret, "left_out", stub(1.0))
    path = subset(tmp_path)
    found = regret.settings(path)
    assert len(found) >= 6
    assert all(one.predicted == pytest.approx(one.measured, rel=1e-5) for one in found)
    assert any(one.peer for one in found)
    result = regret.run(path=path)
    assert result.columns == (
        "groups",
        "who picks",
        "picks",
        "median loss %",
        "90th pct loss %",
        "over the limit %",
        "in interval %",
        "by % (median)",
    )
    ours = [row for row in result.rows if row["who picks"] == "kvopt"]
    assert ours[0]["groups"] == "all groups"
    for row in ours:
        assert row["picks"] > 0
        assert row["90th pct loss %"] == pytest.approx(0, abs=1e-6)
    theirs = result.rows[-1]
    assert (theirs["who picks"], theirs["picks"]) == ("aiconfigurator 0.12.0", ours[-1]["picks"])
    assert theirs["over the limit %"] + theirs["90th pct loss %"] > 0
    assert f"{len({one.group for one in found})} groups" in result.notes[0]
