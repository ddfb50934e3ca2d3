"""What a group did with its time."""

from __future__ import annotations

import simpy

from kvopt.simulation.blocks import Pool


class Meter:
    """Sums over the time since `reset`; seconds, counts, and bytes times seconds."""

    def __init__(self, env: simpy.Environment, pool: Pool) -> None:
        self.env, self.pool = env, pool
        self.reset()

    def reset(self) -> None:
        """Begins to measure now."""
        self.since = self._last = self.env.now
        self.steps = self.mixed_steps = self.preemptions = self.cached = 0
        self.busy_s = self.mixed_s = self.decoding_s = self.held_byte_s = self.idle_byte_s = 0.0

    def step(self, seconds: float, decodes: int, mixed: bool) -> None:
        """One step has been run."""
        self.steps += 1
        self.busy_s += seconds
        self.decoding_s += seconds * decodes
        if mixed:
            self.mixed_steps += 1
            self.mixed_s += seconds
        self.hold()

    def hold(self) -> None:
        """Counts what has been held since the last look."""
        passed, self._last = self.env.now - self._last, self.env.now
        self.held_byte_s += passed * self.pool.held
        self.idle_byte_s += passed * self.pool.idle
