"""A folded plan gives what the same plan gives setting by setting."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from kvopt.inputs.hf_config import read_catalog
from objectives.serving import session
from objectives.serving.folded import UNCOMPRESSED, contributions, fold, folded_sums
from objectives.types import replace

FIELDS = {"token_keep": (0.1, 1.0), "key_rank": (0.25, 1.0), "value_rank": (0.25, 1.0), "key_bits": (2.0, 16.0), "value_bits": (2.0, 16.0)}


def architectures(model, per_head):
    """(one row a layer, one row a kind of layer, which layer is of which kind)."""
    spec = read_catalog(model)
    fine, merged = spec.architecture(per_layer=True), spec.architecture()
    names = [name for name, repeat in spec.order for _ in range(repeat) if spec.kinds[name].caches]
    kinds = np.array([[float(name == kind) for name in names] for kind in spec.kinds if spec.kinds[kind].caches])
    if per_head:
        heads = np.arange(fine.head_count.shape[1])
        return fine, replace(merged, head_count=(heads < merged.head_count).astype(float)), kinds
    return replace(fine, head_count=fine.head_count.sum(axis=1, keepdims=True)), merged, kinds


@pytest.mark.parametrize("model", ["yi-34b-200k", "gemma-3-27b-it", "qwen3-next-80b-a3b-instruct"])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("ranks", [1.0, 2.0, 8.0])
@pytest.mark.usefixtures("x64")
def test_folding_changes_nothing(make: SimpleNamespace, model: str, per_head: bool, ranks: float) -> None:
    fine, merged, kinds = architectures(model, per_head)
    rng = np.random.default_rng(7)
    plan = replace(UNCOMPRESSED, **{name: jax.numpy.asarray(rng.uniform(*ends, fine.head_count.shape)) for name, ends in FIELDS.items()})
    late = make.cuts(stored=1.0, read=1.0, moved=1.0, prefill=0.5)
    effects = make.effects(token=replace(late, late=1.0), score_read=0.1, reconstruct=1.0, scale_bits_per_element=0.5)
    schedule = make.schedule(tensor_parallel=ranks, idle_resident=0.3, idle_parked=0.5)
    system = make.system(model)
    whole = session.serve(replace(system, architecture=fine), plan, effects, schedule)
    folded = fold(contributions(fine, plan, effects), jax.numpy.asarray(kinds))
    at_kinds = replace(system, architecture=merged)
    got = session.serve_sums(at_kinds, folded_sums(at_kinds, folded, effects, schedule), effects, schedule)
    for name in ("sessions_per_s", "ceiling_per_gpu_s", "tpot_s", "ttft_first_s", "memory_used", "memory_peak", "host_used", "kv_step_s"):
        np.testing.assert_allclose(getattr(got, name), getattr(whole, name), rtol=1e-9, err_msg=name)


def test_memory_charged_for_less_holds_less_and_serves_alike(make: SimpleNamespace) -> None:
    system, schedule = make.system(), make.schedule(idle_resident=0.8)
    have = session.sums(system, make.plan(), make.effects(), schedule)
    whole = session.serve_sums(system, have, make.effects(), schedule)
    less = session.serve_sums(system, have, make.effects(), schedule, session.Charged(0.2, 0.0))
    assert float(less.memory_used) < float(whole.memory_used)
    assert float(less.sessions_per_s) == float(whole.sessions_per_s)
    same = session.serve_sums(system, have, make.effects(), schedule, session.Charged(np.inf, np.inf))
    assert float(same.memory_used) == float(whole.memory_used)
