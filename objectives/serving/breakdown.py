"""Where the time goes: the parts of a step, of a session and of its latencies, which add up to what `session.serve_sums` gives of them.

Nothing here is computed anew: the same coefficients, taken part by part. A step's weights are read while they are multiplied, so that of the shorter of the
two only the share that is not hidden counts (`group.weights_s`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objectives.serving import decode, prefill, switching
from objectives.serving.group import StepCosts, experts_hit
from objectives.serving.kv_cache import session_bytes
from objectives.serving.session import Prefilling, Prompt, Service, Sums, chunked, prefix_hits, prompts, returning_context, written
from objectives.types import Architecture, Effects, Schedule, System

HALVINGS = 60  # of the requests that a decode step holds: to the last digit


def weights_terms(architecture: Architecture, costs: StepCosts, tokens: Array, compute_s: dict[str, Array]) -> dict[str, Array]:
    """[s] of `group.weights_s` in parts: reading the weights, and each of `compute_s` with what products are rounded up by."""
    hit = experts_hit(architecture, tokens)
    read_s = costs.dense_read + costs.experts_read * hit
    parts = {**compute_s, "rounding": costs.ramp + costs.experts_ramp * hit}
    reading = read_s >= sum(parts.values(), jnp.zeros(()))
    shown = jnp.where(reading, costs.unhidden, 1.0)
    return {"weights_read": read_s * jnp.where(reading, 1.0, costs.unhidden), **{name: part * shown for name, part in parts.items()}}


def prefill_terms(architecture: Architecture, costs: StepCosts, chunk: prefill.Chunk) -> dict[str, Array]:
    """[s] of a step that carries a chunk and no decodes, in parts that add up to `prefill.mixed_step_s`."""
    compute = {"linear": chunk.linear_flop * costs.linear_flop, "attention": chunk.attention_flop * costs.attention_flop}
    return {
        **weights_terms(architecture, costs, chunk.tokens, compute),
        "kv_read": chunk.reread_bytes * costs.kv_byte,
        "overhead": costs.prefill_overhead,
        "exchange": chunk.tokens * costs.exchange,
    }


def decode_terms(architecture: Architecture, costs: StepCosts, requests: Array, kv_s: Array) -> dict[str, Array]:
    """[s] of a step in which `requests` each gain a token, in parts that add up to `decode.decode_step_s`."""
    return {
        **weights_terms(architecture, costs, requests, {"linear": requests * costs.token}),
        "kv_read": requests * kv_s,
        "overhead": costs.decode_overhead + requests * costs.sequence,
        "exchange": requests * costs.exchange,
    }


def together(architecture: Architecture, costs: StepCosts, service: Service) -> Array:
    """Requests that the step which a token sees holds, its own among them: the number at which a step takes as long as the service's."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        longer = decode.decode_step_s(architecture, costs, middle, service.kv_step_s) > service.decode_step_s
        return jnp.where(longer, ends[0], middle), jnp.where(longer, middle, ends[1])

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(service.batch), service.batch + 1))
    return (low + high) / 2


class Run(NamedTuple):
    """One kind of prefill of a session: how often and how much, and how it goes on a group, each `(atoms,)`."""

    prompt: Prompt
    going: Prefilling  # beside the decodes where the group does both


class Runs(NamedTuple):
    """The kinds of prefill of a session."""

    first: Run
    follow_up: Run
    recompute: Run


def runs(system: System, have: Sums, effects: Effects, schedule: Schedule, service: Service) -> Runs:
    """The prefills of a session as `session.serve_sums` has them: prompts and recomputed caches go to groups of their own where there are any."""
    w, s = system.workload, schedule
    split = jnp.where(jnp.asarray(s.prefill_groups) > 0, 1.0, 0.0)
    kinds = prompts(w, s, prefix_hits(w, s.prefix_cache_tokens) * w.shared_prefix)
    beside = ((1 - split) * s.batch, jnp.asarray(s.batch), (1 - split) * s.batch)

    def run(kind: Prompt, decodes: Array) -> Run:
        return Run(kind, chunked(system.architecture, effects, have, jnp.asarray(s.chunk), kind, decodes, service.kv_step_s))

    return Runs(*(run(kind, decodes) for kind, decodes in zip(kinds, beside, strict=True)))


def session_terms(system: System, have: Sums, effects: Effects, schedule: Schedule, service: Service, done: Runs) -> dict[str, Array]:
    """[GPU-seconds] of one session by what they are spent on; they add up to 1 / `service.sessions_per_gpu_s`.

    Prompts take what they would without decodes beside them; decoding takes the rest of the busy time, in the parts of its own step; idle is what is left
    where a group has less than one request, or waits for another.
    """
    arch, w, s = system.architecture, system.workload, schedule
    ranks = jnp.asarray(s.tensor_parallel)
    by_name = {"prompt": done.first, "follow_up": done.follow_up, "recompute": done.recompute}
    spent = {name: jnp.sum(w.weight * one.prompt.times * one.going.alone_s) * ranks for name, one in by_name.items()}
    _, switch_s = switching.switch_s(system, effects, have.moved, s, returning_context(w), written(w))
    parked = (1 - s.idle_resident) * s.idle_parked
    spent["switching"] = system.efficiency.exposed_switch * jnp.sum(w.weight * (w.turns - 1) * parked * switch_s) * ranks
    left = 1 / service.sessions_per_gpu_s - sum(spent.values(), jnp.zeros(()))
    answered = jnp.sum(w.weight * w.turns * w.answer)
    decoding = jnp.clip(left, 0.0, answered / jnp.maximum(service.batch, 1.0) * service.decode_step_s * ranks)
    step = decode_terms(arch, have.costs, together(arch, have.costs, service), service.kv_step_s)
    share = decoding / sum(step.values(), jnp.zeros(()))
    weights = step["weights_read"] + step["linear"] + step["rounding"]
    return {
        **spent,
        "decode_weights": weights * share,
        "decode_kv": step["kv_read"] * share,
        "decode_overhead": (step["overhead"] + step["exchange"]) * share,
        "idle": left - decoding,
    }


