"""What a saved answer says of its evidence and its inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kvopt
from kvopt import method_evidence
from kvopt.inputs import accelerator

QUESTION: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k"}
KNOWN_AS = {"measured", "published", "derived", "assumed"}


def analyzed(**fields: Any) -> dict[str, Any]:
    data = kvopt.analyze(**{**QUESTION, **fields}).data
    json.dumps(data, allow_nan=False)
    return data


def test_one_method_alone_has_the_plans_own_interval() -> None:
    data = analyzed(methods="fp8")
    (one,) = data["behind"]["methods"]
    assert one["retained"] == pytest.approx(data["metrics"]["accuracy_retained"], rel=1e-9)
    assert one["lower"] == pytest.approx(data["metrics"]["accuracy_lower"], rel=1e-5)
    assert one["lower"] < one["retained"] < one["upper"] < 1
    assert one["readings"] + one["other_tasks"] == len(method_evidence.readings("fp8"))
    assert one["coverage"] == data["evidence"]
    assert sum(count for _, count in one["sources"]) == (one["readings"] or one["other_tasks"])
    assert data["behind"]["together"]["note"].startswith("one method alone")


def test_losses_of_several_add_up_to_the_plans() -> None:
    data = analyzed(methods="snapkv:0.25,kivi:2")
    behind = data["behind"]
    product = behind["together"]["interaction_retained"]
    for one in behind["methods"]:
        product *= one["retained"]
    assert product == pytest.approx(data["metrics"]["accuracy_retained"], rel=1e-9)
    assert behind["together"]["interaction_retained"] < 1  # 2 bits and eviction lose more together
    assert behind["question"] == "hidden"
    assert "measured together" in behind["together"]["note"]


def test_a_question_that_is_seen_has_its_own_readings() -> None:
    seen, hidden = (analyzed(methods="snapkv:0.25", turns=turns)["behind"] for turns in (1, 5))
    assert (seen["question"], hidden["question"]) == ("seen", "hidden")
    assert seen["methods"][0]["readings"] != hidden["methods"][0]["readings"]


def test_nothing_compressed_rests_on_nothing() -> None:
    behind = analyzed()["behind"]
    assert behind["methods"] == []
    assert behind["together"]["retained"] == 1


def test_plans_of_heads_have_what_their_heads_lose() -> None:
    data = analyzed(methods="duoattention:0.5", head_scores="gates")
    (one,) = data["behind"]["methods"]
    assert one["retained"] == pytest.approx(data["metrics"]["accuracy_retained"], rel=1e-6)
    assert one["kept"] == pytest.approx(data["heads"]["kept"]["head_keep"])


def test_every_assumption_has_a_source() -> None:
    rows = analyzed()["assumptions"]
    assert {row["tag"] for row in rows} <= KNOWN_AS
    assert all(row["source"] and row["name"] and row["about"] for row in rows)
    by_name = {row["name"]: row for row in rows}
    card = accelerator.read_accelerator("h100-sxm")
    assert by_name["memory bandwidth"]["value"] == card.memory_bandwidth_gbs.value
    assert by_name["price"]["source"] == card.usd_per_h.source
    assert by_name["prompt before the first question (ISL)"]["value"] == 32000
    assert by_name["prompt before the first question (ISL)"]["source"] == "asked for"
    assert by_name["reading the cache, share of the memory bandwidth"]["spread_percent"] > 0


def test_a_card_of_ones_own_is_tagged_as_it_says(tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("memory_gb: 80\nmemory_bandwidth_gbs: 2000\nbf16_tflops: 300\nefficiency:\n  mbu: {value: 0.5, source: my log, tag: measured}\n")
    by_name = {row["name"]: row for row in analyzed(accelerator=str(card))["assumptions"]}
    assert by_name["memory bandwidth"]["tag"] == "assumed"
    assert by_name["price"]["value"] is None
    mbu = by_name["reading weights, share of the memory bandwidth"]
    assert (mbu["value"], mbu["source"], mbu["tag"]) == (0.5, "my log", "measured")


def test_the_theory_assumes_every_peak() -> None:
    rows = [row for row in analyzed(fidelity="peak")["assumptions"] if row["about"].startswith("speed")]
    assert [row["value"] for row in rows] == [1.0]


def test_infeasible_answers_have_assumptions_too() -> None:
    data = kvopt.optimize(**{**QUESTION, "model": "llama-3.1-70b"}).data
    assert "infeasible" in data
    assert data["assumptions"]
