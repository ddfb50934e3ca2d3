"""What can be maximised or minimised: one function each, of what a deployment gives (`Service`) and what was asked for (`Targets`)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from objectives.serving.session import Service
from objectives.types import Accelerator, Scalar, Workload, pytree


@pytree
class Targets:
    """Latency targets and limits that every answer respects."""

    ttft_s: Scalar  # [s]
    ttft_percentile: Scalar | None  # None for the mean, else a share such as 0.95 of the sessions
    tpot_s: Scalar  # [s]
    tpot_z: Scalar  # 0 for the mean, else the standard deviations of the target's percentile
    accuracy_floor: Scalar  # share of the uncompressed model's accuracy
    utilisation: Scalar  # highest share of the time the prefill queue and the host link may be busy
    z: Scalar  # standard deviations of the asked confidence; 0 for the mean


def sessions_per_gpu_hour(service: Service) -> Array:
    """[1/h] sessions that one GPU completes in an hour: the paper's session throughput."""
    return service.sessions_per_gpu_s * 3600


def prefill_ceiling_per_gpu_hour(service: Service) -> Array:
    """[1/h] sessions per GPU-hour if nothing but prefill took time: no cache compression lifts the rate above it."""
    return service.ceiling_per_gpu_s * 3600


def session_at_targets_s(workload: Workload, targets: Targets) -> Array:
    """[s] S*, how long a session lasts when every answer just meets its targets: R (TTFT + A TPOT) + (R - 1) Z, mean over the atoms.

    Three answers of 200 tokens, 60 s of thinking between them, targets of 5 s and 50 ms: 3 * (5 + 200 * 0.05) + 2 * 60.

    >>> one = {name: jnp.ones(1) for name in Workload.__dataclass_fields__}
    >>> sessions = Workload(**one | {"turns": 3 * jnp.ones(1), "answer": 200 * jnp.ones(1), "think_s": 60 * jnp.ones(1)})
    >>> targets = Targets(ttft_s=5.0, ttft_percentile=None, tpot_s=0.05, tpot_z=0.0, accuracy_floor=0.95, utilisation=0.9, z=0.0)
    >>> float(session_at_targets_s(sessions, targets))
    165.0
    """
    answering = workload.turns * (targets.ttft_s + workload.answer * targets.tpot_s)
    return jnp.sum(workload.weight * (answering + (workload.turns - 1) * workload.think_s))


def users_per_gpu(service: Service, workload: Workload, targets: Targets) -> Array:
    """Users served at once by one GPU: the session rate times S*. The actual duration would reward slowness."""
    return service.sessions_per_gpu_s * session_at_targets_s(workload, targets)


def requests_in_flight(service: Service) -> Array:
    """Requests being answered at once, over the whole deployment: decoding or prefilling. Not users: those who think are not counted."""
    return (service.batch + service.prefilling) * service.slots


def output_tokens_per_gpu_s(service: Service, workload: Workload) -> Array:
    """[tokens/s] decoded per GPU."""
    return service.sessions_per_gpu_s * jnp.sum(workload.weight * workload.turns * workload.answer)


def cost_per_session_usd(service: Service, accelerator: Accelerator) -> Array:
    """[USD] of GPU time per session at the hourly price."""
    return accelerator.price_per_hour / sessions_per_gpu_hour(service)


def energy_per_session_j(service: Service, accelerator: Accelerator) -> Array:
    """[J] per session with every GPU at its board power: an upper bound of the GPUs' own share."""
    return accelerator.power / service.sessions_per_gpu_s


def quantile(values: Array, weights: Array, share: Array) -> Array:
    """The least of `values` `(n,)` that at least `share` of the weight does not exceed. Compares all pairs: sorting is slow in a vmapped loop.

    >>> float(quantile(jnp.array([8.0, 2.0, 4.0]), jnp.array([0.1, 0.5, 0.4]), 0.9))
    4.0
    """
    below = jnp.sum(jnp.asarray(weights) * (values[None, :] <= values[:, None]), axis=1)
    return jnp.min(jnp.where(below >= share - 1e-6, values, jnp.inf))


def ttft_s(service: Service, workload: Workload, targets: Targets) -> Array:
    """[s] time to first token of the turn that waits longest: usually the first, which brings the prompt.

    The mean, or, where the target names a percentile p, the p-quantile over prompts of the prefill time plus that of the wait, whose tail is taken as
    exponential: P(W > t) = rho exp(-rho t / E[W]).
    """
    mean = jnp.maximum(service.ttft_first_s, service.ttft_follow_up_s)
    if targets.ttft_percentile is None:
        return mean
    p = jnp.asarray(targets.ttft_percentile)
    busy = jnp.clip(service.wait_utilisation, 1e-3, 0.99)
    wait = service.wait_s / busy * jnp.log(jnp.maximum(busy / jnp.maximum(1 - p, 1e-6), 1.0))
    spread = service.ttft_follow_up_s - service.wait_s + wait
    return jnp.maximum(quantile(service.first_s, workload.weight, p) + wait, spread)


def tpot_s(service: Service, targets: Targets) -> Array:
    """[s] time per output token, first token excluded: the mean step while decoding.

    Where the target names a percentile, with as many more decodes in flight as a Poisson number of them has there.
    """
    return service.tpot_s + targets.tpot_z * jnp.sqrt(service.batch) * service.kv_step_s
