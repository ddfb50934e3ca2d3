"""A session on a group of GPUs: how many sessions an hour, who is where, how long they wait.

The state is described by the mean number of decodes in flight per group, `schedule.batch` (b). A decoding request gains one token a step; the step lasts
t_mix while some prompt is being prefilled (a share rho_p of the time) and t_dec otherwise, so that conservation of tokens reads

    lambda * R * A = b * (lambda * n_mix + (1 - lambda * M) / t_dec),    M = sum of the mixed steps' time of one session, n_mix their number

and lambda = 1 / T(b) with T(b) = M + (R * A / b - n_mix) * t_dec + exposed switching: what a group spends on one session. It holds from light load up to
b = R * A / n_mix, where every step carries a chunk; t_dec is the step that a token sees, its own request and (1 - 1/N) * b others in it.

Where users are few, the one whose prompt is being prefilled is missed among those who decode: (1 - 1/N) as many decode beside a prompt as at other times,
so that T(b) = M + (R * A / b * (1 - rho_p / N) - (1 - 1/N) * n_mix) * t_dec + exposed switching, rho_p = M / T, N being what Little's law gives
(`queueing`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from objectives.serving import concurrency, decode, prefill, queueing, switching
from objectives.serving.group import StepCosts, step_costs
from objectives.serving.kv_cache import Cache, cache, session_bytes, while_prefilling
from objectives.types import Architecture, Effects, Plan, Schedule, System, Workload, pytree, replace


@pytree
class Service:
    """What a schedule gives, per pipeline slot of one group unless said otherwise. Scalars."""

    sessions_per_s: Array  # lambda of one slot
    sessions_per_gpu_s: Array  # of the whole deployment, per GPU
    ceiling_per_gpu_s: Array  # 1 / (prefill time of one session): no cache can lift the rate above it
    batch: Array  # decodes in flight
    decode_step_s: Array
    kv_step_s: Array  # what one request adds to a step for its cache
    tpot_s: Array  # mean step while decoding, mixed steps included, first token excluded
    first_s: Array  # (atoms,) prefill of the prompt, without the wait
    ttft_first_s: Array  # wait + prefill of the prompt, mean over the sessions
    ttft_follow_up_s: Array  # wait + fetch + prefill of a later question, mean over fates
    wait_s: Array
    wait_utilisation: Array  # of the prefill queue
    prefill_utilisation: Array  # share of the time in which a prompt is being prefilled
    prefilling: Array  # sessions in prefill, per slot
    thinking: Array  # sessions between turns, per slot
    parked: Array  # of those, in host memory
    memory_used: Array  # [bytes] of one slot, mean
    memory_peak: Array  # [bytes] that the longest session needs at its largest
    memory_pool: Array  # [bytes] of one slot
    host_used: Array  # [bytes] of one slot
    host_pool: Array
    link_utilisation: Array
    slots: Array  # concurrent slots of the deployment that decode: groups * pipeline stages


class Prompt(NamedTuple):
    """One kind of prefill of a session, each `(atoms,)`."""

    times: Array  # per session
    new: Array  # [tokens] to prefill
    cached: Array  # [tokens] found in the cache


class Prefilling(NamedTuple):
    """How one kind of prefill goes on a group, each `(atoms,)`."""

    steps: Array  # chunks
    service_s: Array  # from the first chunk to the last, beside the decodes
    alone_s: Array  # the same with nobody decoding


class Sums(NamedTuple):
    """What of a plan and a schedule the steps need: computed once, taken at many lengths."""

    costs: StepCosts
    shares: prefill.PromptShares
    stored: Cache  # over the group, copies included
    filling: Cache  # the same while the prompt is prefilled
    moved: Cache  # each byte once
    reads: decode.Reads


def prefix_hits(workload: Workload, tokens_held: Array | float) -> Array:
    """Share of the shared-prefix tokens found in a cache of `tokens_held` tokens: the workload's reuse curve, linear between its points."""
    run = jnp.diff(workload.reuse_tokens)
    rise = jnp.diff(workload.reuse_hits) / jnp.maximum(run, 1e-9)
    return workload.reuse_hits[0] + jnp.sum(rise * jnp.clip(tokens_held - workload.reuse_tokens[:-1], 0, run))


def returning_context(workload: Workload) -> Array:
    """[tokens] mean context when a later question arrives, `(atoms,)`."""
    return workload.prompt + (workload.question + workload.answer) * workload.turns / 2


def written(workload: Workload) -> Array:
    """[tokens] of a thinking user's cache that are new since the last parking, `(atoms,)`: the first one brings the prompt."""
    return workload.question + workload.answer + workload.prompt / jnp.maximum(workload.turns - 1, 1.0)


