"""Groupings of the same GPUs: what is copied, and what a latent costs."""

from __future__ import annotations

import pytest

from kvopt.errors import BadInput
from studies import parallelism

SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "latent_model": "deepseek-v2-lite", "latent_accelerator": "h100-sxm", "context": "16k"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallelism")
    return parallelism.run(out=folder, gpus=4, **SMALL), folder


def rows(result, model):
    return [row for row in result.rows if row["model"].endswith(model)]


def test_a_latent_is_copied_on_every_tensor_parallel_rank(found):
    result, _ = found
    for row in rows(result, "deepseek-v2-lite"):
        assert row["copies of the cache"] == pytest.approx(row["tp"] / (row["attention dp"] * row["dcp"])), row["grouping"]
    for row in rows(result, "llama-3.1-8b"):  # 8 KV heads on at most 4 ranks
        assert row["copies of the cache"] == pytest.approx(1.0), row["grouping"]


def test_all_gpus_are_used_and_every_grouping_is_there_once(found):
    result, _ = found
    assert {row["tp"] * row["pp"] * row["replicas"] for row in result.rows} == {4}
    assert len({(row["model"], row["grouping"].rpartition(",")[0]) for row in result.rows}) == len(result.rows)
    assert {1, 2, 4} == {row["tp"] for row in rows(result, "llama-3.1-8b")}
    assert any(row["prefill only"] for row in rows(result, "llama-3.1-8b"))


def test_best_comes_first_and_replicas_hold_fewer_sessions(found):
    result, _ = found
    for model in ("llama-3.1-8b", "deepseek-v2-lite"):
        served = [row["users per GPU"] for row in rows(result, model) if row["users per GPU"]]
        assert served == sorted(served, reverse=True)
        assert len(served) > 1
    mine = {(row["tp"], row["pp"], row["replicas"], row["prefill only"]): row for row in rows(result, "llama-3.1-8b")}
    assert mine[4, 1, 1, 0]["sessions in HBM"] > mine[1, 1, 4, 0]["sessions in HBM"]  # the weights are held once, not four times


def test_the_pictures_are_written_and_the_copies_are_said(found):
    result, folder = found
    assert {path.name for path in folder.iterdir()} == {"parallelism.png", "parallelism.svg"}
    assert any("copies of every cache" in note for note in result.notes)


def test_a_fixed_grouping_is_refused():
    with pytest.raises(BadInput, match="this study tries all groupings"):
        parallelism.run(tp=2)


def test_weights_that_fit_nowhere_are_said():
    with pytest.raises(BadInput, match=r"gpus: 1: do not hold the weights"):
        parallelism.run(gpus=1)
