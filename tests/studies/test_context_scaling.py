"""The study `context_scaling`: its numbers by hand, and the shift from decoding to prefill."""

from __future__ import annotations

import itertools

import pytest

from kvopt.errors import BadInput
from studies import context_scaling
from studies.result import StudyResult

KV, WEIGHTS, READ = 245_760, 68_776_099_840, 67_858_595_840  # [bytes] per token; Yi-34B in 16 bit; the same without the input embedding
LINEAR, HEAD = 2 * 33_470_545_920, 2 * 458_752_000  # [FLOP] per token in the layers; in the output head, once
ATTENTION = 60 * 4 * 56 * 128 / 2  # [FLOP] per token squared, causal
FLOPS, BANDWIDTH, LINK, MEMORY = 8 * 312e12, 8 * 2039e9, 8 * 32e9, 8 * 80 * 2**30  # of eight A100s


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return context_scaling.run()


def test_every_number_by_hand(result: StudyResult) -> None:
    assert [row["context"] for row in result.rows] == [*(1000 * 2**power for power in range(2, 10)), 1_000_000]
    for row in result.rows:
        n = row["context"]
        prefill = (LINEAR * n + HEAD + ATTENTION * n**2) / FLOPS
        answer = 250 * (READ + KV * n) / BANDWIDTH
        switch = 2 * KV * n / LINK
        busy = prefill + 5 * answer + 4 * switch
        expected = {"cache GiB": KV * n / 2**30, "prefill s": prefill, "answer s": answer, "switch s": switch, "busy s": busy}
        expected |= {"prefill %": 100 * prefill / busy, "decode %": 500 * answer / busy, "switch %": 400 * switch / busy}
        expected |= {"users in HBM": (MEMORY - WEIGHTS) // (KV * n)}
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-9), (n, name)
        assert 0 < row["sessions per GPU-hour"] < 3600 / 8 / prefill


def test_the_cost_moves_from_decoding_to_prefill(result: StudyResult) -> None:
    prefill, decoding = ([row[name] for row in result.rows] for name in ("prefill %", "decode %"))
    assert prefill == sorted(prefill)
    assert decoding == sorted(decoding, reverse=True)
    assert prefill[0] < 5 < 90 < prefill[-1]
    assert "from 2 to 92 %" in " ".join(result.notes)


def test_contexts_as_people_write_them() -> None:
    for contexts in ("128k,4k", ["4000", 128_000], ["128k", "4k", "4k"]):
        assert [row["context"] for row in context_scaling.run(contexts=contexts).rows] == [4_000, 128_000]
    assert len(context_scaling.run(contexts=50_000, fidelity="calibrated", gpus=2).rows) == 1
    with pytest.raises(BadInput, match="one length or more"):
        context_scaling.run(contexts=[])


def test_the_picture(result: StudyResult) -> None:
    drawing = context_scaling.figure(result.rows)
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        assert axes.get_xlabel() == "Context [tokens]"
        assert axes.get_ylabel()
    canvas = drawing.bbox
    inside = [axes.get_tightbbox() for axes in drawing.axes]
    for box in inside:
        assert box is not None
        assert box.x0 >= canvas.x0 - 1
        assert box.x1 <= canvas.x1 + 1
    for left, right in itertools.pairwise(inside):
        assert left is not None
        assert right is not None
        assert left.x1 <= right.x0 + 1


def test_models_that_do_not_fit_or_are_not_known() -> None:
    found = context_scaling.run(contexts="4k", model="llama-3.1-70b", gpus=1, fidelity="calibrated")
    assert found.rows[0]["users in HBM"] == 0
    assert context_scaling.figure(found.rows)
    with pytest.raises(BadInput, match="does not hold parameters"):
        context_scaling.run(model="inkling")
