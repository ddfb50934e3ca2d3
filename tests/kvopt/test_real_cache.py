"""kvopt's sizes against caches that exist: a small random Llama, the presses of kvpress and the quantised cache of transformers, to the byte.

Nothing is downloaded: the model is made here, and kvopt reads the config.json that transformers writes for it. What differs from kvopt's formulas is a
test of its own, named after the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import kvopt
from kvopt.inputs import method as methods
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.model import ModelSpec
from kvopt.plans import named_methods
from objectives.serving.kv_cache import cache as one_sum
from objectives.serving.kv_cache import entries, session_bytes
from objectives.types import Plan

ABSENT = "needs the hf extra: pip install -e '.[hf]'"
kvpress = pytest.importorskip("kvpress", reason=ABSENT)  # first: it is installed last, so that half an installation skips too
pytest.importorskip("hqq", reason=ABSENT)
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's libraries

LAYERS, QUERY_HEADS, HEADS, WIDTH = 4, 8, 2, 16
TOKEN = LAYERS * HEADS * 2 * WIDTH * 2  # [bytes] of K and V of one token at 16 bits
N = 512
NOTHING = {
    **dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0),
    "key_bits": 16.0,
    "value_bits": 16.0,
}


@pytest.fixture(autouse=True)
def _x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def config(**changes: Any) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 97, "max_position_embeddings": 4096}
    heads = {"num_attention_heads": QUERY_HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH}
    return transformers.LlamaConfig(**{**sizes, **heads, "num_hidden_layers": LAYERS, "dtype": "bfloat16", **changes})


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config()).to(torch.bfloat16).eval()


@pytest.fixture(scope="module")
def spec(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The same model as kvopt reads it."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    llama.config.save_pretrained(folder)
    return read_model(str(folder / "config.json"))


def prompt(tokens: int) -> Any:
    return torch.randint(0, 97, (1, tokens), generator=torch.Generator().manual_seed(tokens))


def fill(model: Any, tokens: int, press: Any = None, held: Any = None, decoded: int = 0) -> Any:
    """The cache after a prompt under a press, and after some decoded tokens."""
    held = transformers.DynamicCache() if held is None else held
    with torch.no_grad():
        if press is None:
            model(prompt(tokens), past_key_values=held)
        else:
            with press(model):
                model(prompt(tokens), past_key_values=held)
        for step in range(decoded):
            model(prompt(1), past_key_values=held, position_ids=torch.tensor([[tokens + step]]))
    return held


def real_tokens(held: Any) -> np.ndarray:
    """Tokens that each KV head of each layer holds: `(layers, heads)`."""
    for layer in held.layers:
        assert layer.keys.shape == layer.values.shape
    return np.array([[layer.keys.shape[-2]] * layer.keys.shape[1] for layer in held.layers])


def real_bytes(held: Any) -> int:
    """Bytes of every tensor of the cache: of a quantised one the packed numbers, their scales and zeros, and what is not quantised yet."""
    found = [tensor for layer in held.layers for tensor in (layer.keys, layer.values)]
    for layer in held.layers:
        for packed, meta in (getattr(layer, name) for name in ("_quantized_keys", "_quantized_values") if hasattr(layer, name)):
            found += [packed, meta["scale"], meta["zero"]]
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


def unmasked(model: Any, tokens: int) -> np.ndarray:
    """Tokens that each KV head still attends to after a press that masks: `(layers, heads)`."""
    found = np.full((LAYERS, HEADS), tokens)
    for index, layer in enumerate(model.model.layers):
        _, heads, _ = layer.self_attn.masked_key_indices
        found[index] -= np.bincount(heads.numpy(), minlength=HEADS)
    return found


class Said:
    """What kvopt's formulas say of methods, `snapkv:0.5,kivi:4`, on this model: one plan for all heads, or settings by layer and head."""

    def __init__(self, spec: ModelSpec, text: str = "", **settings: Any) -> None:
        self.architecture = spec.architecture(per_layer=True)
        choice, fixed = named_methods(text)
        self.effects = choice.effects()
        self.held = one_sum(self.architecture, Plan(**{**NOTHING, **fixed, **settings}), self.effects)

    def tokens(self, tokens: float) -> np.ndarray:
        return np.broadcast_to(entries(self.architecture, self.effects, self.held, np.asarray(float(tokens))), (LAYERS, HEADS))

    def bytes(self, tokens: float) -> float:
        return float(session_bytes(self.architecture, self.effects, self.held, np.asarray(float(tokens))))


