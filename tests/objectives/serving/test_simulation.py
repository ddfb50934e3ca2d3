"""The closed form beside a direct step-by-step simulation of the same rules: closed-loop users, one chunk of a prompt and all decodes in a step.

Both take a step's time from the same functions; what is compared is queueing, chunking, overlap and Little's law. The simulation knows no limit of
memory.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives.serving import decode, prefill, session, switching
from objectives.serving.kv_cache import session_bytes
from objectives.types import Effects, Plan, Schedule, System

TOLERANCE = 0.08


@dataclass(frozen=True)
class Scenario:
    """What is served, and the numbers of users to try: from one to more than a group can serve."""

    system: System
    plan: Plan
    effects: Effects
    schedule: Schedule
    users: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """A prefill: the tokens already cached, and the seconds of its chunks, one row a chunk and one column per number of decodes beside it."""

    cached: float
    end: float
    fetch_s: float
    chunks: list[list[float]]


@dataclass(frozen=True)
class Steps:
    """Step times by the number of decodes, and what each decode adds per token of its context: affine, as of full attention."""

    decode_s: list[float]
    kv_s: float
    kv_token_s: float
    prompts: list[list[Prompt]]  # by kind of session and turn


def step_times(case: Scenario, most: int) -> Steps:
    """Every step time that a simulation with up to `most` users meets."""
    system, w, s = case.system, case.system.workload, case.schedule
    arch = system.architecture
    have = session.sums(system, case.plan, case.effects, s)
    batch = jnp.arange(most + 1.0)
    bare = decode.decode_step_s(arch, have.costs, batch, jnp.zeros(()))
    ends = decode.kv_step_s(arch, case.plan, case.effects, s, have.costs, jnp.array([0.0, 1e5]))
    kinds = []
    for atom in range(len(w.weight)):
        turns, context = [], 0.0
        for turn in range(round(float(w.turns[atom]))):
            new = float(w.question[atom] + (w.prompt[atom] if turn == 0 else 0))
            starts = np.arange(0, new, float(s.chunk))
            sizes = np.minimum(starts + float(s.chunk), new) - starts
            # the output head is multiplied once per prompt: the shares of a prompt's chunks add up to it
            linear, _ = prefill.prompt_flop(arch, have.shares, jnp.zeros(()), jnp.asarray(new))
            _, attention = prefill.prompt_flop(arch, have.shares, jnp.asarray(context + starts), jnp.asarray(sizes))
            reread = session_bytes(arch, case.effects, have.filling, jnp.asarray(context + starts))
            load = prefill.Chunk(*(jnp.asarray(x)[:, None] for x in (sizes, linear * sizes / new, attention, reread)))
            chunks = prefill.mixed_step_s(arch, have.costs, load, batch, jnp.zeros(()))
            fetch_s, _ = switching.switch_s(system, case.effects, have.moved, s, jnp.asarray(context), w.question[atom] + w.answer[atom])
            turns.append(Prompt(context, context + new, float(fetch_s), np.asarray(chunks).tolist()))
            context += new + float(w.answer[atom])
        kinds.append(turns)
    return Steps(np.asarray(bare).tolist(), float(ends[0]), float(ends[1] - ends[0]) / 1e5, kinds)


def simulate(case: Scenario, steps: Steps, users: int, sessions: int, seed: int = 0, exponential: bool = True) -> float:
    """[1/s] sessions that a group completes with this many users, who begin a session when their last one ends; the first third is dropped."""
    w, rng = case.system.workload, random.Random(seed)
    answer, think, weight = w.answer.tolist(), w.think_s.tolist(), w.weight.tolist()
    parked = float((1 - case.schedule.idle_resident) * case.schedule.idle_parked)
    server_s = float(case.system.efficiency.server_s)
    now, step, context, done, marks = 0.0, 0, 0.0, 0, [0.0]
    # a request is (time, order, kind of session, turn)
    away = [(rng.random() * 20, user, rng.choices(range(len(weight)), weight)[0], 0) for user in range(users)]
    heapq.heapify(away)
    waiting: deque[tuple[int, int, int]] = deque()
    decoding: list[tuple[int, int, int, int]] = []  # (step at which the answer is complete, order, kind, turn)
    running: Prompt | None = None
    owner, chunk = (0, 0, 0), 0
    while done < sessions:
        while away and away[0][0] <= now:
            waiting.append(heapq.heappop(away)[1:])
        if running is None and waiting:
            owner, chunk = waiting.popleft(), 0
            running = steps.prompts[owner[1]][owner[2]]
        batch = len(decoding)
        if running is None and batch == 0:
            now = away[0][0]
            continue
        kv_s = batch * steps.kv_s + context * steps.kv_token_s
        if running is not None:
            ahead = 1
            now += running.chunks[chunk][batch] + kv_s
            chunk += 1
        else:  # some steps at once, until somebody arrives or finishes
            each = steps.decode_s[batch] + kv_s
            ahead = decoding[0][0] - step
            if away:
                ahead = min(ahead, int((away[0][0] - now) / each) + 1)
            now += ahead * (each + batch * (ahead - 1) / 2 * steps.kv_token_s)
        step += ahead
        context += ahead * batch
        while decoding and decoding[0][0] <= step:
            _, user, kind, turn = heapq.heappop(decoding)
            context -= steps.prompts[kind][turn].end + answer[kind]
            if turn + 1 < len(steps.prompts[kind]):
                thought = rng.expovariate(1 / think[kind]) if exponential else think[kind]
                fetch = steps.prompts[kind][turn + 1].fetch_s * parked
                heapq.heappush(away, (now + thought + fetch + server_s, user, kind, turn + 1))
            else:
                done += 1
                marks.append(now)
                heapq.heappush(away, (now + server_s, user, rng.choices(range(len(weight)), weight)[0], 0))
        if running is not None and chunk == len(running.chunks):
            heapq.heappush(decoding, (step + round(answer[owner[1]]), *owner))
            context += running.end
            running = None
    first = len(marks) // 3
    return (len(marks) - 1 - first) / (marks[-1] - marks[first])


def population(case: Scenario) -> Callable[[Any], tuple[Any, Any]]:
    """(users, sessions/s) of the closed form by decodes in flight: users = rate * how long a session lasts."""
    w = case.system.workload

    @jax.jit
    def at(batch: Any) -> tuple[Any, Any]:
        got = session.serve(case.system, case.plan, case.effects, session.at_batch(case.schedule, batch))
        follow_ups = jnp.sum(w.weight * (w.turns - 1))
        answers, thinking = jnp.sum(w.weight * w.turns * w.answer), jnp.sum(w.weight * (w.turns - 1) * w.think_s)
        lasts_s = got.ttft_first_s + follow_ups * got.ttft_follow_up_s + answers * got.tpot_s + thinking
        return got.sessions_per_s * lasts_s, got.sessions_per_s

    return at


def closed_form(at: Callable[[Any], tuple[Any, Any]], users: int) -> float:
    """[1/s] sessions of the closed form with this many users, by bisection on the decodes in flight."""
    low, high = -9.0, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(at(np.exp(middle))[0]) < users else (low, middle)
    return float(at(np.exp(low))[1])


def chat(make: SimpleNamespace) -> Scenario:
    """An 8B model on one H100: short prompts and longer ones, follow-ups after ten seconds, caches that stay."""
    sessions = make.workload(
        weight=[0.7, 0.3], prompt=[500, 3000], turns=[3, 3], question=[100, 100], answer=[250, 150], think_s=[10, 10], shared_prefix=[0, 0]
    )
    given = make.system("meta-llama-3.1-8b", "h100-sxm", make.calibrated("h100-sxm"), sessions=sessions)
    return Scenario(given, make.plan(), make.effects(), make.schedule(chunk=512.0, idle_resident=1.0), (1, 4, 16, 64, 128, 256, 320))


def document(make: SimpleNamespace) -> Scenario:
    """Yi-34B on two A100s, a document of 50,000 tokens and five questions, caches parked while the user reads."""
    return Scenario(
        make.system("yi-34b-200k", "a100-80-sxm", make.calibrated("a100-80-sxm")),
        make.plan(),
        make.effects(),
        make.schedule(tensor_parallel=2.0, chunk=2048.0),
        (1, 2, 4, 8, 16, 24, 40),
    )


def experts(make: SimpleNamespace) -> Scenario:
    """DeepSeek-V3 on eight H200s, prompts of 128,000 tokens, one question after another."""
    sessions = make.workload(prompt=128000, turns=2, question=200, answer=500, think_s=30)
    given = make.system("deepseek-v3", "h200-sxm", make.calibrated("h200-sxm", weights="fp8"), sessions=sessions)
    return Scenario(given, make.plan(), make.effects(), make.schedule(tensor_parallel=8.0, chunk=4096.0), (1, 2, 4, 8, 16, 32))


SCENARIOS = {"chat": chat, "document": document, "experts": experts}
Compared = tuple[Scenario, Steps, Callable[[Any], tuple[Any, Any]]]


@pytest.fixture(scope="module", params=SCENARIOS)
def compared(request: pytest.FixtureRequest, make: SimpleNamespace) -> Iterator[Compared]:
    with jax.enable_x64(True):
        case = SCENARIOS[request.param](make)
        yield case, step_times(case, max(case.users)), population(case)


def differences(compared: Compared, sessions: int) -> dict[int, float]:
    """ln(closed form / simulated) sessions per second, by users."""
    case, steps, at = compared
    with jax.enable_x64(True):
        return {users: math.log(closed_form(at, users) / simulate(case, steps, users, max(sessions, 40 * users))) for users in case.users}


def assert_agree(found: dict[int, float]) -> None:
    assert all(abs(error) < TOLERANCE for error in found.values()), "; ".join(f"{users} users {error:+.1%}" for users, error in found.items())


def test_closed_form_agrees_with_the_simulation_from_light_load_to_saturation(compared: Compared) -> None:
    assert_agree(differences(compared, 1500))


def test_the_simulation_goes_from_light_load_to_saturation(compared: Compared) -> None:
    case, steps, _ = compared
    few, most = case.users[0], case.users[-1]
    rates = {users: simulate(case, steps, users, 600) for users in (few, 2 * most // 3, most)}
    assert rates[most] < 0.6 * most * rates[few]  # far from a rate that grows with the users
    assert rates[most] < 1.1 * rates[2 * most // 3]


def test_fixed_think_times_change_little(compared: Compared) -> None:
    case, steps, at = compared
    users = case.users[2]
    fixed = simulate(case, steps, users, 1500, exponential=False)
    with jax.enable_x64(True):
        assert closed_form(at, users) == pytest.approx(fixed, rel=TOLERANCE)


def test_another_reference_fails(compared: Compared) -> None:
    case, steps, at = compared
    slower = replace(steps, decode_s=[1.5 * step for step in steps.decode_s], kv_s=1.5 * steps.kv_s, kv_token_s=1.5 * steps.kv_token_s)
    slower = replace(slower, prompts=[[replace(p, chunks=[[1.3 * t for t in row] for row in p.chunks]) for p in kind] for kind in steps.prompts])
    with pytest.raises(AssertionError):
        assert_agree(differences((case, slower, at), 600))
