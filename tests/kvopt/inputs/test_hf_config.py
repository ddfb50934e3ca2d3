import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvopt.errors import BadInput
from kvopt.inputs.hf_config import parse_config, read_model
from kvopt.inputs.model import ModelSpec

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def llama(**changes: Any) -> dict[str, Any]:
    """A Llama-3.1-8B with some fields changed; None takes a field out."""
    return {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}


def per_token(model: ModelSpec, tokens: int = 1) -> float:
    """16-bit bytes of KV that the token after `tokens` tokens adds."""
    return sum(
        repeat * kind.stores * kind.kv_heads * (kind.key_width + kind.value_width) * 2 * (kind.global_rate + (tokens <= kind.window))
        for name, repeat in model.order
        for kind in [model.kinds[name]]
    )


@given(
    layers=st.integers(1, 200),
    kv=st.integers(1, 64),
    group=st.integers(1, 16),
    width=st.sampled_from([64, 80, 96, 128, 256]),
    family=st.sampled_from(["llama", "mistral", "qwen2", "qwen3", "granite", "olmo2", "phi3"]),
    stated=st.booleans(),
)
def test_any_dense_config_holds_k_and_v_of_every_layer(layers: int, kv: int, group: int, width: int, family: str, stated: bool) -> None:
    heads = kv * group
    config = llama(
        model_type=family, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, hidden_size=heads * width, head_dim=width
    )
    if not stated:
        del config["head_dim"]
    model = parse_config(config, "x")
    assert per_token(model) == 2 * layers * kv * width * 2
    assert model.kinds["full"].attention_flop == 4 * heads * width


@pytest.mark.parametrize("value", ["mamba3", "bert", "", 7, "Llama"])
def test_unknown_family_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInput, match="not a family kvopt knows") as caught:
        parse_config(llama(model_type=value), "x")
    assert caught.value.field == "model_type"


def test_no_family_is_refused() -> None:
    with pytest.raises(BadInput, match="model_type: missing"):
        parse_config(llama(model_type=None), "x")


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gpt_oss", "exaone4", "gemma3_text", "qwen3_next", "llama4_text", "gemma4_text"])
def test_unknown_layer_type_is_refused(family: str) -> None:
    config = llama(model_type=family, layer_types=["full_attention"] * 31 + ["telepathy"], sliding_window=1024, attention_chunk_size=8192)
    with pytest.raises(BadInput, match="telepathy") as caught:
        parse_config(config, "x")
    assert caught.value.field == "layer_types"


def test_sliding_layers_in_a_family_without_are_refused() -> None:
    with pytest.raises(BadInput, match="sliding_attention"):
        parse_config(llama(layer_types=["sliding_attention"] * 32, sliding_window=1024), "x")


def test_layer_types_of_another_length_are_refused() -> None:
    with pytest.raises(BadInput, match="one entry for each of 32 layers"):
        parse_config(llama(model_type="gpt_oss", layer_types=["full_attention"] * 31), "x")


@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads"])
def test_missing_fields_are_named(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name}: missing"):
        parse_config(llama(**{name: None}), "x")


def test_missing_width_is_named_where_nothing_gives_it() -> None:
    with pytest.raises(BadInput, match="hidden_size: missing"):
        parse_config(llama(hidden_size=None), "x")
    assert per_token(parse_config(llama(hidden_size=None, head_dim=128), "x")) == 131072


def test_latent_fields_missing_are_all_named() -> None:
    with pytest.raises(BadInput, match="kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim: missing"):
        parse_config(llama(model_type="deepseek_v3"), "x")


@pytest.mark.parametrize("name", ["vocab_size", "intermediate_size"])
def test_without_the_fields_for_it_the_size_is_not_known(name: str) -> None:
    model = parse_config(llama(**{name: None}), "x")
    assert model.parameters.total is None
    assert any(name in note for note in model.notes)


def test_experts_of_unknown_number_leave_the_size_unknown() -> None:
    model = parse_config(llama(model_type="mixtral"), "x")
    assert model.parameters.total is None
    assert model.experts is None


@pytest.mark.parametrize("value", [0, -1, -32, 1.5, "32", True, [32], 10**12, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "max_position_embeddings"])
def test_absurd_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        parse_config(llama(**{name: value}), "x")
    assert caught.value.field == name


def test_kv_heads_must_divide_the_heads() -> None:
    with pytest.raises(BadInput, match="num_key_value_heads: 5: must divide the 32 query heads"):
        parse_config(llama(num_key_value_heads=5), "x")
    with pytest.raises(BadInput, match="must divide"):
        parse_config(llama(num_key_value_heads=64), "x")


def test_more_experts_per_token_than_experts_are_refused() -> None:
    with pytest.raises(BadInput, match="at most the 4 experts"):
        parse_config(llama(model_type="mixtral", num_local_experts=4, num_experts_per_tok=5), "x")


def test_unknown_quantisation_is_refused() -> None:
    with pytest.raises(BadInput, match="quantization_config: magic"):
        parse_config(llama(quantization_config={"quant_method": "magic"}), "x")


