"""Who sends requests when: users who ask again once they are answered, sessions that come at random, or a trace at its own times."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from kvopt.simulation.request import Fate, Request
from kvopt.simulation.sessions import Session
from kvopt.simulation.timeline import WAITING, Timeline
from kvopt.simulation.traffic import Thinking


@dataclass(frozen=True)
class Manners:
    """How users think, and what becomes of the cache of one who does."""

    thinking: Thinking
    stays: bool  # whether the cache of one who thinks stays in HBM until the room is needed
    parks: bool  # whether it goes to host memory where it does not; otherwise it is dropped
    server_s: float  # [s] before a request reaches the engine


class Users:
    """Plays sessions against `send`, which queues a request. Only whole sessions are refused: those of which a request can never be held."""

    def __init__(
        self,
        env: simpy.Environment,
        send: Callable[[Request], None],
        fits: Callable[[int], bool],
        manners: Manners,
        rng: random.Random,
        timeline: Timeline,
    ) -> None:
        self.env, self.send, self.fits, self.manners, self.random, self.timeline = env, send, fits, manners, rng, timeline
        self.refused: list[Session] = []

    def closed(self, sessions: Iterator[Session], users: int, spread_s: float) -> None:
        """`users` users, each with one session after another; they begin spread over `spread_s`."""
        for user in range(users):
            self.env.process(self._always(sessions, self.random.random() * spread_s, user))

    def open(self, sessions: Iterator[Session], rate: float) -> None:
        """Sessions that begin at random, `rate` a second."""
        self.env.process(self._arrivals(sessions, rate))

    def replay(self, sessions: Sequence[Session]) -> simpy.Event:
        """A trace at its own times; the event of its end. A question never comes before the last one is answered."""
        return self.env.all_of([self.env.process(self._play(session)) for session in sessions])

    def _always(self, sessions: Iterator[Session], start_s: float, user: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(start_s)
        while True:
            yield from self._play(next(sessions), user)

    def _arrivals(self, sessions: Iterator[Session], rate: float) -> Generator[Any, Any, None]:
        while True:
            yield self.env.timeout(self.random.expovariate(rate))
            self.env.process(self._play(next(sessions)))

    def _play(self, session: Session, user: int | None = None) -> Generator[Any, Any, None]:
        if not self.fits(session.longest):
            self.refused.append(session)
            yield self.env.timeout(1.0)  # lest a user who can never be served asks without end
            return
        context = 0
        for number, turn in enumerate(session.turns):
            if turn.arrival_s is not None:
                yield self.env.timeout(max(turn.arrival_s - self.env.now, 0.0))
            elif number:
                yield self.env.timeout(self._thought(turn.think_s))
            request = Request(
                session=session.number,
                turn=number,
                share=1 / len(session.turns),
                arrival_s=self.env.now,
                length=context + turn.new,
                answer=turn.answer,
                shared=session.shared,
                fate="end" if number + 1 == len(session.turns) else self._fate(),
                done=self.env.event(),
            )
            if number:
                self.timeline.note(session.number, WAITING)
            else:
                self.timeline.begins(session.number, user)
            if self.manners.server_s:
                yield self.env.timeout(self.manners.server_s)
            self.send(request)
            yield request.done
            context += turn.new + turn.answer
        self.timeline.ends(session.number)

    def _thought(self, mean_s: float) -> float:
        return self.random.expovariate(1 / mean_s) if mean_s > 0 and self.manners.thinking == "exponential" else mean_s

    def _fate(self) -> Fate:
        if self.manners.stays:
            return "stay"
        return "park" if self.manners.parks else "drop"
