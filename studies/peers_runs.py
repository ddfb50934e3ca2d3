"""One run of the study `peers`: one optimizer on one problem from one seed, in a process of its own, timed from the moment the process was launched.

`main` is that process. Its environment says how many threads may be used and where compiled programs are kept (`studies.peers.launch`).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import pickle
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from kvopt.cli import keep_compiled
from kvopt.results import run_record, write_atomically
from kvopt.search.vector_problem import Evaluated, VectorProblem

MARKS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # [s] at which hypervolumes are reported
PENALTY = 10.0  # what stands for a goal or a violation that is not a number
FINEST = 1e-5  # relative gain of hypervolume that is worth a point of the curve


class TimeUp(BaseException):
    """The time of a run is over. No `Exception`: an optimizer that expects failures must not take it for one."""


@dataclass
class Recorder:
    """The problem as an optimizer sees it: feasible deployable points are kept with their times, unless one known before dominates them."""

    problem: VectorProblem
    launched: float  # [s] as time.time() has it
    seconds: float
    reference: np.ndarray
    after_first: float = math.inf  # [s] that the run goes on after its first evaluation, where its time allows
    first: float | None = None  # [s] after launch, when the first evaluation returned
    evaluated: int = 0
    front: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    kept: list[tuple[float, np.ndarray]] = field(default_factory=list)  # when, and which deployable plans

    @property
    def size(self) -> int:
        """Number of variables."""
        return self.problem.size

    @property
    def now(self) -> float:
        """[s] since launch."""
        return time.time() - self.launched

    def check(self) -> None:
        """Raises `TimeUp` where the time is over."""
        if self.now > min(self.seconds, (self.first or math.inf) + self.after_first):
            raise TimeUp

    def evaluate(self, u: np.ndarray) -> Evaluated:
        """Points `(points, size)` in [0, 1], repaired and evaluated. Raises `TimeUp`."""
        self.check()
        index = self.problem.repair(np.asarray(u, float))
        made = self.problem.measure(index)
        self.record(index, made)
        return made

    def record(self, index: np.ndarray, made: Evaluated) -> None:
        """Keeps what counts of deployable plans evaluated just now."""
        now = self.now
        self.first = now if self.first is None else self.first
        self.check()
        self.evaluated += len(index)
        rows = np.flatnonzero(made.feasible)
        known = len(self.front)
        both = np.concatenate([self.front, made.objectives[rows]])
        if len(rows):
            best = np.asarray(moocore.is_nondominated(both, keep_weakly=False))
            added = rows[best[known:]]
            if len(added):
                self.kept.append((now, np.asarray(index[added], np.int16)))
            self.front = both[best]


def spread() -> Iterator[float]:
    """Shares for ever, the ends first, then whatever lies farthest from those before: 0, 1, 1/2, 1/4, 3/4, 1/8, ..."""
    yield from (0.0, 1.0)
    for number in itertools.count(1):
        yield int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length()


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """The area that points `(n, 2)` dominate, up to the reference."""
    inside = points[np.all(points < reference, axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def curve(times: np.ndarray, points: np.ndarray, reference: np.ndarray) -> list[tuple[float, float]]:
    """When the hypervolume of points `(n, 2)`, known at times `(n,)`, rises, and to what."""
    order = np.argsort(times, kind="stable")
    times, points = times[order], points[order]
    ends = [int(place) for place in np.flatnonzero(np.diff(times, append=np.inf) > 0) + 1]
    found: list[tuple[float, float]] = []
    front, start = np.zeros((0, 2)), 0
    for end in ends:
        both = np.concatenate([front, points[start:end]])
        front = both[np.asarray(moocore.is_nondominated(both, keep_weakly=False))]
        volume, start = hypervolume(front, reference), end
        if volume > (found[-1][1] if found else 0.0) * (1 + FINEST):
            found.append((float(times[end - 1]), volume))
    return found


def result(recorder: Recorder) -> dict[str, Any]:
    """What a run found, every point evaluated again in double precision and left out where it is not feasible there."""
    times = np.repeat([when for when, _ in recorder.kept], [len(found) for _, found in recorder.kept])
    plans = np.concatenate([*(found for _, found in recorder.kept), np.zeros((0, recorder.size), np.int16)])
    exact, dropped = np.zeros((0, 2)), 0
    if len(plans):
        again = recorder.problem.exact(plans)
        exact, times, dropped = again.objectives[again.feasible], times[again.feasible], int(np.sum(~again.feasible))
    best = np.asarray(moocore.is_nondominated(exact, keep_weakly=False)) if len(exact) else np.zeros(0, bool)
    return {
        "first_s": recorder.first,
        "evaluated": recorder.evaluated,
        "kept": len(plans),
        "dropped": dropped,
        "curve": curve(times, exact, recorder.reference),
        "front": exact[best].tolist(),
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """[MiB] the most memory that this process has had. Linux counts what launched it in `ru_maxrss`, but not in its own record."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def alarm(recorder: Recorder) -> Iterator[None]:
    """Raises `TimeUp` within the block when the time of the run is over, and every second after it: some optimizers compute for long between evaluations."""

    def ring(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(recorder.seconds - recorder.now, 1e-3), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(text: str) -> None:
    """One run: `text` is a JSON object of problem, method, seed, seconds, launched [s, as time.time() has it], the problem's pickle and the file to write."""
    asked = json.loads(text)
    keep_compiled()
    gc.set_threshold(100_000, 50, 50)  # as the command line: tracing makes much and leaves little garbage
    from studies.peers_adapters import METHODS

    problem: VectorProblem = pickle.loads(Path(asked["pickle"]).read_bytes())
    recorder = Recorder(problem, asked["launched"], asked["seconds"], problem.reference, asked.get("after_first", math.inf))
    with contextlib.suppress(TimeUp), alarm(recorder):
        METHODS[asked["method"]].run(recorder, asked["seed"])
    ended = recorder.now
    known = {name: asked[name] for name in ("problem", "method", "seed", "seconds")} | {"reference": problem.reference.tolist()}
    write_atomically(Path(asked["file"]), json.dumps({**known, **result(recorder), "ended_s": ended, **run_record()}) + "\n")
