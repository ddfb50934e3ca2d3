"""Chunk size, load and idle caches: what must rise and fall, and when fetching beats computing again."""

from __future__ import annotations

import math

import pytest

from kvopt.errors import BadInput
from studies import scheduling

SMALL = {"contexts": ["8k", "32k"], "context": "16k"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scheduling")
    return scheduling.run(out=folder, **SMALL), folder


def of(result, what):
    return [row for row in result.rows if row["what"] == what]


def test_a_larger_chunk_brings_the_first_token_sooner_and_a_longer_step(found):
    rows = [row for row in of(found[0], "chunk") if row["load %"] == 50]
    assert len(rows) > 4
    first, last = rows[0], rows[-1]
    assert last["chunk"] > first["chunk"]
    assert last["TTFT s"] < first["TTFT s"]
    steps = [row["longest step ms"] for row in rows]
    assert steps == sorted(steps)


def test_latencies_rise_with_the_load(found):
    rows = of(found[0], "load")
    for name in ("sessions per GPU-hour", "decodes in flight", "TTFT s", "TPOT ms"):
        values = [row[name] for row in rows]
        assert values == sorted(values), name
    assert rows[0]["holds"]
    assert rows[0]["max-num-seqs"] <= rows[-1]["max-num-seqs"]


def test_parking_beats_computing_again_where_the_link_is_faster_than_break_even(found):
    for length in (8000, 32000):
        mine = {row["idle caches"]: row for row in of(found[0], "idle") if row["context"] == length}
        fetch, again, even = mine["park"]["fetch s"], mine["recompute"]["recompute s"], mine["park"]["break-even GB/s"]
        link = 64 * 0.65  # GB/s reached of an H100's PCIe 5
        assert fetch / again == pytest.approx(even / link)
        assert even < link
        assert mine["park"]["sessions per GPU-hour"] > mine["recompute"]["sessions per GPU-hour"]
    evens = [row["break-even GB/s"] for row in of(found[0], "idle") if row["idle caches"] == "park"]
    assert evens == sorted(evens, reverse=True)  # a longer context costs more to compute than to move


def test_no_number_is_made_up_beyond_what_memory_carries(found):
    result, folder = found
    keep = [row for row in of(result, "idle") if row["idle caches"] == "keep"]
    assert all(math.isnan(row["TPOT ms"]) or row["TPOT ms"] > 0 for row in keep)
    assert "NaN" not in result.to_json()
    assert {path.name for path in folder.iterdir()} == {"scheduling.png", "scheduling.svg"}


@pytest.mark.parametrize("option", [{"chunk": 512}, {"idle": "park"}])
def test_what_is_tried_cannot_be_fixed(option):
    with pytest.raises(BadInput, match="this study tries several"):
        scheduling.run(**option)


def test_sessions_of_one_turn_have_no_idle_caches():
    with pytest.raises(BadInput, match="turns"):
        scheduling.run(turns=1, **SMALL)
