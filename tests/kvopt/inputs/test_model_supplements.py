"""The catalog's model files are what the collected configs and the supplements say, and nothing else."""

import csv
import json
from pathlib import Path

import pytest

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs.hf_config import read_catalog, read_config
from kvopt.inputs.model_names import resolve_measured
from kvopt.inputs.model_supplements import HOME, collected, supplemented, supplements, without_config

CONFIGS = Path(__file__).parents[4] / "shared" / "data" / "configs"
SIZES = CONFIGS.parent / "capacity_models.csv"
beside_evidence = pytest.mark.skipif(not CONFIGS.exists(), reason="the folder with the evidence is not beside the repository")
NOT_SOURCED = {"inkling", "qwen3.8-2.4t-a95b"}


def written(model: str) -> str:
    """The catalog file as it is."""
    return (HOME / "models" / f"{model}.yaml").read_text(encoding="utf-8")


@beside_evidence
def test_catalog_is_what_configs_and_supplements_say() -> None:
    specs = collected(CONFIGS)
    assert len({spec.id for spec in specs}) == len(specs)
    assert {spec.id for spec in specs} <= set(catalog.ids("models"))
    for spec in specs:
        assert written(spec.id) == spec.to_yaml(), spec.id


def test_models_without_a_config_are_what_the_supplements_say() -> None:
    specs = without_config()
    assert {spec.id for spec in specs} == {model for model, added in supplements().items() if added.name}
    for spec in specs:
        assert written(spec.id) == spec.to_yaml(), spec.id


@pytest.mark.parametrize("model", catalog.ids("models"))
def test_every_model_names_its_source(model: str) -> None:
    spec = read_catalog(model)
    assert spec.source != "config.json as given"
    assert len(spec.source) > 10


def test_what_could_not_be_sourced_stays_unknown() -> None:
    unknown = {model for model in catalog.ids("models") if read_catalog(model).parameters.total is None}
    assert unknown == NOT_SOURCED


@pytest.mark.parametrize("model", sorted(supplements()))
def test_supplement_is_used_and_gives_sizes(model: str) -> None:
    spec, added = read_catalog(model), supplements()[model]
    assert spec.tag == added.tag
    assert added.source in spec.source
    assert None not in (spec.hidden, spec.intermediate, spec.vocabulary, spec.max_context, spec.experts, spec.parameters.total)


@beside_evidence
@pytest.mark.parametrize("model", sorted(model for model, added in supplements().items() if not added.name))
def test_supplement_leaves_the_cache_as_the_config_has_it(model: str) -> None:
    bare = next(spec for spec in map(read_config, CONFIGS.glob("*.json")) if spec.id == model)
    spec = read_catalog(model)
    assert bare.parameters.total is None
    assert spec.kinds == bare.kinds
    assert spec.order == bare.order
    assert spec.query_heads == bare.query_heads
    assert bare.max_context in (spec.max_context, None)
    assert bare.source in spec.source


