"""What benchmarks of one group measure: a batch of prompts, a decode step, a fixed number of clients, the largest load that memory holds.

The step times are those of `prefill` and `decode`; here is only what each kind of benchmark does with them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.serving import concurrency, decode, prefill, session
from objectives.serving.kv_cache import session_bytes
from objectives.types import Effects, Plan, Schedule, System

MOST_SEQUENCES = 2048  # the largest batch that TensorRT-LLM's max-load tables were built with (docs/source/performance/perf-overview.md, 1.0)
ROUNDS = 3  # of the fixed point between time per output token and the share of the clients that decode; a fourth moves no time by 0.1 %


class Requests(NamedTuple):
    """The requests of a benchmark, all alike. Scalars."""

    count: Array  # type: ignore[assignment]  # prompts in a batch, or clients that ask again as soon as they are answered
    new: Array  # [tokens] of a prompt that are prefilled
    cached: Array  # [tokens] before them, found in the cache
    output: Array  # [tokens] decoded
    waves: Array  # requests that a client sends in a row; all clients begin at once
    ahead: Array  # prompts that are prefilled before one's own: clients whose requests are alike come back in clumps
    stream: Array  # [tokens] that the server sends at a time: the client sees the first one when so many are there


class Times(NamedTuple):
    """What the benchmark reads. Scalars."""

    prefill_s: Array  # of the whole batch of prompts
    decode_s: Array  # a step of the whole batch, mean over the output
    batch_s: Array  # the whole batch, prefill and decode
    ttft_s: Array  # mean over the requests of all clients
    tpot_s: Array  # mean over the requests of all clients, first token excluded
    max_load_tokens_per_s: Array  # output of the group with as many requests in flight as memory holds


def times(system: System, plan: Plan, effects: Effects, schedule: Schedule, requests: Requests) -> Times:
    """All that a benchmark of these requests on one group can read."""
    have = session.sums(system, plan, effects, schedule)
    context = requests.cached + requests.new + requests.output / 2
    kv_s = decode.kv_step_s(system.architecture, plan, effects, schedule, have.costs, context)
    batch_prefill_s = batch_s(system, effects, have, schedule, requests, requests.count)
    step_s = decode.decode_step_s(system.architecture, have.costs, requests.count, kv_s)
    ttft_s, tpot_s = closed_loop_s(system, effects, have, schedule, requests, kv_s)
    return Times(
        prefill_s=batch_prefill_s,
        decode_s=step_s,
        batch_s=batch_prefill_s + requests.output * step_s,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        max_load_tokens_per_s=max_load(system, effects, have, schedule, requests, kv_s),
    )


def batch_s(system: System, effects: Effects, have: session.Sums, schedule: Schedule, requests: Requests, count: Array) -> Array:
    """[s] to prefill `count` prompts, one after the other in steps of up to `schedule.chunk` tokens, nothing else running."""
    arch = system.architecture
    linear, attention = prefill.prompt_flop(arch, have.shares, requests.cached, requests.new)
    chunks = jnp.maximum(requests.new / schedule.chunk, 1.0)  # of one prompt
    steps = jnp.maximum(count * requests.new / schedule.chunk, 1.0)
    before = session_bytes(arch, effects, have.filling, requests.cached + requests.new / 2 * (1 - 1 / chunks))
    reread = before * chunks / effects.read_efficiency
    share = count / steps
    load = prefill.Chunk(tokens=share * requests.new, linear_flop=share * linear, attention_flop=share * attention, reread_bytes=share * reread)
    return steps * prefill.mixed_step_s(arch, have.costs, load, jnp.zeros_like(count), jnp.zeros_like(count))


def closed_loop_s(system: System, effects: Effects, have: session.Sums, schedule: Schedule, requests: Requests, kv_s: Array) -> tuple[Array, Array]:
    """[s] mean (TTFT, TPOT) of clients that each send `waves` requests in a row, all of them beginning at once.

    In steady state a request decodes while each of the others is prefilled once: TPOT = step + (clients - 1) / output * what a prompt adds. The first wave
    queues up: its mean wait is half of all its prompts. Where memory holds fewer requests than there are clients, the others wait for a place.
    """
    arch = system.architecture
    size = session_bytes(arch, effects, have.stored, requests.cached + requests.new + requests.output / 2)
    room = jnp.maximum(concurrency.kv_pool_bytes(system, schedule) / size, 1.0)
    running = jnp.minimum(requests.count, room)
    prompt = session.Prompt(jnp.ones_like(running), requests.new, requests.cached)
    output = jnp.maximum(requests.output, 1.0)
    decoding = running
    for _ in range(ROUNDS):
        step_s = decode.decode_step_s(arch, have.costs, decoding, kv_s)
        run = session.chunked(arch, effects, have, jnp.asarray(schedule.chunk), prompt, jnp.maximum(decoding - 1, 0.0), kv_s)
        added_s = run.service_s - run.steps * step_s * jnp.minimum(decoding - 1, 1.0)
        tpot_s = step_s + (running - 1) / output * added_s
        decoding = 1 + (running - 1) * output * tpot_s / (output * tpot_s + run.service_s)
    resident_s = run.service_s + output * tpot_s
    busy = (running - 1) * run.service_s / resident_s
    others = jnp.minimum(running - 1, 1.0)
    wait_s = jnp.minimum(busy, 1.0) * run.service_s / 2 + others * (step_s / 2 + requests.ahead * run.service_s)
    burst_s = (batch_s(system, effects, have, schedule, requests, running) + run.alone_s) / 2
    first = 1 / requests.waves
    queued_s = resident_s * (requests.count / running - 1)
    held_s = (requests.stream - 1) * tpot_s
    ttft_s = system.efficiency.server_s + (1 - first) * (run.service_s + wait_s) + first * burst_s + queued_s + held_s
    return ttft_s, tpot_s * jnp.maximum(1 - (requests.stream - 1) / output, 0.1)


def max_load(system: System, effects: Effects, have: session.Sums, schedule: Schedule, requests: Requests, kv_s: Array) -> Array:
    """[tokens/s] decoded by a group that holds as many requests as fit at their full length; its pipeline stages each have so many in flight."""
    arch = system.architecture
    size = session_bytes(arch, effects, have.stored, requests.cached + requests.new + requests.output)
    batch = jnp.clip(concurrency.kv_pool_bytes(system, schedule) / size, 1.0, MOST_SEQUENCES)
    step_s = decode.decode_step_s(arch, have.costs, batch, kv_s)
    busy_s = batch_s(system, effects, have, schedule, requests, batch) + requests.output * step_s
    return schedule.pipeline_parallel * batch * requests.output / busy_s
