"""One simulation from start to end: the group, its users, and what was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import simpy

from kvopt.simulation import figures
from kvopt.simulation.blocks import Pool
from kvopt.simulation.engine import Engine, Limits
from kvopt.simulation.host import Host
from kvopt.simulation.request import Request
from kvopt.simulation.sessions import Session
from kvopt.simulation.steps import Steps
from kvopt.simulation.timeline import ANSWERED, SETTLED, SWITCH, WAITING, Timeline
from kvopt.simulation.users import Manners, Users


@dataclass(frozen=True)
class Setting:
    """A plan as the simulation takes it."""

    steps: Steps
    limits: Limits
    manners: Manners
    pool: int  # [bytes] of one group, without what shared prefixes take
    decoding: int = 1  # groups that decode
    prefilling: int = 0  # groups that only prefill for them
    groups_per_gpu: float = 1.0  # decoding slots over all GPUs


@dataclass(frozen=True)
class Window:
    """What is measured: after `warmup_s`, so many requests or seconds."""

    warmup_s: float
    requests: int | None = None
    seconds: float | None = None


@dataclass
class Simulation:
    """The groups of a plan that work together, and everything that is counted."""

    setting: Setting
    seed: int = 0
    finished: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.env = simpy.Environment()
        self.random = random.Random(self.seed)
        self.timeline = Timeline(self.env, self._where)
        steps, limits = self.setting.steps, self.setting.limits
        away = Limits(limits.tokens, limits.sequences, False, False, False, hands_over=True)
        self.decoders = [self._engine(limits) for _ in range(self.setting.decoding)]
        self.prefillers = [self._engine(away) for _ in range(self.setting.prefilling)]
        self.users = Users(self.env, self._send, self.decoders[0].fits, self.setting.manners, self.random, self.timeline)
        self.link = simpy.Resource(self.env)  # from prefilling to decoding groups
        self.steps = steps
        self._enough: simpy.Event | None = None
        self._wanted = math.inf
        self._since = 0.0
        self._link_since: list[float] = [0.0] * len(self.decoders)

    def _engine(self, limits: Limits) -> Engine:
        steps = self.setting.steps
        note = self.timeline.note
        host = Host(self.env, steps, note)
        pool = Pool(
            self.setting.pool, steps.stored, lambda session, tokens: self._evicted(host, session, tokens), lambda session: note(session, SETTLED)
        )
        return Engine(self.env, steps, pool, host, limits, self._after, note)

    def _evicted(self, host: Host, session: int, tokens: int) -> None:
        self.env.process(host.write(session, tokens))

    def _send(self, request: Request) -> None:
        """A prompt goes to a group that prefills where there are any; else to the session's own."""
        home = self.decoders[request.session % len(self.decoders)]
        cached = request.turn > 0 and not self._dropped(home, request)
        if self.prefillers and not cached:
            min(self.prefillers, key=lambda one: len(one.waiting) + len(one.running)).submit(request)
        else:
            home.submit(request)

    def _dropped(self, home: Engine, request: Request) -> bool:
        return not home.host.tokens(request.session) and not home.pool.knows(request.session)

    def _where(self, session: int) -> str:
        """Where the cache of one who thinks is: where more of it is, if parts are in both."""
        home = self.decoders[session % len(self.decoders)]
        resident, parked = home.pool.blocks(session) * self.steps.block, home.host.tokens(session)
        return "resident" if resident and resident + self.steps.block > parked else "parked" if parked else "dropped"

    def _after(self, request: Request) -> None:
        if math.isnan(request.first_s):  # prefilled, not yet decoded
            self.env.process(self._hand_over(request))
            return
        if self.env.now >= self._since:
            self.finished.append(request)
            if len(self.finished) >= self._wanted and self._enough is not None and not self._enough.triggered:
                self._enough.succeed()
        self.timeline.note(request.session, ANSWERED)
        request.done.succeed()

    def _hand_over(self, request: Request) -> Generator[Any, Any, None]:
        self.timeline.note(request.session, SWITCH)
        request.delivered = True
        yield self.env.timeout(self.steps.moved[self.steps.blocks(request.length)] / self.steps.link)
        self.timeline.note(request.session, WAITING)
        self.decoders[request.session % len(self.decoders)].submit(request)

    def measure(self, window: Window, shown_s: float = math.inf) -> dict[str, Any]:
        """Runs through the warm-up and the window of a stream without end; what was measured. `shown_s`: of the window, in the timeline."""
        self._since = window.warmup_s
        if window.warmup_s > 0:
            self._until(window.warmup_s)
        self._reset()
        self.timeline.open(shown_s)
        if window.seconds is not None:
            self._until(self.env.now + window.seconds)
        else:
            self._wanted, self._enough = window.requests or 1, self.env.event()
            self._until(self._enough)
        return self.figures()

    def replay(self, sessions: Sequence[Session]) -> dict[str, Any]:
        """Runs a trace to its end; what was measured from its first arrival to its last answer."""
        self.timeline.open()
        self._until(self.users.replay(sessions))
        return self.figures()

    def _until(self, end: simpy.Event | float) -> None:
        with jax.enable_x64(True):  # steps are timed in double precision
            self.env.run(until=end)

    def _reset(self) -> None:
        self._since = self.env.now
        self.finished.clear()
        for engine in (*self.decoders, *self.prefillers):
            engine.meter.reset()
        self._link_since = [engine.host.link_s for engine in self.decoders]

    def figures(self) -> dict[str, Any]:
        """What was measured since the warm-up, as plain numbers."""
        span = self.env.now - self._since
        engines = [*self.decoders, *self.prefillers]
        for engine in engines:
            engine.meter.hold()

        def share(name: str, of: Sequence[Engine], each: float = 1.0) -> float:
            return sum(getattr(engine.meter, name) for engine in of) / (len(of) * each * span) if span > 0 else 0.0

        links = sum(engine.host.link_s - since for engine, since in zip(self.decoders, self._link_since, strict=True))
        return {
            **figures.rates(self.finished, span, self.setting.groups_per_gpu / len(self.decoders)),
            **figures.latencies(self.finished),
            "utilisation": {
                "compute": share("busy_s", engines),
                "prefill": share("mixed_s", self.prefillers or engines),
                "hbm": share("held_byte_s", self.decoders, self.setting.pool),
                "hbm_idle": share("idle_byte_s", self.decoders, self.setting.pool),
                "link": links / (len(self.decoders) * span) if span > 0 else 0.0,
            },
            "decodes_in_flight": share("decoding_s", self.decoders),
            "preemptions": sum(engine.meter.preemptions for engine in engines),
            "requests": len(self.finished),
            "refused_sessions": len(self.users.refused),
            "seconds": span,
        }
