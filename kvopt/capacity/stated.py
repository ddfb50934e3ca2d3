"""What a deployment holds in a pool whose size is stated, as `--kv-cache-memory-bytes` states it: no profiled step, no spread, the exact count."""

from __future__ import annotations

from dataclasses import replace

from kvopt.capacity.deployed import Capacity, Held, held
from kvopt.capacity.layout import layout


def stated(found: Capacity, pool_bytes: float, prefix_caching: bool = True) -> Held:
    """Blocks, tokens and concurrency of a pool of `pool_bytes` [bytes] on each rank, as the engine prints them at start-up.

    Without `prefix_caching` a request holds one block of state per group of layers with a state, and not the one more that later turns start from.
    """
    if prefix_caching:
        return held(found.deployment, found.layout, pool_bytes)
    bare = replace(found.deployment, generation=found.deployment.generation.model_copy(update={"state_blocks": 1}))
    return held(bare, layout(bare), pool_bytes)
