"""What an engine keeps from the caches, in the smooth form that a search can differentiate: `kvopt.capacity` has the exact one, of the same constants."""

from __future__ import annotations

import math

from kvopt.capacity.constants import Generation, engines, generation
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.inputs.engine import EngineSpec

GIB = 2.0**30
ACTIVATION_BYTES = 2.0  # 16-bit activations: vLLM logs of Llama-3.1-8B, 110.6 kB per token = 2 B * (3 * 14336 + 3 * 4096)
USUAL_RESERVE_GIB, USUAL_WEIGHTS_GIB = 3.0, 35.0  # at which the spread of a pool, which grows with both, is taken
HEAVY_TAIL = 1.64 / 1.28  # 90 % quantile of Student's t with 3 degrees of freedom over a normal's
LIKE = "vllm"  # engines of which no start-up log was read set aside what vLLM does


def linked(accelerator: AcceleratorSpec) -> bool:
    """Whether its peers are joined by more than PCIe."""
    return bool(accelerator.scaleup_link) and "pcie" not in accelerator.scaleup_link.lower()


def rules(engine: EngineSpec) -> Generation:
    """The capacity rules of the version that the catalog describes."""
    return generation(engine.id, engine.version) if engine.id in engines() else generation(LIKE)


def reserves(engine: EngineSpec, accelerator: AcceleratorSpec) -> dict[str, float]:
    """Fields of `objectives.types.Efficiency` that say which memory is left for caches.

    Pool = pool_fraction * (memory_fraction * memory - weights - reserve): vLLM and SGLang share out all memory, TensorRT-LLM and LMDeploy what is free after
    loading.
    """
    found = rules(engine)
    stated = engine.memory.share if engine.memory.share is not None else found.utilisation.value
    of_free = engine.memory.base == "memory free after weights"
    context = found.single_gib.value + found.graphs_gib.value
    if found.rule == "static":
        context += stated * found.context_gib.value
    profiled = found.rule != "static"
    spread = found.spread
    parts = (spread.base_gib.value, spread.share_of_reserve.value * USUAL_RESERVE_GIB, spread.share_of_weights.value * USUAL_WEIGHTS_GIB)
    return {
        "memory_fraction": 1.0 if of_free else stated,
        "pool_fraction": stated if of_free else 1.0,
        "context_bytes": (context + (found.sampler_base_gib.value if profiled else 0.0)) * GIB,
        "parallel_bytes": (found.linked_gib if linked(accelerator) else found.unlinked_gib).value * GIB,
        "sampler_bytes": found.sampler_bytes.value,
        "activation_bytes": ACTIVATION_BYTES * found.token_pass.value if profiled else 0.0,
        "memory_sd_bytes": math.hypot(*parts) * spread.low.value * HEAVY_TAIL * GIB,
    }
