"""Plans by layer and head, from files to bytes and accuracy and back."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from kvopt import api, cli
from kvopt.errors import BadInput
from kvopt.head_plans import SAFEGUARD, HeadPlan, head_plan, largest
from kvopt.head_summary import files, fullest_rank, lines
from kvopt.inputs.layer_bits import layer_bits_text
from kvopt.inputs.scenario import Scenario
from kvopt.named import methods
from kvopt.problem import resolve
from objectives.accuracy.heads import Ranking, head_loss, weighted_mean
from objectives.accuracy.proxies import KeepLoss, keep_loss

FILE = Path(__file__).parents[3] / "shared" / "data" / "head_scores" / "duo_Meta-Llama-3.1-8B-Instruct.tsv"
here = pytest.mark.skipif(not FILE.is_file(), reason="the published gates of Llama-3.1-8B are not here")
ONE_TURN = {"model": "meta-llama/Llama-3.1-8B", "accelerator": "h100-sxm", "gpus": 1, "context": "32K", "turns": 1, "engine": "hf"}
DUO = KeepLoss(amplitude=0.4066, weight=4.6e-5, slope=9.0, floor=0.01, log_sd=1.2)  # about DuoAttention on RULER, Llama-3.1-8B: .75 at .33, .25 at .2
BITS = np.array([[8, 2, 4, 4] * 8, [8, 2, 4, 2] * 8], float)


def plan_of(**fields) -> HeadPlan:
    problem = resolve(Scenario.of(**{**ONE_TURN, **fields}))
    found = head_plan(problem, *methods(problem))
    assert found is not None
    return found


@pytest.fixture
def gates(tmp_path) -> str:
    values = np.random.default_rng(3).beta(0.4, 0.4, (32, 8))
    np.savetxt(tmp_path / "gates.tsv", values, delimiter="\t", fmt="%.6f")
    return str(tmp_path / "gates.tsv")


@pytest.fixture
def kvtuner(tmp_path) -> str:
    (tmp_path / "k.yaml").write_text(layer_bits_text(*BITS))
    return str(tmp_path / "k.yaml")


@here
@pytest.mark.parametrize(("share", "more"), [(0.25, 0.10), (0.5, 0.02), (0.75, 0.0003)])
def test_real_gates_keep_more_accuracy_than_any_uniform_head_ratio_at_equal_bytes(share, more):
    """Llama-3.1-8B, RULER-like curve, kept by the plan and by a uniform ratio: .342 and .195 at a quarter of the heads, .984 and .956 at half, .997
    and .996 at three quarters. It is no worse than the best heads of each layer in equal numbers, which use the same gates.
    """
    plan = plan_of(methods=f"duoattention:{share}", head_scores=str(FILE))
    keep, ranking = plan.table("head_keep"), plan.shares.ranking
    assert isinstance(ranking, Ranking)
    assert keep.sum() == share * 256
    assert set(np.unique(keep)) == {0.0, 1.0}
    per_layer = np.zeros_like(keep)
    np.put_along_axis(per_layer, np.argsort(-ranking.score, axis=1, kind="stable")[:, : round(8 * share)], 1.0, axis=1)
    chosen_without = np.zeros_like(keep)
    chosen_without[:, : round(8 * share)] = 1.0
    with jax.enable_x64(True):

        def kept(table) -> float:
            return float(np.exp(-head_loss(table, np.ones_like(keep), DUO, ranking)))

        assert kept(keep) > kept(np.full_like(keep, share)) + more
        assert kept(keep) > kept(chosen_without)
        assert kept(keep) >= kept(per_layer)
        assert kept(keep) == pytest.approx(float(np.exp(-keep_loss(share, DUO))), abs=0.02)  # its own ranking is about what was measured


def test_head_plan_takes_the_highest_scores_of_all_layers(gates):
    plan = plan_of(methods="duoattention:0.3", head_scores=gates)
    scores, keep = np.loadtxt(gates), plan.table("head_keep")
    assert keep.sum() == round(0.3 * 256)
    assert scores[keep == 1].min() >= scores[keep == 0].max()


@pytest.mark.parametrize("scores", ["retrieval", "gates"])
def test_budgets_are_whole_steps_of_the_context_and_of_equal_bytes(scores):
    plan = plan_of(methods="snapkv:0.25", head_scores=scores)
    keep = plan.table("token_keep")
    assert np.array_equal(keep * 256, np.round(keep * 256))
    assert keep.mean() == 0.25
    assert keep.min() >= SAFEGUARD * 0.25 - 1 / 256
    assert keep.max() <= 1
    assert np.ptp(keep) > 0.1
    loss = keep_loss(keep, KeepLoss(amplitude=0.24, weight=0.025, slope=0.79, floor=0.0, log_sd=0.8))
    weights = np.asarray(plan.shares.content)[plan.stored]
    assert weights.mean() == pytest.approx(1)
    assert float(weighted_mean(loss, weights)) < float(keep_loss(0.25, KeepLoss(amplitude=0.24, weight=0.025, slope=0.79, floor=0.0, log_sd=0.8)))


def test_paged_engines_free_down_to_the_least_compressed_layer_or_head(gates):
    paged, library = (plan_of(methods="duoattention:0.5", head_scores=gates, engine=engine) for engine in ("vllm", "hf"))
    assert np.array_equal(library.freed["head_keep"], library.kept["head_keep"])
    assert np.all(paged.freed["head_keep"] == 1)
    assert np.array_equal(paged.kept["head_keep"], library.kept["head_keep"])
    two_groups = largest(np.array([[0.2, 0.4], [0.3, 0.1], [0.9, 0.5]]), ["window", "full", "window"])
    assert two_groups.tolist() == [[0.9, 0.9], [0.3, 0.3], [0.9, 0.9]]


def test_layers_without_a_cache_keep_all_and_weigh_nothing(tmp_path):
    spec = resolve(Scenario.of(model="nemotron-h-56b-base-8k", accelerator="h100-sxm", gpus=8, methods="duoattention:0.5", head_scores="gates"))
    plan = head_plan(spec, *methods(spec))
    assert plan is not None
    assert not plan.stored.all()
    assert plan.stored.any()
    assert np.all(plan.kept["head_keep"][~plan.stored] == 1)
    assert np.all(np.asarray(plan.shares.head)[~plan.stored] == 0)
    assert plan.table("head_keep").mean() == pytest.approx(0.5, abs=0.01)
    assert len(plan.stored) == len(spec.architecture.layer_count)


def test_analyze_counts_the_bytes_and_the_accuracy_of_the_plan(gates):
    alike = api.analyze(**ONE_TURN, methods="duoattention:0.5").data
    plan = api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=gates).data
    assert alike["heads"] is None
    assert plan["metrics"]["kv_bytes_per_session"] == pytest.approx(alike["metrics"]["kv_bytes_per_session"], rel=1e-9)
    heads = plan["heads"]
    assert plan["metrics"]["accuracy_retained"] == pytest.approx(heads["retained"], rel=1e-9)
    assert plan["metrics"]["accuracy_lower"] == pytest.approx(heads["lower"], rel=1e-9)
    assert alike["metrics"]["accuracy_retained"] == pytest.approx(heads["retained_curve"], rel=1e-9)
    assert heads["retained"] > heads["retained_uniform"]
    assert heads["score_kept"] > 0.5
    paged = api.analyze(**{**ONE_TURN, "engine": "vllm"}, methods="duoattention:0.5", head_scores=gates).data
    bare = api.analyze(**{**ONE_TURN, "engine": "vllm"}).data
    assert paged["metrics"]["kv_bytes_per_session"] == pytest.approx(bare["metrics"]["kv_bytes_per_session"], rel=1e-9)
    assert paged["heads"]["freed_to"] == {"head_keep": 1.0}
    json.dumps(plan, allow_nan=False)


def test_a_plan_written_is_the_plan_read_back(gates, tmp_path):
    first = api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=gates)
    first.save(tmp_path / "run")
    path = str(tmp_path / "run" / "heads.tsv")
    before, after = plan_of(methods="duoattention:0.5", head_scores=gates), plan_of(methods="duoattention:0.5", head_scores=path)
    assert np.array_equal(before.kept["head_keep"], after.kept["head_keep"])
    assert np.array_equal(before.freed["head_keep"], after.freed["head_keep"])
    again = api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=path)
    assert again.data["metrics"]["kv_bytes_per_session"] == first.data["metrics"]["kv_bytes_per_session"]
    for name in ("retained", "lower", "retained_uniform", "score_kept", "ranked_share"):
        assert again.data["heads"][name] == pytest.approx(first.data["heads"][name], rel=1e-12)
    bare = "\n".join(line for line in Path(path).read_text().splitlines() if not line.startswith("# score"))
    (tmp_path / "bare.tsv").write_text(bare)  # a pattern without its scores is judged as the published ones were measured
    unscored = api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=str(tmp_path / "bare.tsv"))
    assert unscored.data["heads"]["retained"] == pytest.approx(first.data["heads"]["retained_curve"], rel=1e-9)
    assert np.array_equal(np.loadtxt(path), before.kept["head_keep"])  # as DuoAttention reads it


def test_budgets_read_back_are_worth_the_same(gates, tmp_path):
    first = api.analyze(**ONE_TURN, methods="snapkv:0.25", head_scores=gates)
    first.save(tmp_path / "run")
    again = api.analyze(**ONE_TURN, methods="snapkv:0.25", head_scores=str(tmp_path / "run" / "heads.tsv"))
    for name in ("kv_bytes_per_session", "accuracy_retained", "accuracy_lower"):
        assert again.data["metrics"][name] == first.data["metrics"][name]


def test_a_written_plan_is_bound_to_its_method_and_share(gates, tmp_path):
    api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=gates).save(tmp_path / "run")
    path = str(tmp_path / "run" / "heads.tsv")
    with pytest.raises(BadInput, match=r"keeps 0\.5"):
        plan_of(methods="duoattention:0.3", head_scores=path)
    with pytest.raises(BadInput, match="plan of head_keep"):
        plan_of(methods="snapkv:0.5", head_scores=path)


def test_budgets_written_are_the_budgets_read_back(gates, tmp_path):
    before = plan_of(methods="snapkv:0.3", head_scores=gates)
    (tmp_path / "heads.tsv").write_text(files(before)["heads.tsv"])
    after = plan_of(methods="snapkv:0.3", head_scores=str(tmp_path / "heads.tsv"))
    assert np.array_equal(before.kept["token_keep"], after.kept["token_keep"])


def test_bits_by_layer_go_through_and_back(kvtuner, tmp_path):
    result = api.analyze(**ONE_TURN, methods="kvtuner", head_scores=kvtuner)
    even = api.analyze(**ONE_TURN, methods="kvtuner:4").data
    assert result.data["plan"]["key_bits"] == BITS[0].mean()
    assert result.data["plan"]["value_bits"] == BITS[1].mean()
    stored = (BITS.mean() + 0.5) / (4 + 0.5)  # scales: half a bit per element
    ratio = result.data["metrics"]["kv_bytes_per_session"] / even["metrics"]["kv_bytes_per_session"]
    assert ratio == pytest.approx(stored, rel=1e-6)
    assert result.data["heads"]["retained"] < result.data["heads"]["retained_uniform"]  # layers that matter alike gain nothing by a mix
    result.save(tmp_path / "run")
    assert (tmp_path / "run" / "kvtuner.yaml").read_text() == Path(kvtuner).read_text()


def test_a_uniform_file_of_bits_is_the_uniform_plan(tmp_path):
    (tmp_path / "four.yaml").write_text(layer_bits_text(np.full(32, 4.0), np.full(32, 4.0)))
    mixed = api.analyze(**ONE_TURN, methods="kvtuner", head_scores=str(tmp_path / "four.yaml")).data["metrics"]
    even = api.analyze(**ONE_TURN, methods="kvtuner:4").data["metrics"]
    for name in ("accuracy_retained", "accuracy_lower", "kv_bytes_per_session", "sessions_per_gpu_hour"):
        assert mixed[name] == pytest.approx(even[name], rel=1e-6)


def test_a_saved_plan_is_evaluated_as_it_was_found(gates):
    found = api.analyze(**ONE_TURN, methods="duoattention:0.5", head_scores=gates)
    again = api.evaluate(found.data["plan"], **ONE_TURN, methods="duoattention:0.5", head_scores=gates)
    assert again.data["metrics"] == pytest.approx(found.data["metrics"], rel=1e-9)
    assert again.data["heads"] == found.data["heads"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("adakv:0.5", "a gain counts once"),
        ("pyramidkv:0.5", "a gain counts once"),
        ("kvzip:0.5", "a gain counts once"),
        ("fp8", "needs a method that keeps heads or tokens"),
        (None, "needs --methods"),
    ],
)
def test_methods_that_scores_cannot_plan_are_refused(gates, chosen, says):
    with pytest.raises(BadInput, match=says):
        plan_of(methods=chosen, head_scores=gates)


def test_bits_that_the_method_does_not_have_are_refused(kvtuner):
    with pytest.raises(BadInput, match="layer 0: k8v8"):
        plan_of(methods="kivi", head_scores=kvtuner)
    with pytest.raises(BadInput, match="bits of every layer"):
        plan_of(methods="kvtuner:4", head_scores=kvtuner)
    with pytest.raises(BadInput, match="need a bits method"):
        plan_of(methods="duoattention:0.5", head_scores=kvtuner)


def test_searches_refuse_head_scores(gates):
    with pytest.raises(BadInput, match="with --per layer or --per head"):
        api.optimize(**ONE_TURN, methods="duoattention:0.5", head_scores=gates)


def test_the_command_line_refuses_a_wrong_file_with_2_and_one_line(tmp_path, capsys):
    (tmp_path / "short.tsv").write_text("0.5\t0.5\n")
    asked = ["analyze", "--model", "meta-llama/Llama-3.1-8B", "--methods", "duoattention:0.5", "--head-scores", str(tmp_path / "short.tsv")]
    assert cli.main(asked) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "head_scores: short.tsv: is 1 layers x 2 heads" in told.err


def test_the_report_says_plan_worth_and_memory(gates):
    result = api.analyze(**{**ONE_TURN, "engine": "vllm", "gpus": 4, "tp": 4}, methods="duoattention:0.5", head_scores=gates)
    first, second = lines(result.data["heads"], "vllm")
    assert "gates.tsv: 128 of 256 KV heads" in first
    assert "at equal bytes" in first
    assert "of the score" in first
    assert "least compressed layer and head: it holds 100.0 %" in second
    assert "fullest of 4 ranks" in second
    assert "128 of 256 KV heads" in str(result)


def test_the_fullest_rank_holds_its_block_of_heads():
    table = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    assert fullest_rank(table, 1) == 1
    assert fullest_rank(table, 2) == 0.75
    assert fullest_rank(table, 4) == 0.5
    assert fullest_rank(table, 8) == 0.25  # every head on two ranks
