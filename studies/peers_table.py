"""The table of the study `peers`: hypervolumes as shares of the best known, and how soon they are reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.peers_adapters import METHODS
from studies.peers_runs import MARKS, hypervolume

SHARES = (0.99, 0.999)  # of the best known hypervolume, whose times are reported
OURS = "kvopt"
AHEAD = 1e-4  # of the best known hypervolume: less than this is no lead
Run = dict[str, Any]


def columns(seconds: float) -> tuple[str, ...]:
    """The columns for runs of this length; those that end in `excl.` leave out what came before the first evaluation had returned."""
    at = [f"{mark:g} s" for mark in marks(seconds)]
    reached = [f"s to {100 * share:g} %" for share in SHARES]
    excluding = [f"{name} excl." for name in (*at, *reached)]
    return ("problem", "method", "seeds", *at, *reached, "first s", "evaluations/s", "MB", "s/configuration", *excluding)


def marks(seconds: float) -> list[float]:
    """[s] at which hypervolumes are reported: those up to the length of the runs, and its end."""
    return sorted({mark for mark in MARKS if mark < seconds} | {seconds})


def best_known(runs: Sequence[Run]) -> dict[str, float]:
    """The hypervolume of all runs' fronts together, by problem."""
    problems = dict.fromkeys(run["problem"] for run in runs)
    own = {problem: [run for run in runs if run["problem"] == problem] for problem in problems}
    return {
        problem: hypervolume(np.array([point for run in some for point in run["front"]]).reshape(-1, 2), np.array(some[0]["reference"]))
        for problem, some in own.items()
    }


def share_at(run: Run, best: float, when: float, excluding: bool = False) -> float:
    """What share of the best known hypervolume a run had after so many seconds."""
    start = (run["first_s"] or math.inf) if excluding else 0.0
    had = [volume for time, volume in run["curve"] if time - start <= when]
    return had[-1] / best if had and best > 0 else 0.0


def seconds_to(run: Run, volume: float, excluding: bool = False) -> float:
    """[s] until a run has this hypervolume; infinite where it never does."""
    start = (run["first_s"] or math.inf) if excluding else 0.0
    return next((time - start for time, had in run["curve"] if had >= volume), math.inf)


def grouped(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """The runs of each problem and method."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run["problem"], run["method"]), []).append(run)
    return found


def rows(runs: Sequence[Run], seconds: float) -> list[dict[str, Any]]:
    """One row a problem and method, the best at the end first: medians over seeds."""
    best = best_known(runs)
    made = [_row(problem, method, some, best[problem], seconds) for (problem, method), some in grouped(runs).items()]
    problems = list(best)
    return sorted(made, key=lambda row: (problems.index(row["problem"]), -row[f"{seconds:g} s"]))


def _row(problem: str, method: str, some: Sequence[Run], best: float, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"problem": problem, "method": method, "seeds": len(some)}
    for end, excluding in (("", False), (" excl.", True)):
        row |= {f"{mark:g} s{end}": _median([share_at(run, best, mark, excluding) for run in some]) for mark in marks(seconds)}
        row |= {f"s to {100 * share:g} %{end}": _median([seconds_to(run, share * best, excluding) for run in some]) for share in SHARES}
    searched = [max(run["seconds"] - (run["first_s"] or run["seconds"]), 1e-9) for run in some]
    rate = _median([run["evaluated"] / time for run, time in zip(some, searched, strict=True)])
    row |= {"first s": _median([run["first_s"] or math.inf for run in some]), "evaluations/s": rate, "MB": _median([run["peak_mb"] for run in some])}
    return row | {"s/configuration": 1 / rate if rate else None}


def _median(values: Sequence[float]) -> float:
    """The median; infinite, which tables leave empty, where half of the values are."""
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return high if math.isinf(high) else (low + high) / 2


def notes(runs: Sequence[Run], seconds: float) -> list[str]:
    """How the table is to be read, what the methods were set to, and where another one is ahead of kvopt."""
    if not runs:
        return ["no run ended"]
    versions = {f"{name} {version}" for run in runs for name, version in run["versions"].items() if name in ("jax", "kvopt")}
    read = [
        "shares of the hypervolume of all runs together, medians over seeds, by seconds since the process was launched, imports counted; "
        "the compilation cache is warm, the problem is handed over resolved, and every front is evaluated again in double precision",
        "excl. (in table.csv): counted from when the first evaluation had returned; evaluations/s likewise, a gradient counts once; "
        + ", ".join(sorted(versions)),
        "; ".join(f"{name}: {METHODS[name].about}" for name in dict.fromkeys(run["method"] for run in runs) if name in METHODS),
    ]
    shorter: dict[str, float] = {run["method"]: run["seconds"] for run in runs if run["seconds"] < seconds}
    if shorter:
        read.append("runs that ended sooner count with what they had then: " + ", ".join(f"{name} {time:g} s" for name, time in shorter.items()))
    dropped = sum(run["dropped"] for run in runs)
    if dropped:
        read.append(f"{dropped} of {sum(run['kept'] for run in runs)} points that were kept are infeasible in double precision, and left out")
    return read + _against(runs, seconds)


def _against(runs: Sequence[Run], seconds: float) -> list[str]:
    """Where a peer is ahead of kvopt, and how much sooner kvopt has what the best of them ends with."""
    best, found = best_known(runs), []
    for problem, whole in best.items():
        own = {method: some for (name, method), some in grouped(runs).items() if name == problem}
        ours = own.pop(OURS, None)
        if not ours or not own:
            continue
        lost = []
        for mark in marks(seconds):
            at = {method: _median([share_at(run, whole, mark) for run in some]) for method, some in own.items()}
            first = max(at, key=at.__getitem__)
            mine = _median([share_at(run, whole, mark) for run in ours])
            if at[first] > mine + AHEAD:
                lost.append(f"{first} at {mark:g} s ({at[first]:.4f} against {mine:.4f})")
        found.append(
            f"{problem}: ahead of kvopt: {', '.join(lost)}" if lost else f"{problem}: no other method is ahead of kvopt at any of these times"
        )
        half = seconds / 2
        peak = {method: _median([share_at(run, whole, half) for run in some]) for method, some in own.items()}
        first = max(peak, key=peak.__getitem__)
        theirs = _median([seconds_to(run, peak[first] * whole) for run in own[first]])
        mine = _median([seconds_to(run, peak[first] * whole) for run in ours])
        found.append(f"{problem}: what {first} has after {half:g} s, {peak[first]:.4f}, it has at {theirs:.3g} s and kvopt at {mine:.3g} s")
    return found