def ceiling_terms(system: System, schedule: Schedule, done: Runs) -> dict[str, Array]:
    """[GPU-seconds] of one session were nothing but prefill done, and no cache computed again: 1 / `service.ceiling_per_gpu_s`."""
    w, ranks = system.workload, jnp.asarray(schedule.tensor_parallel)
    times = {"prompt": (jnp.ones_like(w.turns), done.first), "follow_up": (w.turns - 1, done.follow_up)}
    return {name: jnp.sum(w.weight * often * one.going.alone_s) * ranks for name, (often, one) in times.items()}


def first_token_terms(system: System, have: Sums, effects: Effects, schedule: Schedule, service: Service, done: Runs) -> dict[str, dict[str, Array]]:
    """[s] mean time to first token in parts, of the first question and of later ones: they add up to `ttft_first_s` and `ttft_follow_up_s`."""
    w, s = system.workload, schedule

    def mean(one: Run, per: Array) -> tuple[Array, Array]:
        """[s] alone, and what decodes beside it add."""
        times = w.weight * one.prompt.times
        return jnp.sum(times * one.going.alone_s) / per, jnp.sum(times * (one.going.service_s - one.going.alone_s)) / per

    follow_ups = jnp.maximum(jnp.sum(w.weight * (w.turns - 1)), 1e-9)
    prompt_s, beside_prompt_s = mean(done.first, jnp.ones(()))
    question_s, beside_question_s = mean(done.follow_up, follow_ups)
    again_s, beside_again_s = mean(done.recompute, follow_ups)
    fetch_s, _ = switching.switch_s(system, effects, have.moved, s, returning_context(w), written(w))
    fetched_s = jnp.sum(w.weight * (w.turns - 1) * (1 - s.idle_resident) * s.idle_parked * fetch_s) / follow_ups
    asked = jnp.where(service.ttft_follow_up_s > 0, 1.0, 0.0)
    server_s = jnp.asarray(system.efficiency.server_s)
    at_first = {"wait": service.wait_s, "prefill": prompt_s, "beside": beside_prompt_s, "server": server_s}
    later = {
        "wait": service.wait_s * asked,
        "prefill": question_s * asked,
        "recompute": again_s * asked,
        "beside": (beside_question_s + beside_again_s) * asked,
        "fetch": fetched_s * asked,
        "server": server_s * asked,
    }
    # what is left: the last step of a prompt, filled up by the next one, and the handover from groups that only prefill
    return {
        "first": {**at_first, "rounding": service.ttft_first_s - sum(at_first.values(), jnp.zeros(()))},
        "follow_up": {**later, "rounding": service.ttft_follow_up_s - sum(later.values(), jnp.zeros(()))},
    }


def chunk_of(architecture: Architecture, effects: Effects, have: Sums, schedule: Schedule, tokens: Array) -> prefill.Chunk:
    """The mean chunk of a prompt of `tokens` tokens, as a step carries it."""
    prompt = Prompt(jnp.ones(()), tokens, jnp.zeros(()))
    steps = jnp.maximum(prompt.new / schedule.chunk, 1.0)
    linear, attention = prefill.prompt_flop(architecture, have.shares, prompt.cached, prompt.new)
    reread = session_bytes(architecture, effects, have.filling, prompt.new / 2 * (1 - 1 / steps)) / effects.read_efficiency
    return prefill.Chunk(prompt.new / steps, linear / steps, attention / steps, reread)


def weights_read_bytes(system: System, costs: StepCosts, tokens: Array) -> Array:
    """[bytes] of weights that one GPU of the group reads in a step of `tokens` tokens."""
    hit = experts_hit(system.architecture, tokens)
    return (costs.dense_read + costs.experts_read * hit) * system.efficiency.mbu * system.accelerator.memory_bandwidth


def kv_read_bytes(architecture: Architecture, effects: Effects, have: Sums, tokens: Array) -> Array:
    """[bytes] of cache that a group reads for one decoded token at a context of `tokens`, those read only to choose included."""
    n = jnp.asarray(tokens)[..., None, None]
    held = jnp.minimum(n, architecture.window) + architecture.global_rate * n
    return session_bytes(architecture, effects, have.reads.cache, tokens) + jnp.sum(have.reads.scored * held, axis=(-2, -1))


def decode_flop(architecture: Architecture, effects: Effects, have: Sums, tokens: Array) -> Array:
    """[FLOP] of one decoded token at a context of `tokens`, over the group: linear layers, output head and attention."""
    linear = 2 * (architecture.active_parameters + architecture.head_parameters)
    return linear + session_bytes(architecture, effects, have.reads.attended, tokens)