def setting(name: str) -> methods.RunsIn:
    """What the catalog says about running a method in kvpress."""
    return next(entry for entry in methods.load(name).runs_in if entry.version.startswith("kvpress"))


def press_of(name: str, *arguments: Any, **named: Any) -> Any:
    """The press that the catalog names for a method."""
    return getattr(kvpress, re.split(r"\W", setting(name).setting)[0])(*arguments, **named)


@pytest.mark.parametrize("tokens", [1, 300, N])
def test_an_uncompressed_cache_is_the_published_formula(llama: Any, spec: ModelSpec, tokens: int) -> None:
    held = fill(llama, tokens)
    assert real_bytes(held) == Said(spec).bytes(tokens) == TOKEN * tokens
    np.testing.assert_array_equal(real_tokens(held), Said(spec).tokens(tokens))


EVICTING = (
    *("knorm", "snapkv", "expected-attention", "streamingllm", "tova", "random-eviction", "keydiff", "lagkv", "leverage-score"),
    *("non-causal-attention", "compactor", "curkv", "criticalsnapkv"),
)


def evicting(name: str, keep: float) -> Any:
    return press_of(name, kvpress.SnapKVPress(1 - keep)) if name == "criticalsnapkv" else press_of(name, compression_ratio=1 - keep)


@pytest.mark.parametrize("keep", [0.5, 0.25])
@pytest.mark.parametrize("name", EVICTING)
def test_a_press_leaves_the_tokens_and_bytes_of_its_plan(llama: Any, spec: ModelSpec, name: str, keep: float) -> None:
    held, said = fill(llama, N, evicting(name, keep)), Said(spec, f"{name}:{keep}")
    np.testing.assert_array_equal(real_tokens(held), said.tokens(N))
    assert real_bytes(held) == said.bytes(N) == keep * TOKEN * N


def test_heavy_hitters_too(spec: ModelSpec) -> None:
    """H2O reads the attention weights, which only eager attention hands out."""
    eager = transformers.LlamaForCausalLM(config(attn_implementation="eager")).to(torch.bfloat16).eval()
    held, said = fill(eager, N, press_of("h2o", compression_ratio=0.75)), Said(spec, "h2o:0.25")
    np.testing.assert_array_equal(real_tokens(held), said.tokens(N))
    assert real_bytes(held) == said.bytes(N)


@pytest.mark.parametrize(("tokens", "keep"), [(509, 0.3), (500, 0.1), (333, 0.9)])
@pytest.mark.parametrize("name", ["knorm", "snapkv", "expected-attention", "streamingllm"])
def test_a_share_that_is_no_whole_number_of_tokens_is_rounded_down(llama: Any, spec: ModelSpec, name: str, tokens: int, keep: float) -> None:
    short = Said(spec, f"{name}:{keep}").tokens(tokens) - real_tokens(fill(llama, tokens, evicting(name, keep)))
    assert np.all(short >= -1e-9)
    assert np.all(short <= 1 + 1e-9)


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_whole_chunks_are_rounded_down_to_chunks(llama: Any, spec: ModelSpec, keep: float) -> None:
    """ChunkKV keeps or drops 20 tokens at a time, so it may hold less than its share by less than a chunk."""
    held = fill(llama, N, press_of("chunkkv", kvpress.SnapKVPress(1 - keep), chunk_length=20))
    short = Said(spec, f"chunkkv:{keep}").tokens(N) - real_tokens(held)
    assert np.all(short >= 0)
    assert np.all(short < 20)