def decode_context(workload: Workload) -> Array:
    """[tokens] mean context while decoding, `(atoms,)`: over the turns, half an answer in."""
    w = workload
    return w.prompt + w.question * (w.turns + 1) / 2 + w.answer * w.turns / 2


def prompts(workload: Workload, schedule: Schedule, found: Array) -> tuple[Prompt, Prompt, Prompt]:
    """The three kinds of prefill: the prompt, a later question on a cache that was kept, and one whose cache was dropped and is recomputed.

    `found`: [tokens] of each prompt that are in the shared-prefix cache, `(atoms,)`.
    """
    follow_ups, returned = workload.turns - 1, returning_context(workload)
    dropped = (1 - schedule.idle_resident) * (1 - schedule.idle_parked)
    return (
        Prompt(jnp.ones_like(returned), workload.prompt + workload.question - found, found),
        Prompt(follow_ups * (1 - dropped), workload.question, returned),
        Prompt(follow_ups * dropped, returned + workload.question - found, found),
    )


def away_variance(workload: Workload, tpot_s: Array) -> Array:
    """Squared coefficient of variation of the time from the first token of an answer to the next question, at most 1.

    Thinking is exponential; the last answer of a session is followed by another session's prompt at once.
    """
    w = workload
    turns = jnp.sum(w.weight * w.turns)
    think, think_2 = (jnp.sum(w.weight * (w.turns - 1) * moment) / turns for moment in (w.think_s, 2 * w.think_s**2))
    talk, talk_2 = (jnp.sum(w.weight * w.turns * moment) / turns for moment in (w.answer * tpot_s, (w.answer * tpot_s) ** 2))
    return jnp.clip((think_2 + 2 * think * talk + talk_2) / (think + talk) ** 2 - 1, 0.0, 1.0)


def sums(system: System, plan: Plan, effects: Effects, schedule: Schedule) -> Sums:
    """The coefficients of a plan on a group."""
    arch = system.architecture
    return Sums(
        costs=step_costs(system, schedule),
        shares=prefill.prompt_shares(arch, plan, effects),
        stored=cache(arch, plan, effects, "stored", schedule),
        filling=cache(arch, while_prefilling(plan, effects), effects, "stored", schedule),
        moved=cache(arch, plan, effects, "moved"),
        reads=decode.reads(arch, plan, effects, schedule),
    )


def chunked(arch: Architecture, effects: Effects, have: Sums, chunk: Array, prompt: Prompt, beside: Array, kv_s: Array) -> Prefilling:
    """A prompt prefilled in chunks beside `beside` decodes, whose caches take `kv_s` each. A chunk re-reads what is cached, half of it on average."""
    steps = jnp.maximum(prompt.new / chunk, 1.0)
    linear, attention = prefill.prompt_flop(arch, have.shares, prompt.cached, prompt.new)
    reread = session_bytes(arch, effects, have.filling, prompt.cached + prompt.new / 2 * (1 - 1 / steps)) / effects.read_efficiency
    load = prefill.Chunk(tokens=prompt.new / steps, linear_flop=linear / steps, attention_flop=attention / steps, reread_bytes=reread)
    mixed_s = prefill.mixed_step_s(arch, have.costs, load, beside, beside * kv_s)
    alone_s = prefill.mixed_step_s(arch, have.costs, load, jnp.zeros_like(beside), jnp.zeros_like(beside))
    return Prefilling(steps, steps * mixed_s, steps * alone_s)


def serve(system: System, plan: Plan, effects: Effects, schedule: Schedule) -> Service:
    """The state of a deployment that keeps `schedule.batch` decodes in flight on every decoding group."""
    return serve_sums(system, sums(system, plan, effects, schedule), effects, schedule)


class Charged(NamedTuple):
    """The most that memory is charged for, where a bound asks what could be gained: what stays in HBM of idle caches, and of shared prefixes. inf: all."""

    idle_resident: Any
    prefix_cache_tokens: Any


