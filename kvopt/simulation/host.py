"""Host memory and the link to it: caches parked there, least recently used dropped first where it is full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from typing import Any

import simpy

from kvopt.simulation.steps import Steps
from kvopt.simulation.timeline import AWAY, SETTLED, Note, silent


class Host:
    """Parked caches of one group, in tokens by session. The link carries one cache at a time each way, or one in all where it is not duplex."""

    def __init__(self, env: simpy.Environment, steps: Steps, note: Note = silent) -> None:
        self.env, self.steps, self.note = env, steps, note
        self._in = simpy.Resource(env)
        self._out = simpy.Resource(env) if steps.duplex else self._in
        self._parked: OrderedDict[int, int] = OrderedDict()
        self._used = 0
        self.busy_s = {"in": 0.0, "out": 0.0}

    @property
    def link_s(self) -> float:
        """[s] that the busier direction was busy, or both where they share the link."""
        return max(self.busy_s.values()) if self.steps.duplex else sum(self.busy_s.values())

    def tokens(self, session: int) -> int:
        """[tokens] of a session that are in host memory."""
        return self._parked.get(session, 0)

    def size(self, tokens: int) -> int:
        """[bytes] of so many tokens on the link."""
        return self.steps.moved[self.steps.blocks(tokens)]

    def write(self, session: int, tokens: int) -> Generator[Any, Any, float]:
        """Parks a session's first `tokens` tokens: those that are not there yet go over the link. How long that takes [s]."""
        self.note(session, AWAY)
        there = self.tokens(session) if self.steps.append_only else 0
        seconds = yield from self._carry("out", self._out, max(self.size(tokens) - self.size(there), 0))
        self.drop(session)
        self._parked[session] = tokens
        self._used += self.size(tokens)
        while self._used > self.steps.host:
            self.drop(next(iter(self._parked)))
        self.note(session, SETTLED)
        return seconds

    def fetch(self, tokens: int) -> Generator[Any, Any, float]:
        """Brings `tokens` tokens in; how long that takes, not counting the wait for the link [s]."""
        return (yield from self._carry("in", self._in, self.size(tokens)))

    def use(self, session: int) -> None:
        """What is in use in HBM goes first where host memory is full."""
        if session in self._parked:
            self._parked.move_to_end(session, last=False)

    def drop(self, session: int) -> None:
        """Forgets a session."""
        self._used -= self.size(self._parked.pop(session, 0))
        self.note(session, SETTLED)

    def _carry(self, way: str, link: simpy.Resource, size: int) -> Generator[Any, Any, float]:
        seconds = size / self.steps.link
        with link.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.busy_s[way] += seconds
        return seconds
