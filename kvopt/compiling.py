"""How long XLA compiles: counted through JAX's own monitoring events, from the first use on."""

from __future__ import annotations

from functools import cache

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


class Clock:
    """Seconds spent compiling since the clock was started."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _EVENT:
            self.seconds += duration_secs


@cache
def clock() -> Clock:
    """The one clock of this process."""
    return Clock()