def serve_sums(system: System, have: Sums, effects: Effects, schedule: Schedule, charged: Charged | None = None) -> Service:
    """The same from the sums of a plan: all that a service knows of it.

    With `charged`, memory is taken as if no more than that stayed in it, while the work is that of `schedule`: no schedule between the two has a higher rate.
    """
    # an unknown host link as next to none: it changes nothing where nothing is parked, and lets nothing be parked
    host = system.accelerator.host_bandwidth
    system = replace(system, accelerator=replace(system.accelerator, host_bandwidth=jnp.where(jnp.isnan(host), 1.0, host)))
    arch, w, s = system.architecture, system.workload, schedule
    hits = prefix_hits(w, s.prefix_cache_tokens)
    first, follow_up, recompute = prompts(w, s, hits * w.shared_prefix)
    answered = jnp.sum(w.weight * w.turns * w.answer)  # tokens decoded per session
    batch, chunk = jnp.asarray(s.batch), jnp.asarray(s.chunk)
    kv_s = jnp.sum(w.weight * w.turns * w.answer * decode.reading_s(arch, effects, have.reads, have.costs, decode_context(w))) / answered

    # separate prefill groups take prompts and recomputed contexts; a follow-up's few tokens stay where its cache is
    split = jnp.where(jnp.asarray(s.prefill_groups) > 0, 1.0, 0.0)
    decode_groups = s.replicas - s.prefill_groups
    prompt_run = chunked(arch, effects, have, chunk, first, (1 - split) * batch, kv_s)
    question_run = chunked(arch, effects, have, chunk, follow_up, batch, kv_s)
    recompute_run = chunked(arch, effects, have, chunk, recompute, (1 - split) * batch, kv_s)

    def per_session(prompt: Array, question: Array, recomputed: Array) -> Array:
        return jnp.sum(w.weight * (first.times * prompt + follow_up.times * question + recompute.times * recomputed))

    parked = (1 - s.idle_resident) * s.idle_parked
    returned = returning_context(w)
    fetch_s, switch_s = switching.switch_s(system, effects, have.moved, s, returned, written(w))
    resumes = w.weight * (w.turns - 1) * parked
    handover_s = split * session_bytes(arch, effects, have.moved, w.prompt) / switching.link_bandwidth(system, s)

    prompts_s = per_session(prompt_run.service_s, jnp.zeros_like(returned), recompute_run.service_s)
    questions_s = jnp.sum(w.weight * follow_up.times * question_run.service_s)
    carried_s = questions_s + (1 - split) * prompts_s  # in steps that decodes share
    mixed_steps = per_session((1 - split) * prompt_run.steps, question_run.steps, (1 - split) * recompute_run.steps)
    switching_s = jnp.sum(resumes * switch_s)
    away_s = jnp.sum(w.weight * ((w.turns - 1) * w.think_s + w.turns * system.efficiency.server_s + handover_s) + resumes * fetch_s)
    exposed_s = system.efficiency.exposed_switch * switching_s
    second_moment = per_session(prompt_run.service_s**2, (1 - split) * question_run.service_s**2, recompute_run.service_s**2)
    per_queue = 1 + split * (decode_groups / jnp.maximum(s.prefill_groups, 1) - 1)  # slots that decode per slot that takes prompts
    turns = jnp.sum(w.weight * w.turns)
    in_queue = jnp.sum(w.weight * (first.times + (1 - split) * follow_up.times + recompute.times))
    queue = queueing.Queue(prompts_s + (1 - split) * questions_s, second_moment, away_s + prompts_s + questions_s, per_queue, in_queue)
    follow_ups = jnp.sum(w.weight * (w.turns - 1))

    def spent(users: Array | float) -> tuple[Array, Array]:
        """[s] of a decode step without a prompt, and [s] that a slot spends on one session, with so many users."""
        alone = 1 / users
        step_s = decode.decode_step_s(arch, have.costs, 1 + batch * (1 - 1 / users), kv_s)
        steps_s = answered / batch * step_s
        spared_s = jnp.minimum(jnp.minimum(mixed_steps * step_s, carried_s), steps_s)  # no more than all; a mixed step is no shorter than a bare one
        busy_s = carried_s + steps_s - (1 - alone) * spared_s
        # the larger root of T = busy - alone * steps * carried / T, and the switches in which nothing else happens
        return step_s, (busy_s + jnp.sqrt(jnp.maximum(busy_s**2 - 4 * alone * steps_s * carried_s, 0.0))) / 2 + exposed_s

    def users(rate: Array) -> Array:
        """Users per slot at about so many sessions a second."""
        return queueing.population(queue, rate, batch)

    # an open arrival stream first, then the closed loop of the users that it implies; a second round changes no rate by more than 1 %
    _, open_s = spent(jnp.inf)
    decode_s, busy_s = spent(users(1 / open_s))
    rate = 1 / busy_s
    queue_utilisation = per_queue * rate * queue.service_s
    tpot_s = busy_s * batch / answered
    many = users(rate)
    # what sets arrivals apart is taken as with one answer at a time: the wait then rises with the load, as a search needs it to
    wait_s = queueing.wait_s(queue, rate, many, away_variance(w, decode.decode_step_s(arch, have.costs, jnp.ones_like(batch), kv_s)))
    # who comes during a step waits for its end; who finds no room waits for it
    wait_s = wait_s + jnp.clip(1 - rate * carried_s, 0.0, 1.0) * jnp.minimum(batch, 1.0) * decode_s / 2
    each = jnp.sum(w.weight * w.turns * w.answer * session_bytes(arch, effects, have.stored, decode_context(w))) / answered
    held_now = batch + rate * (prompts_s + questions_s) / per_queue + rate * switching_s
    wait_s = wait_s + queueing.room_s(held_now, concurrency.kv_pool_bytes(system, s) / each, many, rate * turns)

    filled = jnp.clip(queue_utilisation, 0.0, 1.0) / 2  # the last step of a prompt is filled up by the next one
    recomputed_s = jnp.sum(w.weight * recompute.times * recompute_run.service_s * (1 + filled / recompute_run.steps))
    later_s = wait_s + (questions_s + recomputed_s + jnp.sum(resumes * fetch_s)) / jnp.maximum(follow_ups, 1e-9) + system.efficiency.server_s
    first_s = prompt_run.service_s * (1 + filled / prompt_run.steps) + handover_s + system.efficiency.server_s
    used, peak = held(
        arch, w, effects, s, have, hits, rate, (prompt_run.service_s, recompute_run.service_s, switch_s), wait_s + question_run.service_s, charged
    )
    thinking = jnp.sum(w.weight * (w.turns - 1) * w.think_s) * rate
    return Service(
        sessions_per_s=rate,
        sessions_per_gpu_s=rate * decode_groups / (s.replicas * s.tensor_parallel),
        # nothing recomputed: a smaller cache avoids that, it cannot avoid the prompt
        ceiling_per_gpu_s=1 / (jnp.sum(w.weight * (prompt_run.alone_s + (w.turns - 1) * question_run.alone_s)) * s.tensor_parallel),
        batch=batch,
        decode_step_s=decode_s,
        kv_step_s=kv_s,
        tpot_s=tpot_s,
        first_s=first_s,
        ttft_first_s=wait_s + jnp.sum(w.weight * first_s),
        ttft_follow_up_s=jnp.where(follow_ups > 0, later_s, 0.0),
        wait_s=wait_s,
        wait_utilisation=queue_utilisation,
        prefill_utilisation=jnp.maximum(queue_utilisation, rate * carried_s),
        prefilling=rate * (prompts_s + questions_s),
        thinking=thinking,
        parked=thinking * parked,
        memory_used=used,
        memory_peak=peak,
        memory_pool=concurrency.kv_pool_bytes(system, s),
        host_used=rate * jnp.sum(resumes * w.think_s * session_bytes(arch, effects, have.moved, returned)),
        host_pool=jnp.asarray(system.accelerator.host_memory_bytes * s.tensor_parallel),
        link_utilisation=rate * switching_s,
        slots=jnp.asarray(decode_groups * s.pipeline_parallel),
    )