def test_unknown_formula_is_refused() -> None:
    with pytest.raises(BadInput, match="family_formula: guess"):
        parse_config(llama(model_type=None, _kv_layout={"family_formula": "guess"}), "x")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}}, "int4"),
        ({"quant_method": "modelopt", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}}, "nvfp4"),
    ],
)
def test_weight_formats(stated: dict[str, Any], expected: str) -> None:
    assert parse_config(llama(quantization_config=stated), "x").weight_format == expected


def test_cut_off_file_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = json.dumps(LLAMA, indent=1)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(BadInput, match=r"is not JSON: .* line \d+ column \d+"):
        read_model(str(path))
    path.write_text("model: llama", encoding="utf-8")
    with pytest.raises(BadInput, match="line 1 column 1"):
        read_model(str(tmp_path))
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(BadInput, match="must be a JSON object"):
        read_model(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_model(str(path))
    with pytest.raises(BadInput, match="cannot be read"):
        read_model(str(tmp_path / "none" / "config.json"))


def test_file_and_folder_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "My-Model-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    assert read_model(str(folder)) == read_model(str(folder / "config.json"))
    assert read_model(str(folder)).id == "my-model-8b"


def test_text_config_is_merged() -> None:
    inner = copy.deepcopy(LLAMA)
    outer = {"model_type": "some_vision_model", "text_config": inner, "vision_config": {"num_hidden_layers": 99}, "tie_word_embeddings": True}
    model = parse_config(outer, "x")
    assert model.layers == 32
    assert model.parameters.embedding == 128256 * 4096


@pytest.mark.parametrize(
    ("config", "start", "margin"),
    [
        (llama(num_key_value_heads=None), 524288, 524288),
        (llama(model_type="mistral", sliding_window=4096), 131072, 0),
        (llama(model_type="phi3", sliding_window=262144), 131072, 131072),
        (llama(model_type="qwen2", sliding_window=4096, use_sliding_window=False), 131072, 131072),
        (llama(model_type="qwen2", sliding_window=4096, use_sliding_window=True, max_window_layers=24), 131072, 98304),
        (llama(model_type="gemma2", sliding_window=4096, head_dim=128), 131072, 65536),
        (llama(model_type="exaone4", sliding_window=4096, sliding_window_pattern="LLLG"), 131072, 32768),
        (llama(model_type="exaone4", sliding_window=None), 131072, 131072),
        (llama(model_type="cohere2", sliding_window=4096, sliding_window_pattern=4), 131072, 32768),
        (llama(model_type="llama4_text", attention_chunk_size=8192), 131072, 32768),
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}, 36864, 36864),
        ({"model_type": "falcon", "num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True}, 8192, 8192),
        (
            {"model_type": "falcon", "n_layer": 80, "n_head": 232, "n_head_kv": 8, "hidden_size": 14848, "new_decoder_architecture": True},
            163840,
            163840,
        ),
    ],
)
def test_windows_and_heads_of_families_outside_the_collection(config: dict[str, Any], start: float, margin: float) -> None:
    model = parse_config(config, "x")
    assert per_token(model) == start
    assert per_token(model, 10**7) == margin


def test_gemma_3_leaves_its_class_defaults_out() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    model = parse_config({"model_type": "gemma3", "text_config": text}, "gemma-3-4b-it")
    assert per_token(model) == 139264
    assert per_token(model, 10**7) == 20480
    assert model.parameters.total == pytest.approx(3.88e9, rel=0.001)


def test_small_published_sizes() -> None:
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}
    assert parse_config(gpt2, "gpt2").parameters.total == pytest.approx(124.4e6, rel=0.002)
    opt = {"model_type": "opt", "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "ffn_dim": 3072}
    opt |= {"max_position_embeddings": 2048, "vocab_size": 50272}
    assert parse_config(opt, "opt-125m").parameters.total == pytest.approx(125.2e6, rel=0.002)


JUNK = st.sampled_from([None, 0, -1, "x", "", [], {}, True, 1e30, 3, [1, 2], {"a": 1}, 1.5, [[]], [{}]])
EXTRA = {
    "llama": {"tie_word_embeddings": False, "rope_scaling": None, "layer_types": None, "quantization_config": {"quant_method": "fp8"}},
    "deepseek_v32": {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536}
    | {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048, "n_routed_experts": 8, "num_experts_per_tok": 2, "indexer_types": None},
    "nemotron_h": {"hybrid_override_pattern": "M*E-" * 8, "mamba_num_heads": 64, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8}
    | {"conv_kernel": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "mamba_ssm_cache_dtype": "float32"},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [], "decoder_sparse_step": 1, "use_sliding_window": True},
}


@given(family=st.sampled_from(sorted(EXTRA)), data=st.data())
def test_junk_is_read_or_refused_but_never_breaks(family: str, data: st.DataObject) -> None:
    config = {**LLAMA, **EXTRA[family], "model_type": family}
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=2)):
        config[name] = data.draw(JUNK)
    with contextlib.suppress(BadInput):
        assert parse_config(config, "x").layers >= 1
