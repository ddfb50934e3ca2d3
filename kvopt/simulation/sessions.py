"""Who asks what: sessions drawn from a workload's kinds, or read from a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kvopt.inputs.traces import read_sessions
from objectives.types import Workload


@dataclass(frozen=True)
class Turn:
    """One question and its answer [tokens]; `arrival_s` where a trace says when it came."""

    new: int
    answer: int
    think_s: float = 0.0  # mean [s] between the last answer and this question
    arrival_s: float | None = None


@dataclass(frozen=True)
class Session:
    """The turns of one session in order, and how much of the first prompt is found in a cache of shared prefixes [tokens]."""

    number: int
    turns: Sequence[Turn]
    shared: int = 0

    @property
    def longest(self) -> int:
        """[tokens] that it ends at."""
        return sum(turn.new + turn.answer for turn in self.turns)


@dataclass
class Draws:
    """Sessions of a workload, drawn by weight; a mean number of turns that is not whole is met on average. A shared prefix is found whole or not at all."""

    workload: Workload
    prefix_tokens: float  # [tokens] of shared prefixes held
    random: random.Random
    count: int = field(default=0)

    def __post_init__(self) -> None:
        w = self.workload
        self._kinds = range(len(w.weight))
        self._weights = np.asarray(w.weight, float).tolist()
        self._hits = float(np.interp(self.prefix_tokens, w.reuse_tokens, w.reuse_hits))

    def __next__(self) -> Session:
        w, kind = self.workload, self.random.choices(self._kinds, self._weights)[0]
        prompt, question, answer = (max(low, round(float(x[kind]))) for low, x in ((1, w.prompt), (0, w.question), (1, w.answer)))
        turns = int(w.turns[kind]) + (self.random.random() < float(w.turns[kind]) % 1)
        found = round(float(w.shared_prefix[kind])) if self.random.random() < self._hits else 0
        later = Turn(max(question, 1), answer, float(w.think_s[kind]))
        self.count += 1
        return Session(self.count, (Turn(prompt + question, answer), *[later] * (turns - 1)), min(found, prompt))

    def __iter__(self) -> Iterator[Session]:
        return self


def longest(workload: Workload) -> int:
    """[tokens] that the longest session of a workload can end at."""
    ends = np.ceil(workload.prompt) + np.ceil(workload.turns) * (np.ceil(workload.question) + np.ceil(workload.answer) + 1)
    return int(np.max(ends))


def replayed(path: Path, most: int | None = None) -> list[Session]:
    """The sessions of a trace by their first arrival, times counted from it; of `most` requests at most, the earliest. Raises `BadInput`."""
    found = read_sessions(path)
    arrivals = sorted(request.arrival_s for session in found for request in session.requests)
    start, last = arrivals[0], arrivals[min(most or len(arrivals), len(arrivals)) - 1]
    sessions: list[Session] = []
    for session in sorted(found, key=lambda one: one.requests[0].arrival_s):
        turns, context = [], 0
        for request in session.requests:
            if request.arrival_s > last:
                break
            new, answer = max(1, round(request.prompt) - context), max(1, round(request.answer))
            turns.append(Turn(new, answer, arrival_s=request.arrival_s - start))
            context += new + answer
        if turns:
            sessions.append(Session(len(sessions), turns))
    return sessions
