"""What the tests of the serving model share: models of the catalog, uncompressed plans, plain schedules, and effects that cut everything."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.engine import load as load_engine
from kvopt.inputs.hf_config import read_catalog
from kvopt.inputs.reserves import reserves
from objectives.types import Cuts, Effects, Efficiency, Plan, Schedule, System, Workload

NEVER = {"stored": 0.0, "read": 0.0, "moved": 0.0, "prefill": 0.0}
FULLY = dict.fromkeys(NEVER, 1.0)
ONES = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0)
ONE_GROUP = {
    **dict.fromkeys(("tensor_parallel", "pipeline_parallel", "replicas", "context_parallel", "attention_data_parallel"), 1.0),
    **{"expert_parallel": 0.0, "prefill_groups": 0.0, "batch": 4.0, "max_sequences": 64.0, "chunk": 2048.0},
    **{"idle_resident": 0.0, "idle_parked": 1.0, "prefix_cache_tokens": 0.0},
}


def plan(**changes: Any) -> Plan:
    """Everything kept at 16 bits, but for the changes."""
    return Plan(**{**ONES, "key_bits": 16.0, "value_bits": 16.0, **changes})


def schedule(**changes: Any) -> Schedule:
    """One accelerator, four decodes in flight, idle caches parked, but for the changes."""
    return Schedule(**{**ONE_GROUP, **changes})


def cuts(**changes: float) -> Cuts:
    """A method that cuts nothing, but for the changes."""
    return Cuts(**{**NEVER, **changes})


def effects(**changes: Any) -> Effects:
    """Methods that cut all four sums along every dimension and cost nothing, but for the changes."""
    everything = {dimension: Cuts(**FULLY) for dimension in ("layer", "head", "token", "rank", "bits")}
    plain = {"streaming_tokens": 256.0, "scale_bits_per_element": 0.0, "scale_bits_per_vector": 0.0}
    costs = {"read_efficiency": 1.0, "score_read": 0.0, "reconstruct": 0.0, "extra_prefill": 0.0}
    return Effects(**{**everything, **plain, **costs, **changes})


def workload(**changes: Any) -> Workload:
    """One kind of session, the example of arXiv 2405.08944, but for the changes."""
    fields = {"weight": 1.0, "prompt": 50000.0, "turns": 5.0, "question": 50.0, "answer": 250.0, "think_s": 60.0, "shared_prefix": 0.0, **changes}
    reuse = {"reuse_tokens": np.array([0.0, 1.0]), "reuse_hits": np.zeros(2)}
    return Workload(**{**reuse, **{name: np.atleast_1d(np.asarray(value, float)) for name, value in fields.items()}})


def system(
    model: str = "yi-34b-200k",
    accelerator: str = "a100-80-sxm",
    efficiency: Efficiency | None = None,
    per_layer: bool = False,
    sessions: Workload | None = None,
) -> System:
    """A model of the catalog on an accelerator of the catalog, every peak reached unless an efficiency is given."""
    spec, device = read_catalog(model), read_accelerator(accelerator)
    return System(
        architecture=spec.architecture(per_layer),
        accelerator=device.pytree(),
        efficiency=efficiency or profile.peak(),
        checkpoint=spec.checkpoint(),
        workload=workload() if sessions is None else sessions,
    )


def calibrated(accelerator: str, engine: str = "vllm", weights: str = "bf16", routed: bool = False) -> Efficiency:
    """The fitted profile that an accelerator gets, of dense models or of mixtures of experts."""
    device = read_accelerator(accelerator)
    return profile.closest(device, engine, weights, routed=routed).efficiency(reserves(load_engine(engine), device))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above, for test files to call."""
    return SimpleNamespace(plan=plan, schedule=schedule, cuts=cuts, effects=effects, workload=workload, system=system, calibrated=calibrated)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield
