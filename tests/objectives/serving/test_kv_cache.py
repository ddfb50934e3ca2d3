"""Bytes of cache: the published uncompressed sizes, uniform plans however written, ranks, windows and states, and which sum a method cuts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from objectives.serving.kv_cache import cache, entry_bytes, session_bytes, token_bytes, while_prefilling
from objectives.types import Architecture, Effects, Plan, Schedule

N = np.array([4000.0, 50000.0, 100000.0])
SUMS = ("stored", "read", "moved")
pytestmark = pytest.mark.usefixtures("x64")


def size(arch: Architecture, plan: Plan, effects: Effects, which: str = "stored", schedule: Schedule | None = None, tokens: object = N) -> np.ndarray:
    held = cache(arch, plan, effects, which, schedule)  # type: ignore[arg-type]
    return np.asarray(session_bytes(arch, effects, held, np.asarray(tokens, float)))


def one_layer(arch: Architecture, **changes: float) -> Architecture:
    """One layer with one KV head of 64 + 64 elements, 256 bytes an entry, otherwise as `arch`."""
    fields = {
        **{"layer_count": 1, "head_count": 1, "stores": 1, "key_width": 64, "value_width": 64, "window": 0, "global_rate": 1, "select": np.inf},
        **{"index_width": 0, "index_rate": 0, "attention_flop": 256, "decode_flop": 256, "index_flop": 0, "state_bytes": 0, **changes},
    }
    return Architecture(**{**vars(arch), **{name: np.array([[float(value)]]) for name, value in fields.items()}})


def test_yi_34b(make: SimpleNamespace) -> None:
    arch = make.system().architecture
    assert float(token_bytes(arch, make.effects(), cache(arch, make.plan(), make.effects()), 50000.0)) == 245_760
    np.testing.assert_array_equal(size(arch, make.plan(), make.effects()), 245_760 * N)


@pytest.mark.parametrize("which", SUMS)
@pytest.mark.parametrize("ranks", [None, 1, 2, 4, 8, 16])
def test_equal_entries_are_a_uniform_plan(make: SimpleNamespace, which: str, ranks: int | None) -> None:
    merged, each = make.system().architecture, make.system(per_layer=True).architecture
    schedule = None if ranks is None else make.schedule(tensor_parallel=float(ranks))
    ratios = {"layer_keep": 0.5, "head_keep": 0.25, "token_keep": 0.3, "key_rank": 0.7, "value_rank": 0.9, "key_bits": 4.0, "value_bits": 3.0}
    effects = make.effects(scale_bits_per_element=0.25, scale_bits_per_vector=32.0)
    expected = size(merged, make.plan(**ratios), effects, which, schedule)
    for shape in [(60, 1), (60, 8)]:
        plan = make.plan(**{name: np.full(shape, value) for name, value in ratios.items()})
        np.testing.assert_allclose(size(each, plan, effects, which, schedule), expected, rtol=1e-12)


@pytest.mark.parametrize(("ranks", "copies"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4)])
def test_heads_are_copied_beyond_one_rank_each(make: SimpleNamespace, ranks: int, copies: int) -> None:
    arch = make.system().architecture
    for which in ("stored", "read"):
        np.testing.assert_allclose(size(arch, make.plan(), make.effects(), which, make.schedule(tensor_parallel=float(ranks))), copies * 245_760 * N)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_a_latent_is_copied_on_every_rank(make: SimpleNamespace, per_layer: bool, ranks: int) -> None:
    arch = make.system("deepseek-v3", per_layer=per_layer).architecture
    together = size(arch, make.plan(), make.effects(), schedule=make.schedule(tensor_parallel=float(ranks)))
    np.testing.assert_allclose(together, ranks * 61 * 576 * 2 * N)
    spread = make.schedule(tensor_parallel=float(ranks), attention_data_parallel=float(ranks))
    np.testing.assert_allclose(size(arch, make.plan(), make.effects(), schedule=spread), 61 * 576 * 2 * N)
    sharded = make.schedule(tensor_parallel=float(ranks), context_parallel=float(ranks))
    np.testing.assert_allclose(size(arch, make.plan(), make.effects(), schedule=sharded), 61 * 576 * 2 * N)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, 20 * 256),  # every entry once
        (2, 2 * 14 * 256),  # heads 0, 1 of both layers: 8 + 1 + 4 + 1
        (4, 4 * 12 * 256),  # head 0 of both layers: 8 + 4
        (8, 8 * 12 * 256),  # two copies of each head
    ],
)
def test_the_fullest_rank_decides(make: SimpleNamespace, ranks: int, expected: int) -> None:
    """Two layers of four heads, 10 tokens, of which the heads keep 8, 1, 1, 1 and 4, 1, 2, 2."""
    yi = one_layer(make.system().architecture)
    two = {name: np.repeat(getattr(yi, name), 2, axis=0) for name in vars(yi) if np.ndim(getattr(yi, name)) == 2}
    arch = Architecture(**{**vars(yi), **two, "head_count": np.ones((2, 4))})
    plan = make.plan(token_keep=np.array([[8, 1, 1, 1], [4, 1, 2, 2]]) / 10)
    assert float(size(arch, plan, make.effects(), schedule=make.schedule(tensor_parallel=float(ranks)), tokens=10)) == pytest.approx(expected)
    assert float(size(arch, plan, make.effects(), tokens=10)) == pytest.approx(20 * 256)  # each byte once, however spread


def test_the_fullest_rank_with_fewer_heads_in_one_layer(make: SimpleNamespace) -> None:
    """Layer 0 has four heads keeping 6, 1, 1, 1 of 10 tokens, layer 1 two that keep 2 and 9, each on two of four ranks: ranks hold 8, 3, 10, 10."""
    yi = one_layer(make.system().architecture)
    two = {name: np.repeat(getattr(yi, name), 2, axis=0) for name in vars(yi) if np.ndim(getattr(yi, name)) == 2}
    arch = Architecture(**{**vars(yi), **two, "head_count": np.array([[1.0, 1, 1, 1], [1, 1, 0, 0]])})
    plan = make.plan(token_keep=np.array([[6, 1, 1, 1], [2, 9, 1, 1]]) / 10)
    four = size(arch, plan, make.effects(), schedule=make.schedule(tensor_parallel=4.0), tokens=10)
    assert float(four) == pytest.approx(4 * 10 * 256)


def test_windows_hold_no_more_than_they_are_wide(make: SimpleNamespace) -> None:
    arch = one_layer(make.system().architecture, window=1000, global_rate=0)
    np.testing.assert_allclose(size(arch, make.plan(), make.effects(), tokens=[10, 1000, 5000]), [2560, 256_000, 256_000])
    assert float(token_bytes(arch, make.effects(), cache(arch, make.plan(), make.effects()), 5000.0)) == 0


def test_selection_is_read_but_all_is_stored(make: SimpleNamespace) -> None:
    arch = make.system("deepseek-v3.2").architecture
    whole, keys = 61 * 576 * 2, 61 * 128 * 2
    np.testing.assert_allclose(size(arch, make.plan(), make.effects()), (whole + keys) * N)
    np.testing.assert_allclose(size(arch, make.plan(), make.effects(), "read"), whole * 2048 + keys * N)
    np.testing.assert_allclose(size(arch, make.plan(), make.effects(), "read", tokens=1000), (whole + keys) * 1000)


def test_compressed_layers_hold_a_window_and_a_share(make: SimpleNamespace) -> None:
    """DeepSeek-V4-Flash at 100,000 tokens: 2 layers with a window alone, 21 with a quarter of the tokens and 512 of them read, 20 with 1/128."""
    arch = make.system("deepseek-v4-flash").architecture
    n, entry, keys = 100_000, 512 * 2, 21 * 128 * 2 * 25_000
    stored = 2 * 128 + 21 * (128 + n / 4) + 20 * (128 + n / 128)
    read = 2 * 128 + 21 * (128 + 512) + 20 * (128 + n / 128)
    assert float(size(arch, make.plan(), make.effects(), tokens=n)) == pytest.approx(stored * entry + keys)
    assert float(size(arch, make.plan(), make.effects(), "read", tokens=n)) == pytest.approx(read * entry + keys)


def test_a_state_is_there_once_at_any_length(make: SimpleNamespace) -> None:
    arch = one_layer(make.system().architecture, state_bytes=7777)
    for ranks in (1.0, 4.0):
        schedule = make.schedule(tensor_parallel=ranks)
        np.testing.assert_allclose(size(arch, make.plan(), make.effects(), schedule=schedule, tokens=[0, 10]), [7777, 7777 + ranks * 2560])
    assert float(size(arch, make.plan(token_keep=0.1), make.effects(), tokens=0)) == 7777


def test_layers_that_share_a_cache_store_nothing_and_read_all(make: SimpleNamespace) -> None:
    arch = one_layer(make.system().architecture, stores=0)
    got = [float(size(arch, make.plan(), make.effects(), which, tokens=10)) for which in SUMS]
    assert got == [0, 2560, 0]


@pytest.mark.parametrize("which", SUMS)
@pytest.mark.parametrize(
    ("dimension", "ratio", "share"),
    [
        ("layer", {"layer_keep": 0.25}, 0.25),
        ("token", {"token_keep": 0.25}, 0.25),
        ("rank", {"key_rank": 0.25, "value_rank": 0.25}, 0.25),
        ("bits", {"key_bits": 4.0, "value_bits": 4.0}, 0.25),
        ("head", {"head_keep": 0.5}, (0.5 * 10_000 + 0.5 * 256) / 10_000),
    ],
)
def test_a_method_cuts_the_sums_it_says(make: SimpleNamespace, which: str, dimension: str, ratio: dict[str, float], share: float) -> None:
    arch = make.system().architecture
    whole = float(size(arch, make.plan(), make.effects(), which, tokens=10_000))
    for cut in (*SUMS, "prefill"):
        effects = make.effects(**{dimension: make.cuts(**{cut: 1.0})})
        got = float(size(arch, make.plan(**ratio), effects, which, tokens=10_000))
        assert got == pytest.approx(whole * (share if cut == which else 1))


def test_eviction_after_prefill_needs_the_whole_cache_until_then(make: SimpleNamespace) -> None:
    arch, plan = make.system().architecture, make.plan(token_keep=0.2, key_rank=0.5, value_rank=0.5)
    late = make.effects(token=make.cuts(stored=1.0, late=1.0), rank=make.cuts(stored=1.0))
    np.testing.assert_allclose(size(arch, while_prefilling(plan, late), late), 0.5 * 245_760 * N)
    np.testing.assert_allclose(size(arch, plan, late), 0.1 * 245_760 * N)
    both = make.effects(token=make.cuts(stored=1.0, late=1.0), rank=make.cuts(stored=1.0, late=1.0))
    np.testing.assert_allclose(size(arch, while_prefilling(plan, both), both), 245_760 * N)


def test_scales_come_with_low_precision_only(make: SimpleNamespace) -> None:
    arch, effects = make.system().architecture, make.effects(scale_bits_per_element=0.5, scale_bits_per_vector=32.0)
    assert float(entry_bytes(arch, make.plan(), effects, "stored")[0, 0]) == 512
    for bits in (8.0, 4.0):
        expected = 2 * (128 * (bits + 0.5) + 32) / 8
        assert float(entry_bytes(arch, make.plan(key_bits=bits, value_bits=bits), effects, "stored")[0, 0]) == pytest.approx(expected)


def test_a_swapped_reference_fails(make: SimpleNamespace) -> None:
    multi_head = 56 / 8 * 245_760  # every query head with a KV head of its own
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(size(make.system().architecture, make.plan(), make.effects()), multi_head * N)