def test_supplement_that_contradicts_its_config_is_refused() -> None:
    config = {"model_type": "gemma2", "num_hidden_layers": 42, "num_attention_heads": 16, "hidden_size": 3584, "intermediate_size": 14336}
    assert supplemented(config, "google/gemma-2-9b").vocabulary == 256000
    with pytest.raises(BadInput, match="the config says 1000"):
        supplemented({**config, "vocab_size": 1000}, "google/gemma-2-9b")


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [
        ("c4ai-command-a-03-2025", 111, None),
        ("c4ai-command-r-plus", 103.8, None),
        ("c4ai-command-r7b-12-2024", 8.03, None),
        ("gemma-2-9b", 9.24, None),
        ("gemma-4-31b", 30.7, None),
        ("glm-5.2", 744, None),
        ("kimi-k2.6", 1026.4, 32.9),
        ("mimo-v2.5-pro", 1020, 42),
        ("minimax-m2", 229, 10.5),
        ("mistral-large-instruct-2407", 122.6, None),
        ("qwen2.5-32b-instruct", 32.76, None),
        ("qwen2.5-72b-instruct", 72.71, None),
        ("qwen3-14b", 14.77, None),
        ("falcon-180b", 179, None),
        ("glm-4-9b-chat", 9.4, None),
        ("gpt-j-6b", 6.05, None),
        ("llama-2-7b-hf", 6.74, None),
        ("llama-2-70b-hf", 68.98, None),
        ("meta-llama-3-8b", 8.03, None),
        ("meta-llama-3-70b", 70.55, None),
        ("qwen2-72b", 72.71, None),
        ("qwen2.5-3b", 3.09, None),
        ("qwen3-1.7b", 1.72, None),
        ("qwen3-4b", 4.02, None),
        ("qwen2-0.5b", 0.494, None),
        ("qwen2-1.5b", 1.544, None),
        ("qwen2-57b-a14b", 57.4, 14.2),
        ("qwen1.5-14b", 14.2, None),
        ("qwen1.5-72b", 72.3, None),
        ("qwen1.5-moe-a2.7b", 14.3, 2.7),
        ("llama-7b", 6.74, None),
        ("llama-13b", 13.0, None),
        ("llama-30b", 32.5, None),
        ("llama-65b", 65.2, None),
        ("llama-2-13b-hf", 13.0, None),
        ("codellama-34b-hf", 33.7, None),
        ("mistral-nemo-instruct-2407", 12.25, None),
        ("mistral-small-24b-instruct-2501", 23.57, None),
        ("gemma-3-1b-it", 1.0, None),
        ("phi-3-mini-4k-instruct", 3.82, None),
        ("phi-3-medium-128k-instruct", 13.96, None),
        ("deepseek-v2.5", 236, 21),
        ("deepseek-coder-33b-instruct", 33.3, None),
        ("deepseek-llm-67b-base", 67.4, None),
        ("kimi-vl-a3b-instruct", 15.96, None),
        ("yi-34b", 34.4, None),
        ("yi-6b", 6.06, None),
        ("internlm2-7b", 7.74, None),
        ("internlm2-20b", 19.86, None),
        ("glm-4-9b-chat-1m", 9.48, None),
        ("glm-5.1", 744, None),
        ("minimax-m2.7", 229, 10.5),
        ("opt-13b", 12.85, None),
        ("opt-30b", 30, None),
        ("c4ai-command-r-v01", 35, None),
        ("c4ai-command-r-08-2024", 32.3, None),
        ("starcoder2-7b", 7.17, None),
    ],
)
def test_published_sizes(model: str, total: float, active: float | None) -> None:
    known = read_catalog(model).parameters
    assert known.total is not None
    assert known.active is not None
    assert known.embedding is not None
    assert known.total / 1e9 == pytest.approx(total, rel=0.003)
    if active is not None:
        assert (known.active + known.embedding) / 1e9 == pytest.approx(active, rel=0.06)


LANGUAGE_ALONE = {"mistral-small-24b", "qwen3-vl-30b-a3b", "kimi-vl-a3b", "gemma3-4b", "gemma3-12b", "gemma3-27b", "granite-vision-2b"}
"""Models that also see: the table's parameters have the vision encoder, some half a billion, in them."""


@pytest.mark.skipif(not SIZES.exists(), reason="the folder with the evidence is not beside the repository")
def test_sizes_of_the_models_that_start_up_logs_confirm() -> None:
    for row in csv.DictReader(SIZES.read_text(encoding="utf-8").splitlines()):
        model = resolve_measured(row["hf_id_examples"].split(";")[0])
        assert model is not None, row["model_key"]
        spec = read_catalog(model)
        per_token = sum(
            2 * repeat * spec.kinds[kind].kv_heads * (spec.kinds[kind].key_width + spec.kinds[kind].value_width) for kind, repeat in spec.order
        )
        assert per_token == int(row["kv_bytes_per_token_16bit_tp1"]), model
        if row["params_billion"]:
            assert spec.parameters.total is not None
            seen = 0.6 if row["model_key"] in LANGUAGE_ALONE else 0
            assert spec.parameters.total / 1e9 == pytest.approx(float(row["params_billion"]), rel=0.015, abs=seen), model


@pytest.mark.parametrize(("model", "total", "per_layer"), [("gemma-4-e2b", 5.1, 35), ("gemma-4-e4b", 8.0, 42)])
def test_gemma_with_per_layer_embeddings(model: str, total: float, per_layer: int) -> None:
    """The published sizes have the vision and audio encoders in them, some 0.45 billion."""
    known = read_catalog(model).parameters
    assert known.total is not None
    assert known.embedding is not None
    assert known.head is not None
    assert known.total / 1e9 + 0.45 == pytest.approx(total, rel=0.02)
    assert known.embedding - known.head == per_layer * 256 * 262144


def test_generator_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvopt.inputs import model_supplements

    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    config = {"model_type": "gemma2", "num_hidden_layers": 42, "num_attention_heads": 16, "hidden_size": 3584, "intermediate_size": 14336}
    (tmp_path / "configs" / "google__gemma-2-9b.json").write_text(json.dumps(config), encoding="utf-8")
    supplements()  # read before its home moves
    monkeypatch.setattr(model_supplements, "HOME", tmp_path)
    model_supplements.main(str(tmp_path / "configs"))
    names = {path.stem for path in (tmp_path / "models").iterdir()}
    assert names == {"gemma-2-9b", *(spec.id for spec in without_config())}