def test_a_budget_that_shrinks_with_depth_is_a_plan_by_layer(llama: Any, spec: ModelSpec) -> None:
    """PyramidKV at half: 448, 320, 192 and 64 of 512 tokens, which in all is the uniform plan of its catalog entry."""
    held = fill(llama, N, press_of("pyramidkv", compression_ratio=0.5))
    by_layer = Said(spec, "pyramidkv:0.5", token_keep=np.array([[448], [320], [192], [64]]) / N)
    np.testing.assert_array_equal(real_tokens(held), by_layer.tokens(N))
    assert real_bytes(held) == by_layer.bytes(N) == Said(spec, "pyramidkv:0.5").bytes(N)


def test_any_shares_by_layer_are_a_plan_by_layer(llama: Any, spec: ModelSpec) -> None:
    keeps = np.array([[1.0], [0.5], [0.125], [0.375]])
    held = fill(llama, N, kvpress.PerLayerCompressionPress(kvpress.ExpectedAttentionPress(), list(1 - keeps[:, 0])))
    said = Said(spec, "expected-attention:0.5", token_keep=keeps)
    np.testing.assert_array_equal(real_tokens(held), said.tokens(N))
    assert real_bytes(held) == said.bytes(N)


def test_what_is_decoded_after_a_press_is_kept_whole(llama: Any, spec: ModelSpec) -> None:
    """The presses work on the prompt alone. kvopt's share holds of the whole context, so it is exact at the prompt and low by what came since."""
    held, said = fill(llama, N, press_of("snapkv", compression_ratio=0.75), decoded=8), Said(spec, "snapkv:0.25")
    assert real_bytes(held) == said.bytes(N) + 8 * TOKEN
    assert real_bytes(held) - said.bytes(N + 8) == 0.75 * 8 * TOKEN


@pytest.mark.parametrize("name", ["adakv", "critical-adakv"])
def test_budgets_by_head_are_only_masked(llama: Any, spec: ModelSpec, name: str) -> None:
    """What each head still attends to is a plan by layer and head, in all the uniform one; the memory is that of no compression."""
    held = fill(llama, N, press_of(name, kvpress.ExpectedAttentionPress(0.75)))
    attended = unmasked(llama, N)
    assert len(np.unique(attended)) > 1
    by_head = Said(spec, f"{name}:0.25", **{f"{methods.load(name).dimension}_keep": attended / N})
    np.testing.assert_array_equal(by_head.tokens(N), attended)
    assert by_head.bytes(N) == Said(spec, f"{name}:0.25").bytes(N) == attended.sum() * 2 * WIDTH * 2
    assert real_bytes(held) == Said(spec).bytes(N)


