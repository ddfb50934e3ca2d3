"""The kvpress file against kvpress itself: it builds the real presses and caches, and they hold what the plan keeps of a small random Llama."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kvopt.export import export_point

ABSENT = "needs the hf extra: pip install -e '.[hf]'"
kvpress = pytest.importorskip("kvpress", reason=ABSENT)
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's libraries

LAYERS, HEADS, WIDTH, TOKENS = 4, 2, 16, 512
PLANNED = 32  # layers of the model of the plans: lists by layer are longer than this one's
Make = Callable[..., dict[str, Any]]
EVICTING = (
    *("knorm", "snapkv", "expected-attention", "streamingllm", "tova", "random-eviction", "keydiff", "lagkv", "leverage-score"),
    *("non-causal-attention", "compactor", "curkv", "criticalsnapkv"),
)


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 97, "max_position_embeddings": 4096, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 8, "num_key_value_heads": HEADS, "head_dim": WIDTH}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, dtype="bfloat16")).to(torch.bfloat16).eval()


@pytest.fixture
def built(make_point: Make, make_scenario: Make, tmp_path: Path) -> Callable[..., ModuleType]:
    """The module that the exporter writes for a plan."""

    def build(*methods: str, **plan: Any) -> ModuleType:
        point = make_point(*methods, tp=1, where="research library", **plan)
        made = export_point("kvpress", make_scenario(model="llama-3.1-8b", gpus=1), point)
        module = ModuleType("kvpress_plan")
        exec(compile(made.text, "kvpress_plan.py", "exec"), module.__dict__)
        return module

    return build


def fill(model: Any, module: ModuleType) -> Any:
    """The cache after a prompt, as the module builds press and cache."""
    held = module.build_cache(model.config) or transformers.DynamicCache()
    prompt = torch.randint(0, 97, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), module.build_press()(model):
        model(prompt, past_key_values=held)
    return held


def tokens(held: Any) -> list[int]:
    return [layer.keys.shape[-2] for layer in held.layers]


@pytest.mark.parametrize("name", EVICTING)
def test_a_press_keeps_the_share_of_the_plan(llama: Any, built: Callable[..., ModuleType], name: str) -> None:
    assert tokens(fill(llama, built(name, token_keep=0.25))) == [TOKENS // 4] * LAYERS


def test_shares_by_layer(llama: Any, built: Callable[..., ModuleType]) -> None:
    keep = np.tile([1.0, 0.5, 0.25, 0.375], PLANNED // 4)
    blocks = {"per": "layer", "token_keep": keep[:, None].tolist()}
    assert tokens(fill(llama, built("snapkv", token_keep=float(keep.mean()), blocks=blocks))) == (keep[:LAYERS] * TOKENS).astype(int).tolist()


def test_tokens_and_bits_together(llama: Any, built: Callable[..., ModuleType]) -> None:
    pytest.importorskip("hqq", reason=ABSENT)
    held = fill(llama, built("snapkv", "kivi", token_keep=0.25, key_bits=4.0, value_bits=4.0))
    assert isinstance(held, transformers.QuantizedCache)
    packed, meta = held.layers[0]._quantized_keys
    assert packed.numel() * packed.element_size() == TOKENS * 0.25 * HEADS * WIDTH * 4 / 8
    assert meta["scale"].numel() == TOKENS * 0.25 * HEADS * WIDTH / 32


def test_heads_and_tokens_are_composed_with_what_masks_last(llama: Any, built: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    module = built("duoattention", "snapkv", head_keep=0.5, token_keep=0.75)
    press = module.build_press()
    assert [type(one).__name__ for one in press.presses] == ["SnapKVPress", "DuoAttentionPress"]
    scores = np.random.default_rng(0).permutation(LAYERS * HEADS).reshape(LAYERS, HEADS)
    monkeypatch.setattr("kvpress.presses.duo_attention_press.duo_attention_on_the_fly", lambda model: scores)
    assert tokens(fill(llama, module)) == [int(0.75 * TOKENS)] * LAYERS
    masked = [len(layer.self_attn.masked_key_indices[0]) for layer in llama.model.layers]
    assert sum(masked) == LAYERS * HEADS // 2 * (0.75 * TOKENS - 128 - 256)


def test_channels_of_k(llama: Any, built: Callable[..., ModuleType]) -> None:
    held = fill(llama, built("think", key_rank=0.75))
    left = [(layer.keys != 0).any(dim=-2).sum(dim=-1) for layer in held.layers]
    np.testing.assert_array_equal(torch.cat(left), 0.75 * WIDTH)


@pytest.mark.parametrize("name", ["adakv", "chunkkv", "critical-adakv", "kvzip", "h2o", "pyramidkv", "snapkv-decoding", "per-layer-ratios"])
def test_every_other_press_is_built(built: Callable[..., ModuleType], name: str) -> None:
    assert isinstance(built(name, token_keep=0.5, head_keep=0.5).build_press(), kvpress.BasePress)
