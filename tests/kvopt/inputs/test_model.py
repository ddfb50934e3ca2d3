import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs.hf_config import from_yaml, read_catalog, read_model
from kvopt.inputs.model_aliases import OTHER_CONTEXT, SAME_SHAPE
from kvopt.inputs.model_names import aliases, key, known_names, resolve, resolve_measured

IDS = catalog.ids("models")
EVIDENCE = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("yi-34b-200k", "yi-34b-200k"),
        ("01-ai/Yi-34B-200K", "yi-34b-200k"),
        ("llama-3.1-70b", "meta-llama-3.1-70b"),
        ("meta-llama/Meta-Llama-3.1-70B", "meta-llama-3.1-70b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama-3.1-8b"),
        ("Llama-3.3-70B-Instruct", "meta-llama-3.1-70b"),
        ("llama3.1-8b", "meta-llama-3.1-8b"),
        ("qwen2.5-72b", "qwen2.5-72b-instruct"),
        ("Qwen/Qwen2.5-7B", "qwen2.5-7b-instruct"),
        ("deepseek-v3", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-v0.1"),
        ("mistral-7b", "mistral-7b-v0.3"),
        ("gemma-3-27b", "gemma-3-27b-it"),
        ("google/gemma-4-31B-it", "gemma-4-31b"),
        ("GPT-OSS-120B", "gpt-oss-120b"),
        ("command-r-plus", "c4ai-command-r-plus"),
        ("nemotron-3-nano-30b-a3b", "nvidia-nemotron-3-nano-30b-a3b-bf16"),
        ("qwen3.6-27b", "qwen3.5-27b"),
        ("phi-4", "phi-4"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama-3-8b"),
        ("llama-3-70b", "meta-llama-3-70b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b-hf"),
        ("llama-2-70b", "llama-2-70b-hf"),
        ("Qwen/Qwen2-72B-Instruct", "qwen2-72b"),
        ("Qwen2.5-3B-Instruct", "qwen2.5-3b"),
        ("THUDM/glm-4-9b", "glm-4-9b-chat"),
        ("tiiuae/falcon-180B-chat", "falcon-180b"),
        ("EleutherAI/gpt-j-6B", "gpt-j-6b"),
        ("deepseek-r1", "deepseek-v3"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-instruct-v0.2"),
        ("Qwen2-57B-A14B-Instruct", "qwen2-57b-a14b"),
        ("teknium/OpenHermes-2.5-Mistral-7B", "mistral-7b-v0.1"),
        ("Yi-34B-Chat", "yi-34b"),
        ("Qwen3-30B-A3B", "qwen3-30b-a3b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b-instruct-2507"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-30b-a3b-instruct-2507"),
        ("THUDM/glm-4-9b-chat-1m", "glm-4-9b-chat-1m"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama-3.1-8b"),
    ],
)
def test_names_people_say(text: str, model: str) -> None:
    assert resolve(text) == model
    assert read_model(text).id == model


@pytest.mark.parametrize(
    "text", ["mistral-7b-v0.4", "qwen2-27b-a14b", "deepseek", "llama-3.1-8b-gradient-1048k", "command-r", "qwen2.5-7b-instruct-1m", ""]
)
def test_names_of_other_models_are_not_taken_for_a_known_one(text: str) -> None:
    assert resolve(text) is None


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Llama-3.1-8B-Instruct", "meta-llama-3.1-8b"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "meta-llama-3.1-70b"),
        ("neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", "meta-llama-3.1-70b"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama-3.1-8b"),
        ("Llama-3.1-8B-like (14.9888 GiB weights)", "meta-llama-3.1-8b"),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "llama-4-maverick-17b-128e-instruct"),
        ("TheBloke/zephyr-7B-beta-AWQ", "mistral-7b-v0.1"),
        ("Qwen/Qwen1.5-7B-Chat-GPTQ-Int4", "qwen1.5-7b"),
        ("Qwen1.5-7B-sft", "qwen1.5-7b"),
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct (int8)", "qwen2.5-0.5b"),
        ("Qwen2.5-VL-72B", "qwen2.5-72b-instruct"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "qwen2.5-14b"),
        ("DeepSeek-R1-AWQ", "deepseek-v3"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b-instruct-2507"),
        ("Qwen3-VL-235B-A22B AWQ", "qwen3-vl-235b-a22b-instruct"),
        ("Qwen3-30B-A3B-Thinking (FP8 weights)", "qwen3-30b-a3b"),
        ("Qwen3.6-35B-A3B NVFP4", "qwen3.5-35b-a3b"),
        ("Qwen3.6-27B int4 (autoround)", "qwen3.5-27b"),
        ("GLM-5.2-W4A16", "glm-5.2"),
        ("gaunernst/gemma-3-27b-it-int4-awq", "gemma-3-27b-it"),
        ("kaitchup/Phi-4-AutoRound-GPTQ-4bit", "phi-4"),
        ("Yi-34B bf16", "yi-34b"),
        ("Llama-3-8B-Instruct-Gradient-1048k", "meta-llama-3-8b"),
    ],
)
def test_names_in_rows_of_measurements(text: str, model: str) -> None:
    assert resolve_measured(text) == model


@pytest.mark.parametrize(
    "text",
    [
        "(model not stated)",
        "granite MoE",
        "Pixtral",
        "GLM-5.3-Flash",
        "AWQ",
        "Qwen3.5-35B",
        "Mistral-Small-Instruct-2409",
        "Llama-3.2-11B-Vision",
        "",
    ],
)
def test_measured_names_that_leave_the_shape_open_are_refused(text: str) -> None:
    assert resolve_measured(text) is None


def test_tables_name_models_of_the_catalog_and_no_checkpoint_twice() -> None:
    names = [name for table in (SAME_SHAPE, OTHER_CONTEXT) for listed in table.values() for name in listed]
    assert set(SAME_SHAPE) | set(OTHER_CONTEXT) <= set(IDS)
    assert len({key(name) for name in names}) == len(names)
    assert not {key(name) for name in names} & {key(model) for model in IDS}
    assert all(resolve_measured(name) == model for table in (SAME_SHAPE, OTHER_CONTEXT) for model, listed in table.items() for name in listed)


@pytest.mark.parametrize(
    ("file", "column", "open_names"),
    [
        ("latency_points.csv", "model", set()),
        ("capacity_logs.csv", "model", {"GLM-5.3-Flash", "Pixtral", "granite MoE"}),
        ("capacity_models.csv", "hf_id_examples", set()),
        ("vllm_kv_log_points.csv", "model", set()),
        ("peers/aiconfigurator_vs_silicon.csv", "model_path", set()),
        ("peers/one_scenario_predictions.csv", "model", set()),
    ],
)
def test_evidence_names_models_of_the_catalog(file: str, column: str, open_names: set[str]) -> None:
    """97 of 100 rows that name a model; the rest are names that do not say which shape is meant."""
    if not (EVIDENCE / file).exists():
        pytest.skip("the folder with the evidence is not beside the repository")
    rows = csv.DictReader((EVIDENCE / file).read_text(encoding="utf-8").splitlines())
    named = [name for row in rows if (name := row[column].split(";")[0]) and not re.search(r"not (stated|named)", name)]
    lost = [name for name in named if resolve_measured(name) is None]
    assert set(lost) <= open_names
    assert len(lost) <= 0.03 * len(named), sorted(set(lost))


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"llama-3\.1-70b") as caught:
        read_model("llama-3.1-71b")
    assert caught.value.field == "model"


@pytest.mark.parametrize("model", IDS)
def test_every_catalog_file_reads_and_comes_back(model: str) -> None:
    spec = read_catalog(model)
    assert spec.id == model == spec.name.rpartition("/")[2].lower()
    assert from_yaml(yaml.safe_load(spec.to_yaml())) == spec
    for alias in spec.aliases:
        assert resolve(alias) in (model, None)
        assert alias in known_names()
    a = spec.architecture()
    for name, leaf in vars(a).items():
        assert np.asarray(leaf).dtype == np.float64, name


def test_aliases_mean_one_model() -> None:
    for alias in {"llama-3.1-70b", "qwen2.5-72b", "deepseek-r1"}:
        assert sum(alias in aliases(model) for model in IDS) == 1


def test_groups_and_layers() -> None:
    spec = read_catalog("gemma-3-27b-it")
    merged, apart = spec.architecture(), spec.architecture(per_layer=True)
    assert merged.layer_count.ravel().tolist() == [52, 10]
    assert merged.head_count.ravel().tolist() == [16, 16]
    assert apart.head_count.shape == (62, 16)
    assert apart.layer_count.shape == (62, 1)
    assert apart.window[:7].ravel().tolist() == [1024] * 5 + [0, 1024]


def test_heads_are_masked_where_layers_have_fewer() -> None:
    apart = read_catalog("mimo-v2-flash").architecture(per_layer=True)
    assert apart.head_count.shape == (48, 8)
    assert apart.head_count[0].tolist() == [1] * 4 + [0] * 4
    assert apart.head_count[1].tolist() == [1] * 8


def test_layers_without_attention_have_no_row_but_count() -> None:
    spec = read_catalog("nvidia-nemotron-3-nano-30b-a3b-bf16")
    assert spec.architecture(per_layer=True).layer_count.shape == (29, 1)
    assert spec.architecture().layers == 52


def test_unknown_numbers_are_nan() -> None:
    a = read_catalog("inkling").architecture()
    assert math.isnan(a.parameters)
    assert math.isnan(a.experts)
    assert a.query_heads == 64


def test_latent_flop() -> None:
    a = read_catalog("deepseek-v3").architecture()
    assert a.attention_flop.item() == 2 * 128 * (128 + 64 + 128)
    assert a.decode_flop.item() == 2 * 128 * (2 * 512 + 64)
    assert (a.head_count.item(), a.key_width.item(), a.value_width.item()) == (1, 576, 0)
    assert a.decode_flop.item() / (576 * 2) == pytest.approx(242, abs=0.5)  # FLOP per byte of bf16 latent


def test_sparse_attention() -> None:
    a = read_catalog("glm-5.3").architecture(per_layer=True)
    assert np.count_nonzero(a.index_width) == 21
    assert set(a.select.ravel()) == {2048}
    assert set(a.index_flop.ravel()) == {0, 2 * 32 * 128}
    m3 = read_catalog("minimax-m3").architecture()
    assert m3.select.ravel().tolist() == [math.inf, 16 * 128]


def test_compressed_attention() -> None:
    a = read_catalog("deepseek-v4-flash").architecture()
    assert dict(zip(a.global_rate.ravel().tolist(), a.layer_count.ravel().tolist(), strict=True)) == {0: 2, 1 / 4: 21, 1 / 128: 20}
    assert a.index_rate.ravel().tolist() == [0, 1 / 4, 0]
    assert set(a.value_width.ravel()) == {0}


def test_shared_layers_read_but_do_not_store() -> None:
    a = read_catalog("gemma-4-e2b").architecture(per_layer=True)
    assert a.stores.ravel().tolist() == [1] * 15 + [0] * 20
    assert (a.head_count.sum(axis=1) == 1).all()


def test_checkpoint_bytes() -> None:
    assert read_catalog("yi-34b-200k").checkpoint().bytes_per_parameter == 2
    assert read_catalog("deepseek-v3").checkpoint().bytes_per_parameter == 1
    assert read_catalog("yi-34b-200k").checkpoint("int4").bytes_per_parameter == 0.52
    assert read_catalog("yi-34b-200k").checkpoint("fp8").bytes_per_embedding == 2
    assert read_catalog("yi-34b-200k").checkpoint("fp8").retained == 1
    with pytest.raises(BadInput, match="weight format: fp3"):
        read_catalog("yi-34b-200k").checkpoint("fp3")


def test_checkpoint_with_bf16_attention_beside_4_bit_experts() -> None:
    spec = read_catalog("gpt-oss-120b")
    c, known = spec.checkpoint(), spec.parameters
    assert known.total is not None
    assert known.embedding is not None
    stored = (known.total - known.embedding) * c.bytes_per_parameter + known.embedding * c.bytes_per_embedding
    assert stored / 1e9 == pytest.approx(65.2, abs=0.2)  # the published files


def test_tied_embeddings_are_stored_once_and_multiplied_once() -> None:
    tied, apart = read_catalog("llama-3.2-1b").parameters, read_catalog("meta-llama-3.1-8b").parameters
    assert tied.embedding == tied.head == 128256 * 2048
    assert apart.embedding == 2 * 128256 * 4096


def test_bad_catalog_file(tmp_path: Path) -> None:
    text = read_catalog("yi-34b-200k").to_yaml()
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_model(str(path)) == read_catalog("yi-34b-200k")
    path.write_text(text.replace("layers: 60", "layers: 61"), encoding="utf-8")
    with pytest.raises(BadInput, match="61 layers"):
        read_model(str(path))
    path.write_text(text + "colour: red\n", encoding="utf-8")
    with pytest.raises(BadInput, match="colour"):
        read_model(str(path))


def test_reading_a_model_starts_no_jax_backend() -> None:
    code = (
        "from kvopt.inputs.hf_config import read_model; read_model('yi-34b-200k').architecture(); "
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