def held(
    arch: Architecture,
    w: Workload,
    effects: Effects,
    schedule: Schedule,
    have: Sums,
    hits: Array,
    rate: Array,
    times_s: tuple[Array, Array, Array],
    asked_s: Array,
    charged: Charged | None,
) -> tuple[Array, Array]:
    """[bytes] of cache on one slot: (mean over time, what the longest session needs at its largest).

    Little's law: who decodes, is being prefilled, thinks with a resident cache or is in transit, each at its size; a shared prefix once for all.
    `times_s`: [s] of prefilling a prompt, of recomputing one, and of a context switch, each `(atoms,)`.
    `asked_s`: [s] for which a later question waits and is prefilled, its resident cache held.
    """
    first_s, recompute_s, switch_s = times_s

    def size(tokens: Array) -> Array:
        return session_bytes(arch, effects, have.stored, tokens)

    returned = returning_context(w)
    shared = size(hits * w.shared_prefix) - have.stored.state_bytes
    dropped = (1 - schedule.idle_resident) * (1 - schedule.idle_parked)
    resumes = (w.turns - 1) * (1 - schedule.idle_resident) * schedule.idle_parked
    answers = w.weight * w.turns * w.answer
    decoding = schedule.batch * jnp.sum(answers * (size(decode_context(w)) - shared)) / jnp.sum(answers)
    filling = session_bytes(arch, effects, have.filling, w.prompt + w.question)
    refilling = session_bytes(arch, effects, have.filling, returned + w.question)
    prefilling = first_s * (filling - shared) + (w.turns - 1) * dropped * recompute_s * (refilling - shared)
    most = charged or Charged(jnp.inf, jnp.inf)
    staying = jnp.minimum(schedule.idle_resident, most.idle_resident)
    idle = ((w.turns - 1) * (w.think_s + asked_s) * staying + resumes * switch_s) * (size(returned) - shared)
    prefixes = size(jnp.minimum(schedule.prefix_cache_tokens, most.prefix_cache_tokens)) - have.stored.state_bytes
    longest = jnp.maximum(size(w.prompt + w.turns * (w.question + w.answer)), filling)
    return decoding + rate * jnp.sum(w.weight * (prefilling + idle)) + prefixes, jnp.max(longest)


def at_batch(schedule: Schedule, batch: Array | float) -> Schedule:
    """The same schedule with another number of decodes in flight."""
    return replace(schedule, batch=batch)
