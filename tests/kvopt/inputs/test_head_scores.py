"""Head scores and bits per layer from files: what the published ones hold, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kvopt.calibration import head_profiles as fit
from kvopt.errors import BadInput
from kvopt.inputs import head_profiles
from kvopt.inputs.head_files import read_head_scores
from kvopt.inputs.head_scores import HeadScores, fold, plan_text
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.layer_bits import layer_bits_text, read_layer_bits
from objectives.accuracy.heads import Concentration

FILES = Path(__file__).parents[4] / "shared" / "data" / "head_scores"
here = pytest.mark.skipif(not FILES.is_dir(), reason="the published head scores are not here")
LLAMA = read_model("meta-llama/Llama-3.1-8B")  # 32 layers, 8 KV heads, 32 query heads
MODELS = {
    "duo_Llama-2-7B-32K-Instruct": "llama-2-7b-hf",
    "duo_Llama-3-8B-Instruct-Gradient-1048k": "meta-llama-3-8b",
    "duo_Llama-3-8B-Instruct-Gradient-4194k": "meta-llama-3-8b",
    "duo_Meta-Llama-3.1-8B-Instruct": "meta-llama-3.1-8b",
    "duo_Mistral-7B-Instruct-v0.2": "mistral-7b-instruct-v0.2",
    "duo_Mistral-7B-Instruct-v0.3": "mistral-7b-v0.3",
    "retrieval_Mistral-7B-v0.2-hf": "mistral-7b-instruct-v0.2",
    "retrieval_Mixtral-8x7B-v0.1": "mixtral-8x7b-v0.1",
    "retrieval_Qwen1.5-14B-Chat": "qwen1.5-14b",
    "retrieval_Qwen1.5-14B": "qwen1.5-14b",
    "retrieval_Yi-6B-200K": "yi-6b",
    "retrieval_llama-2-13b-64k": "llama-2-13b-hf",
    "retrieval_llama-2-7b-80k": "llama-2-7b-hf",
}


def table(values: np.ndarray) -> str:
    return "\n".join("\t".join(f"{value:.6f}" for value in row) for row in values) + "\n"


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def gates(seed: int = 0, heads: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (32, heads)).round(6)


def refusal(text: str, model=LLAMA) -> str:
    with pytest.raises(BadInput) as error:
        read_head_scores(text, model)
    assert "\n" not in str(error.value)
    return str(error.value)


@here
@pytest.mark.parametrize("name", MODELS)
def test_published_files_fit_their_models(name):
    raw, model = np.loadtxt(FILES / f"{name}.tsv"), read_model(MODELS[name])
    found = read_head_scores(str(FILES / f"{name}.tsv"), model)
    assert isinstance(found, HeadScores)
    assert found.kind == ("gates" if name.startswith("duo") else "retrieval")
    kv_heads = next(kind.kv_heads for kind in model.kinds.values())
    assert found.values.shape == (len(raw), kv_heads)
    assert 0 <= found.values.min() < found.values.max() <= 1
    assert found.values.mean() == pytest.approx(raw.mean(), abs=1e-3)


@here
def test_the_default_profiles_are_those_of_the_published_files():
    """The 5 % of query heads that retrieve most hold 58 to 85 % of the score; gates of grouped heads are nearly flat."""
    profiles, told = head_profiles.load(), fit.content(FILES)
    assert head_profiles.HeadProfiles.model_validate(told) == profiles
    assert profiles.query_heads_held_at_5_percent == pytest.approx((0.58, 0.85), abs=0.01)
    assert profiles.gates.held_at_5_percent[1] < 0.13
    for name, curve in profiles.query_heads.items():
        values = np.loadtxt(FILES / f"retrieval_{name}.tsv")
        at = Concentration(scale=curve.scale, bend=curve.bend, headroom=1.0)
        assert np.sqrt(np.mean((np.asarray(head_profiles.score_held(head_profiles.AT, at)) - head_profiles.measured(values)) ** 2)) < 0.03


def test_budgets_by_the_default_profile_gain_what_was_measured():
    """Budgets per head over one budget for all, LongBench: +.061 at 64 of 7,950 tokens, +.030 at 1,024 (of which +.023 below the uncompressed score)."""
    profiles = head_profiles.load()
    heads = Concentration(scale=profiles.retrieval.scale, bend=profiles.retrieval.bend, headroom=1.0)
    small, large = fit.budget_gains(profiles.score_weight, heads)
    assert small == pytest.approx(0.061, abs=0.01)
    assert 0.005 < large < 0.031
    assert fit.budget_gains(0.0, heads) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_gates_are_clipped_where_training_left_them_just_outside(tmp_path):
    values = gates()
    values[0, 0], values[1, 1] = -0.0014, 1.0028
    found = read_head_scores(written(tmp_path, "g.tsv", table(values)), LLAMA)
    assert found.values[0, 0] == 0
    assert found.values[1, 1] == 1
    assert np.array_equal(found.values[2:], values[2:])


def test_query_heads_are_folded_onto_the_kv_heads_that_they_share(tmp_path):
    values = gates(heads=32)
    found = read_head_scores("retrieval:" + written(tmp_path, "scores.tsv", table(values)), LLAMA)
    assert found.kind == "retrieval"
    assert found.values[3, 2] == pytest.approx(values[3, 8:12].mean())
    keep = np.zeros((32, 8))
    keep[:, 2] = 1  # shares of the score are the same over KV heads and query heads
    assert (found.values * keep).sum() / found.values.sum() == pytest.approx(values[:, 8:12].sum() / values.sum())
    assert np.array_equal(fold(values, 32), values)


def test_retrieval_json_is_the_mean_of_the_runs(tmp_path):
    data = {f"{layer}-{head}": [0.1, 0.1 + head / 100] for layer in range(32) for head in range(32)}
    found = read_head_scores(written(tmp_path, "m.json", json.dumps(data)), LLAMA)
    assert found.kind == "retrieval"
    assert found.values.shape == (32, 8)
    assert found.values[5, 1] == pytest.approx(0.1 + 5.5 / 200)
    del data["7-31"]
    assert "7-31 is missing" in refusal(written(tmp_path, "short.json", json.dumps(data)))
    assert "32-0" in refusal(written(tmp_path, "long.json", json.dumps({**data, "7-31": [0.1], "32-0": [0.1]})))
    assert "3-4: 5.5" in refusal(written(tmp_path, "high.json", json.dumps({**data, "7-31": [0.1], "3-4": [10, 1]})))
    assert "9-9" in refusal(written(tmp_path, "words.json", json.dumps({**data, "7-31": [0.1], "9-9": ["high"]})))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("layers.tsv", table(gates()[:31]), ("31 layers x 8", "32 layers x 8")),
        ("heads.tsv", table(gates(heads=4)), ("32 layers x 4", "32 layers x 8")),
        ("query.tsv", table(gates(heads=32)), ("32 layers x 32", "retrieval:FILE")),
        ("retrieval_wrong.tsv", table(gates(heads=16)), ("32 layers x 16", "8 or 32")),
        ("high.tsv", table(np.where(np.arange(8) == 3, 1.5, gates())), ("layer 0, head 3: 1.5", "0 to 1")),
        ("nan.tsv", table(gates()).replace("0.636962", "nan", 1), ("nan", "0 to 1")),
        ("zero.tsv", table(np.zeros((32, 8))), ("every score is 0",)),
        ("word.tsv", "0.1\tfull\n", ("line 1", "numbers")),
        ("ragged.tsv", "0.1\t0.2\n0.3\n", ("line 2", "1 heads")),
        ("empty.tsv", "# nothing\n", ("holds no numbers",)),
        ("scores.npy", "", (".tsv",)),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, text, says):
    message = refusal(written(tmp_path, name, text))
    assert message.startswith("head_scores: ")
    assert all(part in message for part in says)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot be read" in refusal(str(tmp_path / "none.tsv"))
    assert "cannot be read" in refusal(str(tmp_path / "none.json"))
    assert "cannot be read" in refusal(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(("model", "why"), [("deepseek-v3", "MLA"), ("gemma-2b", "MQA")])
def test_models_without_heads_to_tell_apart_are_refused(tmp_path, model, why):
    for text in (written(tmp_path, "g.tsv", table(gates())), "gates"):
        assert why in refusal(text, read_model(model))


@pytest.mark.parametrize("kind", ["gates", "retrieval"])
def test_the_default_profile_spreads_its_ranks_over_layers_and_heads(kind):
    found = read_head_scores(kind, LLAMA)
    assert not found.exact
    assert found.values.shape == (32, 8)
    profile = getattr(head_profiles.load(), kind)
    curve = Concentration(scale=profile.scale, bend=profile.bend, headroom=1.0)
    assert head_profiles.measured(found.values) == pytest.approx(np.asarray(head_profiles.score_held(head_profiles.AT, curve)), abs=1e-6)
    best = np.argsort(-found.values, axis=None)[:64]
    assert set(np.bincount(best // 8)) == {2}
    assert set(np.bincount(best % 8)) == {8}


def test_a_plan_reads_back_to_the_last_digit(tmp_path):
    keep = np.random.default_rng(1).integers(1, 257, (32, 8)) / 256
    found = read_head_scores(written(tmp_path, "heads.tsv", plan_text(keep, "token_keep", "from x.tsv")), LLAMA)
    assert (found.kind, found.keeps) == ("plan", "token_keep")
    assert np.array_equal(found.values, keep)
    assert np.array_equal(np.loadtxt(tmp_path / "heads.tsv", delimiter="\t"), keep)  # as DuoAttention reads its patterns


BITS = np.array([[8, 2, 4, 4] * 8, [8, 2, 4, 2] * 8], float)


def test_kvtuner_files_read_and_write_the_same(tmp_path):
    path = Path(written(tmp_path, "k.yaml", layer_bits_text(*BITS)))
    assert path.read_text().startswith("0:\n  nbits_key: 8\n  nbits_value: 8\n1:\n")  # as calibration_presets/*.yaml of KVTuner
    found = read_layer_bits(path, LLAMA)
    assert np.array_equal(found.key, BITS[0])
    assert np.array_equal(found.value, BITS[1])
    assert layer_bits_text(found.key, found.value) == path.read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("7:\n  nbits_key: 4\n  nbits_value: 2\n", "", 1), ("layer 7", "missing")),
        (lambda text: text + "32:\n  nbits_key: 4\n  nbits_value: 4\n", ("layer 32", "0 to 31")),
        (lambda text: text.replace("nbits_key: 8", "nbits_key: 32", 1), ("layer 0, nbits_key: 32", "1 to 16")),
        (lambda text: text.replace("nbits_key: 8", "nbits_key: high", 1), ("layer 0, nbits_key: high",)),
        (lambda text: text.replace("nbits_value: 8", "bits_value: 8", 1), ("layer 0", "nbits_value")),
        (lambda text: "- 1\n- 2\n", ("mapping",)),
    ],
)
def test_kvtuner_files_that_do_not_fit_are_refused(tmp_path, change, says):
    message = refusal(written(tmp_path, "k.yaml", change(layer_bits_text(*BITS))))
    assert message.startswith("head_scores: ")
    assert all(part in message for part in says)
