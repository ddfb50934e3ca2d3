"""What readings have in common: the levels whose effects add up to a curve's parameters, each drawn from a spread that the evidence decides.

A method with four points takes the rest from its pool, a model that was measured once from its family, and what nothing was measured of from the mean. A
level is a name: readings of the same name share one effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from kvopt.accuracy.reading import Reading

Parameter = Literal["amplitude", "slope", "midpoint"]
PARAMETERS: tuple[Parameter, ...] = ("amplitude", "slope", "midpoint")
Level = Callable[[Reading], tuple[str, ...]]

AMPLITUDE: Mapping[str, Level] = {
    "pool": lambda r: (r.kind,),
    "task": lambda r: (r.task,),
    "pool, task": lambda r: (r.kind, r.task),
    "method": lambda r: (r.selection,),
    "method, task": lambda r: (r.selection, r.task),
    "method, suite": lambda r: (r.selection, r.suite),
    "benchmark": lambda r: (r.benchmark,),
    "pool, benchmark": lambda r: (r.kind, r.benchmark),
    "method, benchmark": lambda r: (r.selection, r.benchmark),
    "maker": lambda r: (r.maker,),
    "maker, pool": lambda r: (r.maker, r.kind),
    "model": lambda r: (r.model,),
    "model, pool": lambda r: (r.model, r.kind),
    "model, task": lambda r: (r.model, r.task),
    "model, benchmark": lambda r: (r.model, r.benchmark),
    "model, method": lambda r: (r.model, r.selection),
    "model, method, task": lambda r: (r.model, r.selection, r.task),
    "model, method, suite": lambda r: (r.model, r.selection, r.suite),
    "source": lambda r: (r.source,),
    "source, pool": lambda r: (r.source, r.kind),
    "source, method": lambda r: (r.source, r.selection),
    "source, task": lambda r: (r.source, r.task, r.kind),
    "series": lambda r: r.series,
}
SLOPE: Mapping[str, Level] = {name: AMPLITUDE[name] for name in ("pool", "task", "method", "method, task")}
MIDPOINT: Mapping[str, Level] = {name: AMPLITUDE[name] for name in ("pool", "task", "method")}
LEVELS: Mapping[Parameter, Mapping[str, Level]] = {"amplitude": AMPLITUDE, "slope": SLOPE, "midpoint": MIDPOINT}

Part = Literal["method", "model", "noise"]
PART: Mapping[str, Part] = {
    name: "model" if name.startswith(("model", "maker")) else "noise" if name.startswith(("source", "series")) else "method" for name in AMPLITUDE
}
"""Whose effect a level is: the method's on its tasks, the model's, or that of who ran it and of one series of points, which no evidence can predict."""


class Names:
    """The levels of many readings as whole numbers, `(readings,)` each, numbered alike for all readings that are ever compared."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], int] = {}

    def of(self, readings: list[Reading]) -> dict[str, np.ndarray]:
        """By level, the number of every reading's name."""
        return {
            level: np.array([self._known.setdefault((level, name(reading)), len(self._known)) for reading in readings], int)
            for level, name in AMPLITUDE.items()
        }


def shared(first: dict[str, np.ndarray], second: dict[str, np.ndarray], spreads: Mapping[str, float]) -> np.ndarray:
    """Prior covariance of one parameter between readings, `(first, second)`: the squared spreads of the levels that they share."""
    total = np.zeros((len(first["pool"]), len(second["pool"])))
    for level, spread in spreads.items():
        total += spread**2 * (first[level][:, None] == second[level][None, :])
    return total
