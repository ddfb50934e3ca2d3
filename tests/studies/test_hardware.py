"""Accelerators side by side: what more of a resource does, and what is said of those that do not serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvopt import catalog
from kvopt.errors import BadInput
from studies import hardware

ASKED = {"model": "llama-3.1-8b", "gpus": 1, "context": "32k"}


def written(folder: Path, name: str, **changed: float) -> str:
    """An H100 with other numbers, as a file of one's own."""
    card = {
        **catalog.read("accelerators", "h100-sxm"),
        **{key: {"value": value, "source": "a test", "tag": "assumed"} for key, value in changed.items()},
    }
    for key in ("visible_bytes", "logged_bytes"):
        if "memory_gb" in changed:
            card.pop(key, None)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({key: value for key, value in card.items() if key != "aliases"}))
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    cards = [
        "h100-sxm",
        written(folder, "plain"),
        written(folder, "dear", usd_per_h=9.52),
        written(folder, "roomy", memory_gb=160),
        "rtx-3060",
        "m2-ultra-76",
    ]
    result = hardware.run(out=folder / "out", accelerators=cards, **ASKED)
    return {row["accelerator"]: row for row in result.rows}, result, folder / "out"


def test_more_memory_never_serves_fewer(found):
    rows, _, _ = found
    assert rows["roomy"]["users per GPU"] >= rows["plain"]["users per GPU"] > 0


def test_price_changes_what_a_dollar_buys_and_nothing_else(found):
    rows, _, _ = found
    assert rows["dear"]["users per GPU"] == rows["plain"]["users per GPU"]  # an id of its own has the speed of its class
    assert rows["dear"]["users per USD/h"] == pytest.approx(rows["plain"]["users per USD/h"] * 4.76 / 9.52)


def test_what_does_not_serve_says_why_and_what_would(found):
    rows, result, _ = found
    assert rows["rtx-3060"]["users per GPU"] is None
    assert "do not fit" in rows["rtx-3060"]["why not"]
    assert "--gpus" in rows["rtx-3060"]["why not"]
    assert result.rows[-1]["users per GPU"] is None  # below those that serve
    assert any("do not serve it" in note for note in result.notes)


def test_a_card_that_the_engine_does_not_run_on_takes_another(found):
    rows, _, _ = found
    assert rows["m2-ultra-76"]["engine"] == "hf"
    assert rows["h100-sxm"]["engine"] == "vllm"


def test_each_card_that_serves_names_what_is_worth_most(found):
    rows, _, folder = found
    assert rows["h100-sxm"]["worth most"] in hardware.WORTH.values()
    assert {path.name for path in folder.iterdir()} == {"hardware.png", "hardware.svg"}


def test_one_accelerator_is_not_asked_for_by_itself():
    with pytest.raises(BadInput, match="this study takes several"):
        hardware.run(accelerator="h100-sxm")
