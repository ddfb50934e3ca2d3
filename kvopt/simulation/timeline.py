"""Who does what when: the states of some users of a group over a bounded stretch of a simulation, noted as they change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import simpy

STATES = ("waiting", "prefill", "decode", "switch", "think-resident", "think-parked", "think-dropped")
"""What a user is in: queued; prefilling; decoding; its cache on the link between HBM and host memory, or between groups; thinking, by where the cache is."""
ROWS = 30  # users that are followed
MOST = 2000  # spans that are kept
DIGITS = 4  # of a second that are kept
WAITING, PREFILL, DECODE, SWITCH = STATES[:4]
ANSWERED, AWAY, SETTLED = "answered", "away", "settled"

Note = Callable[[int, str], None]
"""Takes a session and what happened to it: a state of its request (`waiting`, `prefill`, `decode`, `switch`), `answered`, or, of the cache of one who thinks,
`away` (on its way to host memory) and `settled` (it may have come or gone)."""


def silent(session: int, what: str) -> None:
    """Notes nothing."""


@dataclass
class Row:
    """One user: its spans, and the state it is in since when; times in s of the simulation's clock."""

    spans: list[tuple[float, float, str]] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)  # of its sessions
    state: str | None = None  # None: in no session
    since: float = 0.0


class Timeline:
    """Follows at most `ROWS` users from `open` on, for some seconds or until there are `MOST` spans. A user without a number of its own is its session.

    `where` says of a session's cache: `resident`, `parked` or `dropped`.
    """

    def __init__(self, env: simpy.Environment, where: Callable[[int], str]) -> None:
        self.env, self.where = env, where
        self._users: dict[int, int] = {}  # by session
        self._asking: dict[int, str] = {}  # by session whose request is on its way: its state
        self._away: set[int] = set()  # sessions whose cache is on its way out
        self._rows: dict[int, Row] = {}  # by user
        self._from = self._to = math.nan  # [s] what is kept; nan before `open`
        self._count, self._closed = 0, False

    def begins(self, session: int, user: int | None = None) -> None:
        """A session begins with its first question."""
        if self._closed:
            return
        self._users[session] = session if user is None else user
        self._asking[session] = WAITING
        row = self._row(session)
        if row is not None:
            self._turn(row, WAITING)
            if not self._closed:  # by that turn
                row.begins.append(self.env.now)

    def note(self, session: int, what: str) -> None:
        """Something happened to a session."""
        if self._closed or session not in self._users:
            return
        if what == AWAY:
            self._away.add(session)
        elif what == SETTLED:
            self._away.discard(session)
        elif what == ANSWERED:
            self._asking.pop(session, None)
        else:
            self._asking[session] = what
        row = self._row(session)
        if row is not None:
            self._turn(row, self._state(session))

    def ends(self, session: int) -> None:
        """A session has its last answer."""
        if self._closed or session not in self._users:
            return
        row = self._row(session)
        if row is not None:
            self._turn(row, None)
        del self._users[session]
        self._asking.pop(session, None)
        self._away.discard(session)

    def open(self, lasts_s: float = math.inf) -> None:
        """Begins to keep spans now; those who are in a session come first."""
        self._from, self._to = self.env.now, self.env.now + lasts_s
        for session in sorted(self._users, key=lambda one: self._users[one]):
            row = self._row(session)
            if row is not None:
                row.state, row.since = self._state(session), self.env.now

    def rows(self) -> list[dict[str, Any]]:
        """`[{"user", "begins": [s], "spans": [[start_s, end_s, state], ...]}, ...]`, in s since `open`; the spans of a user in order, none upon another."""
        self._close(self.env.now)
        found = []
        for user, row in sorted(self._rows.items()):
            kept = [(self._kept(start), self._kept(end), state) for start, end, state in row.spans]
            begins = [self._kept(begin) for begin in row.begins]
            found.append({"user": user, "begins": begins, "spans": [list(span) for span in kept if span[0] < span[1]]})
        return [row for row in found if row["spans"]]

    def _kept(self, time: float) -> float:
        return round(time - self._from, DIGITS)

    def _state(self, session: int) -> str:
        return self._asking.get(session) or (SWITCH if session in self._away else f"think-{self.where(session)}")

    def _row(self, session: int) -> Row | None:
        """The row of a session's user, a new one while there is room for it."""
        user = self._users[session]
        if user not in self._rows and len(self._rows) < ROWS and not math.isnan(self._from):
            self._rows[user] = Row()
        return self._rows.get(user)

    def _turn(self, row: Row, state: str | None) -> None:
        """A user is in another state from now on."""
        now = self.env.now
        if state == row.state:
            return
        if now > self._to or self._count >= MOST - ROWS:
            self._close(now)
            return
        if row.state is not None and now > row.since:
            row.spans.append((row.since, now, row.state))
            self._count += 1
        row.state, row.since = state, now

    def _close(self, now: float) -> None:
        """Ends every span and follows nobody any more."""
        if self._closed:
            return
        self._closed, end = True, min(self._to, now)
        for row in self._rows.values():
            if row.state is not None and end > row.since:
                row.spans.append((row.since, end, row.state))