def test_streaming_heads_attend_to_sink_and_window_and_are_only_masked(llama: Any, spec: ModelSpec) -> None:
    """DuoAttention, with head scores made here in place of a trained pattern: 64 sink and 256 recent tokens as in the paper."""
    scores = np.random.default_rng(0).permutation(LAYERS * HEADS).reshape(LAYERS, HEADS)
    press = press_of("duoattention", head_compression_ratio=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(press), "load_attention_pattern", staticmethod(lambda model: (64, 256, scores)))
        held = fill(llama, N, press)
    attended = unmasked(llama, N)
    said = Said(spec, "duoattention:0.5", head_keep=(scores >= LAYERS * HEADS // 2).astype(float))
    np.testing.assert_array_equal(attended, said.tokens(N))
    assert said.bytes(N) == Said(spec, "duoattention:0.5").bytes(N) == attended.sum() * 2 * WIDTH * 2
    assert real_bytes(held) == Said(spec).bytes(N)


@pytest.mark.parametrize("name", ["adakv", "critical-adakv", "duoattention", "think"])
def test_the_catalog_says_what_only_masks(name: str) -> None:
    assert setting(name).masks_only
    assert methods.load(name).placed("hf") != setting(name)


def test_pruned_channels_are_zeros_and_not_gone(llama: Any, spec: ModelSpec) -> None:
    """ThinK: the channels of K that are left are a plan's rank of K; the memory is that of no compression."""
    held = fill(llama, N, press_of("think", key_channel_compression_ratio=0.25))
    channels = [(layer.keys != 0).any(dim=-2).sum(dim=-1) for layer in held.layers]
    np.testing.assert_array_equal(torch.cat(channels), 0.75 * WIDTH)
    left = sum(int(count.sum()) * N for count in channels) + sum(layer.values.numel() for layer in held.layers)
    assert 2 * left == Said(spec, "think:0.75", key_rank=0.75, value_rank=1.0).bytes(N)
    assert real_bytes(held) == Said(spec).bytes(N)


def test_a_sliding_layer_holds_its_window_less_the_token_to_come(tmp_path: Path) -> None:
    """transformers makes room before it writes, kvopt counts the window while the token is attended."""
    sizes = {name: getattr(config(), name) for name in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "head_dim")}
    heads = {"num_attention_heads": QUERY_HEADS, "num_key_value_heads": HEADS}
    sliding = transformers.MistralConfig(**sizes, **heads, sliding_window=128, max_position_embeddings=4096, dtype="bfloat16")
    model = transformers.MistralForCausalLM(sliding).to(torch.bfloat16).eval()
    sliding.save_pretrained(tmp_path)
    held, said = fill(model, N, held=transformers.DynamicCache(config=sliding)), Said(read_model(str(tmp_path / "config.json")))
    np.testing.assert_array_equal(said.tokens(N), 128)
    assert real_bytes(held) == said.bytes(N) - TOKEN


def quantised(bits: int, group: int = 32, residual: int = 128) -> Any:
    return transformers.QuantizedCache("hqq", config(), nbits=bits, q_group_size=group, residual_length=residual)


@pytest.mark.parametrize(("name", "group"), [("kivi", 32), ("hf-hqq", 64)])
@pytest.mark.parametrize("bits", [4, 2])
def test_a_quantised_cache_is_its_bits_and_a_scale_and_zero_for_each_group(llama: Any, spec: ModelSpec, name: str, group: int, bits: int) -> None:
    held = fill(llama, N, held=quantised(bits, group))
    assert real_bytes(held) == Said(spec, f"{name}:{bits}").bytes(N) == TOKEN * N * (bits + 32 / group) / 16


@pytest.mark.parametrize(("decoded", "waiting"), [(1, 1), (3, 3), (4, 0), (6, 2)])
def test_decoded_tokens_wait_at_16_bits_until_the_residual_is_full(llama: Any, spec: ModelSpec, decoded: int, waiting: int) -> None:
    """The whole prompt is quantised at once, and then every `residual_length` tokens. kvopt counts all of them as quantised."""
    held = fill(llama, N, held=quantised(4, residual=4), decoded=decoded)
    assert real_bytes(held) == Said(spec, "kivi:4").bytes(N + decoded - waiting) + TOKEN * waiting


def test_tokens_and_bits_multiply(llama: Any, spec: ModelSpec) -> None:
    held = fill(llama, N, press_of("snapkv", compression_ratio=0.75), quantised(4))
    assert real_bytes(held) == Said(spec, "snapkv:0.25,kivi:4").bytes(N) == TOKEN * N * 0.25 * 5 / 16


@pytest.mark.parametrize(("text", "fill_with"), [("", {}), ("snapkv:0.5", {"press": "snapkv"}), ("kivi:2", {"held": 2})])
def test_the_command_says_the_bytes_too(llama: Any, tmp_path: Path, text: str, fill_with: dict[str, Any]) -> None:
    """From the config.json to the report, in the single precision that searches use."""
    llama.config.save_pretrained(tmp_path)
    makers: dict[str, Callable[[Any], Any]] = {"press": lambda name: press_of(name, compression_ratio=0.5), "held": quantised}
    held = fill(llama, N, **{name: makers[name](value) for name, value in fill_with.items()})
    with jax.enable_x64(False):
        said = kvopt.analyze(model=str(tmp_path / "config.json"), accelerator="h100-sxm", gpus=1, context=N, engine="hf", methods=text or None)
    assert said.data["metrics"]["kv_bytes_per_session"] == real_bytes(held)
