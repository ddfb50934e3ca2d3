"""A request trace replayed on one group of GPUs at several loads: what each request waited, and how many met their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kvopt import named
from kvopt.problem import Problem
from kvopt.search.lanes import FIELDS, Choice
from kvopt.simulation.figures import PERCENTILES
from kvopt.simulation.request import Request
from kvopt.simulation.run import Setting, Simulation
from kvopt.simulation.sessions import Session
from kvopt.simulation.traffic import Traffic
from kvopt.simulation.verb import prepared

KEEP, PARK, DROP = "keep", "park", "drop"
FATES = {
    KEEP: "idle caches stay in HBM until the room is needed, then they are recomputed",
    PARK: "the same, but they go to host memory",
    DROP: "idle caches are freed at once",
}
"""What becomes of the cache of one who thinks."""
WARMUP = 0.2  # share of the time in which sessions begin, before requests count
MOSTLY = 0.9  # of the requests, after which the rate of a full queue is taken: the last sessions go on alone


@dataclass(frozen=True)
class Slo:
    """What a request is to meet: so many seconds to its first token, more for longer prompts, and so many per output token."""

    ttft_s: float
    ttft_s_per_1k: float
    tpot_s: float

    def ttft_of(self, prompt: float) -> float:
        """The target [s] for the first token after a prompt [tokens]."""
        return self.ttft_s + self.ttft_s_per_1k * prompt / 1000


@dataclass(frozen=True)
class Replay:
    """One trace at one load, over the requests that came while sessions still began, the first ones left out. Rates per GPU; latencies [s] by percentile."""

    requests_per_s: float  # that came: fewer than asked for where sessions go on after the last has begun
    users: float  # sessions that go on at once, per GPU
    attained: float  # share of the requests that met both targets
    ttft_s: tuple[float, ...]  # at PERCENTILES
    tpot_s: tuple[float, ...]


def fates(problem: Problem) -> dict[str, tuple[Choice, np.ndarray]]:
    """The plan's choice and settings for each fate of idle caches that the engine has, uncompressed or with the scenario's methods."""
    place = FIELDS.index("idle_resident")
    cases = named.cases(problem)
    asked = {KEEP: (False, True), PARK: (True, True), DROP: (False, False)}
    found = {}
    for fate, (parks, stays) in asked.items():
        fitting = [case for case in cases if case[0].deployment.park == parks and (case[1][place] > 0) == stays]
        if fitting:
            found[fate] = fitting[-1]
    return found


def settings(problem: Problem, sessions: Sequence[Session]) -> dict[str, Setting]:
    """By fate of idle caches, the plan as the simulation takes it, for sessions of these lengths; one fate where nobody comes back."""
    most = max(session.longest for session in sessions)
    found = {fate: prepared(problem, choice, x, Traffic(), False, most).setting for fate, (choice, x) in fates(problem).items()}
    return found if returning(sessions) else dict(list(found.items())[:1])


def returning(sessions: Sequence[Session]) -> list[Session]:
    """The sessions of more than one turn."""
    return [session for session in sessions if len(session.turns) > 1]


def full_rate(setting: Setting, sessions: Sequence[Session], seed: int) -> float:
    """[requests/s] of one group when all sessions are there at once and nobody thinks: the throughput that loads are shares of."""
    at_once = [replace(session, turns=tuple(replace(turn, arrival_s=0.0) for turn in session.turns)) for session in sessions]
    simulation = Simulation(setting, seed)
    simulation.replay(at_once)
    ends = np.sort([request.finished_s for request in simulation.finished])
    place = max(int(MOSTLY * len(ends)) - 1, 0)
    return (place + 1) / float(ends[place]) if len(ends) else 0.0


def paced(sessions: Sequence[Session], requests_per_s: float) -> list[Session]:
    """The sessions with their beginnings moved together or apart so that requests come at this rate; the gaps within a session stay as they are."""
    begins = [session.turns[0].arrival_s or 0.0 for session in sessions]
    count = sum(len(session.turns) for session in sessions)
    factor = count / requests_per_s / max(max(begins), 1e-9)
    return [
        replace(session, turns=tuple(replace(turn, arrival_s=(turn.arrival_s or 0.0) + begin * (factor - 1)) for turn in session.turns))
        for session, begin in zip(sessions, begins, strict=True)
    ]


def replay(setting: Setting, sessions: Sequence[Session], requests_per_s: float, slo: Slo, seed: int) -> Replay:
    """The trace at a rate of one group. A request of a session that is too long for the memory counts as missed."""
    played = paced(sessions, requests_per_s)
    last = max(session.turns[0].arrival_s or 0.0 for session in played)
    first = WARMUP * last
    simulation = Simulation(setting, seed)
    simulation.replay(played)
    seen = [request for request in simulation.finished if first <= request.arrival_s <= last]
    refused = sum(first <= (turn.arrival_s or 0.0) <= last for session in simulation.users.refused for turn in session.turns)
    met = sum(meets(request, slo) for request in seen)
    ttft = np.array([request.first_s - request.arrival_s for request in seen])
    tpot = np.array([(request.finished_s - request.first_s) / (request.answer - 1) for request in seen if request.answer > 1])
    per_gpu = setting.groups_per_gpu
    return Replay(
        requests_per_s=(len(seen) + refused) / (last - first) * per_gpu,
        users=at_once(simulation.finished, first, last) * per_gpu,
        attained=met / max(len(seen) + refused, 1),
        ttft_s=percentiles(ttft),
        tpot_s=percentiles(tpot),
    )


def meets(request: Request, slo: Slo) -> bool:
    """Whether an answered request met both targets; one of a single token has no time per output token."""
    in_time = request.first_s - request.arrival_s <= slo.ttft_of(request.prompt)
    return in_time and (request.answer <= 1 or (request.finished_s - request.first_s) / (request.answer - 1) <= slo.tpot_s)


def at_once(finished: Sequence[Request], first: float, last: float) -> float:
    """The mean number of sessions that go on between two times [s], from a session's first question to its last answer."""
    begin: dict[int, float] = {}
    end: dict[int, float] = {}
    for request in finished:
        begin[request.session] = min(begin.get(request.session, request.arrival_s), request.arrival_s)
        end[request.session] = max(end.get(request.session, request.finished_s), request.finished_s)
    inside = [max(min(end[one], last) - max(begin[one], first), 0.0) for one in begin]
    return sum(inside) / max(last - first, 1e-9)


def percentiles(values: np.ndarray) -> tuple[float, ...]:
    """The values at PERCENTILES; nan of nothing."""
    return tuple(float(value) for value in np.percentile(values, PERCENTILES)) if len(values) else (float("nan"),) * len(PERCENTILES)
