"""KV sizes, states and parameter counts of all 82 collected configs against the table that others derived from them."""

import csv
from pathlib import Path

import numpy as np
import pytest

from kvopt.inputs.hf_config import read_config
from kvopt.inputs.model import ModelSpec

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "model_kv_index.csv").exists(), reason="the folder with the evidence is not beside the repository")

NO_INDEX_KEYS = "the start column leaves out the index keys"
GATE_TWICE = "the table counts the output gate of the full layers twice (with it once, Qwen3-Next gives the reference's 79.67 B and 27B its 27.8 B)"
NO_INDEXER = "the table leaves out the indexer's weights (with them GLM-5 has its published 744 B)"
FAULTS = {
    ("deepseek-ai/DeepSeek-V3.2", "kv_bytes_per_token_start"): NO_INDEX_KEYS,
    ("zai-org/GLM-5", "kv_bytes_per_token_start"): NO_INDEX_KEYS,
    ("zai-org/GLM-5.2", "kv_bytes_per_token_start"): NO_INDEX_KEYS,
    ("zai-org/GLM-5.3", "kv_bytes_per_token_start"): NO_INDEX_KEYS,
    ("MiniMaxAI/MiniMax-M3", "kv_bytes_per_token_start"): NO_INDEX_KEYS,
    (
        "thinkingmachines/Inkling",
        "state_mib",
    ): "the table leaves out the short convolutions' state, (4 - 1) * (2 * kv * width + 2 * hidden) * 2 B a layer",
    **{
        (model, column): GATE_TWICE
        for model in ("Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-35B-A3B", "Qwen/Qwen3.5-122B-A10B", "Qwen/Qwen3.5-397B-A17B", "nvidia/Qwen3.6-27B-NVFP4")
        for column in ("params_total_b", "params_active_b")
    },
    **{
        (model, column): NO_INDEXER
        for model in ("deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5", "zai-org/GLM-5.3")
        for column in ("params_total_b", "params_active_b")
    },
}
"""Where the table is wrong, and why."""


def rows() -> list[dict[str, str]]:
    """The table's rows; none where it is absent."""
    path = DATA / "model_kv_index.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def spec_of(name: str) -> ModelSpec:
    """The model as read from its config."""
    return read_config(DATA / "configs" / f"{name.replace('/', '__')}.json")


def kv_bytes(model: ModelSpec, tokens: float, *, per_layer: bool = False) -> float:
    """16-bit bytes held of a context of `tokens`, index keys included, written out from the docstring of `Architecture`."""
    a = model.architecture(per_layer=per_layer)
    entries = np.where(a.window > 0, np.minimum(tokens, a.window), 0) + a.global_rate * tokens
    heads = a.head_count.sum(axis=1, keepdims=True)
    return float(np.sum(a.layer_count * (a.stores * heads * entries * (a.key_width + a.value_width) + a.index_width * a.index_rate * tokens) * 2))


def computed(model: ModelSpec) -> dict[str, tuple[float, float]]:
    """Value and rounding of each column of the table."""
    a, known = model.architecture(), model.parameters
    values = {
        "kv_bytes_per_token_start": (kv_bytes(model, 1), 0.5),
        "kv_bytes_per_token_marginal": (kv_bytes(model, 10**7 + 1) - kv_bytes(model, 10**7), 0.5),
        "state_mib": (float(np.sum(a.layer_count * a.state_bytes)) / 2**20, 0.0051),
        **{f"kv_gib_{n}k": (kv_bytes(model, n * 1024) / 2**30, 0.00051) for n in (8, 32, 128)},
        "layers_total": (model.layers, 0),
        "max_context": (model.max_context or 0, 0),
    }
    if known.total and known.active and known.embedding:
        values["params_total_b"] = (known.total / 1e9, 0.0051)
        values["params_active_b"] = ((known.active + known.embedding) / 1e9, 0.0051)  # the table's active counts both embeddings
    return values


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["model"])
def test_index(row: dict[str, str]) -> None:
    values = computed(spec_of(row["model"]))
    for column in ("params_total_b", "params_active_b"):
        assert column in values or not row[column], f"{column} is known"
    wrong = {
        column: f"{value} and not {row[column]}"
        for column, (value, rounding) in values.items()
        if row[column] and (row["model"], column) not in FAULTS and abs(value - float(row[column])) > rounding
    }
    assert not wrong


@pytest.mark.parametrize(("model", "column"), sorted(FAULTS), ids=str)
def test_fault_is_still_there(model: str, column: str) -> None:
    row = next(row for row in rows() if row["model"] == model)
    value, rounding = computed(spec_of(model))[column]
    assert abs(value - float(row[column])) > rounding


def test_all_models_are_there() -> None:
    assert len(rows()) == 82 == len(list((DATA / "configs").glob("*.json")))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["model"])
def test_layers_one_by_one_hold_the_same(row: dict[str, str]) -> None:
    model = spec_of(row["model"])
    for tokens in (1, 100, 5000, 200_000):
        assert kv_bytes(model, tokens, per_layer=True) == pytest.approx(kv_bytes(model, tokens), rel=1e-12)


def test_deepseek_v4_start_that_the_table_leaves_empty() -> None:
    flash, pro = spec_of("deepseek-ai/DeepSeek-V4-Flash"), spec_of("deepseek-ai/DeepSeek-V4-Pro")
    assert kv_bytes(flash, 1) == 43 * 512 * 2 + 6880
    assert kv_bytes(pro, 1) == 61 * 512 * 2 + 9848


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("01-ai/Yi-34B-200K", 34.39, None),
        ("meta-llama/Meta-Llama-3.1-70B", 70.55, None),
        ("mistralai/Mixtral-8x7B-v0.1", 46.70, 12.88),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.67, 3.87),
        ("deepseek-ai/DeepSeek-V3", 671.03, 37.55),
        ("deepseek-ai/DeepSeek-V4-Flash", 284, 13.7),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 49.87, None),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6, 3.6),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 120.6, 12.7),
        ("google/gemma-4-26B-A4B", 25.2, 3.8),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 49.1, None),
        ("ai21labs/Jamba-v0.1", 51.57, None),
        ("XiaomiMiMo/MiMo-V2-Flash", 309, 15),
    ],
)
def test_published_sizes(name: str, total: float, active: float | None) -> None:
    known = spec_of(name).parameters
    assert known.total is not None
    assert known.active is not None
    assert known.embedding is not None
    assert known.total / 1e9 == pytest.approx(total, rel=0.003)
    if active is not None:
        assert (known.active + known.embedding) / 1e9 == pytest.approx(active, rel=0.035)
