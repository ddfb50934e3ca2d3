"""The constraints: what must not be exceeded, each a value and a limit with the model's uncertainty on the value's side."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from objectives.goals import Targets, tpot_s, ttft_s
from objectives.serving.concurrency import kv_pool_bytes
from objectives.serving.session import Service
from objectives.types import Schedule, System

NAMES = ("hbm", "hbm_peak", "host_memory", "host_link", "prefill_utilisation", "max_sequences", "ttft_s", "tpot_s", "accuracy")
AT_LEAST = frozenset({"accuracy"})  # limits from below; all others are from above


def constraints(service: Service, system: System, schedule: Schedule, targets: Targets, accuracy_lower: Array) -> Mapping[str, tuple[Array, Array]]:
    """Every constraint as (value, limit), in SI units, at the confidence of `targets.z`.

    Memory rests on the spread of measured pools, TTFT and TPOT on the log spread of measured over predicted, accuracy on its own interval (already in
    `accuracy_lower`): with z standard deviations on the unfavourable side.
    """
    efficiency, z = system.efficiency, targets.z
    pool = kv_pool_bytes(system, schedule, z)
    # thinking users need no host memory or link where nothing is parked: an unknown host then constrains nothing
    return {
        "hbm": (service.memory_used, pool),
        "hbm_peak": (service.memory_peak, pool),
        "host_memory": (service.host_used, service.host_pool),
        "host_link": (service.link_utilisation, jnp.asarray(targets.utilisation)),
        "prefill_utilisation": (service.prefill_utilisation, jnp.asarray(targets.utilisation)),
        "max_sequences": (service.batch + service.prefilling, jnp.asarray(schedule.max_sequences)),
        "ttft_s": (ttft_s(service, system.workload, targets) * jnp.exp(z * efficiency.prefill_log_sd), jnp.asarray(targets.ttft_s)),
        "tpot_s": (tpot_s(service, targets) * jnp.exp(z * efficiency.decode_log_sd), jnp.asarray(targets.tpot_s)),
        "accuracy": (accuracy_lower, jnp.asarray(targets.accuracy_floor)),
    }


def violation(name: str, value: Array, limit: Array) -> Array:
    """How far a constraint is broken, relative and at most 2: positive where it is, negative slack where it is not."""
    value, limit = (-value, -limit) if name in AT_LEAST else (value, limit)
    return 2 * (value - limit) / jnp.maximum(jnp.abs(value) + jnp.abs(limit), 1e-9)


def violations(found: Mapping[str, tuple[Array, Array]]) -> Array:
    """All violations in the order of `NAMES`, `(constraints,)`."""
    return jnp.stack([violation(name, *found[name]) for name in NAMES])
