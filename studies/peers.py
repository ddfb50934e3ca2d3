"""The study `peers`: kvopt and the optimizers that one could use in its place, on the same problems with the same model, hypervolume against time."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.cli import cache_folder, programs_folder
from kvopt.errors import BadInput, unknown
from kvopt.plots import write_figure
from kvopt.results import write_atomically
from kvopt.search.pipeline import Progress
from studies.peers_adapters import METHODS
from studies.peers_problems import PROBLEMS
from studies.peers_table import columns, notes, rows
from studies.planner_speed import planner_rows
from studies.result import StudyResult

QUESTION = "How soon does each optimizer find how much of the front, all with the same model, box, constraints and repair?"
WARM_S = 3.0  # [s] that a run to fill the compilation cache goes on after its first evaluation
WARM_RUNS = 3  # of these at most, until one adds nothing to the cache
GRACE_S = 600.0  # [s] after which a run that does not end is given up
CODE = "import sys; from studies.peers_runs import main; main(sys.argv[1])"


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    seeds: int = 1,
    seconds: float = 8.0,
    problems: str | None = "per-layer",
    methods: str | None = None,
    planners: bool = True,
) -> StudyResult:
    """One row a problem and optimizer, of the medians over seeds.

    `problems`, `methods`: names joined by commas; none: all. What is not installed is left out and said in a note. Runs go one after another, each a
    process of its own, and are kept in `out/runs`: a study that was stopped goes on from there. `planners`: times an estimate of public planners as well.
    Raises `BadInput`.
    """
    for name, value in (("seeds", seeds), ("seconds", seconds)):
        if value <= 0:
            raise BadInput(name, value, "must be above 0")
    asked_problems, asked_methods = _named("problems", problems, list(PROBLEMS)), _named("methods", methods, list(METHODS))
    able = [name for name in asked_methods if METHODS[name].installed]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch if out is None else out) / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        found = _all_runs(folder, asked_problems, able, seeds, seconds, progress or (lambda phase, share: None))
    failed = [f"{one['problem']}, {one['method']}, seed {one['seed']}: {one['failed']}" for one in found if "failed" in one]
    whole = [one for one in found if "failed" not in one]
    table = [*rows(whole, seconds), *(planner_rows() if planners else ())]
    left_out = [f"{name}: {METHODS[name].package} is not installed (pip install 'kvopt[compare]')" for name in asked_methods if name not in able]
    size = (
        f"{len(whole)} runs of {seconds:g} s: {seeds} seed{'s' if seeds > 1 else ''}; problems {', '.join(asked_problems)} of {', '.join(PROBLEMS)}"
    )
    slow = sum(one["first_s"] is None for one in whole)
    if slow:
        size += f"; {slow} ended before their first evaluation: this machine needs more seconds, and nothing is said of those optimizers"
    if out is not None and whole:
        from studies.peers_plot import figure

        write_figure(figure(whole), out, "peers")
    return StudyResult(
        title=QUESTION,
        columns=columns(seconds),
        rows=tuple(table),
        notes=(size, *notes(whole, seconds), *left_out, *failed),
        ok=not failed,
        hidden=tuple(name for name in columns(seconds) if name.endswith("excl.")),
    )


def _named(option: str, text: str | None, known: Sequence[str]) -> list[str]:
    """The names in a comma-separated option; all where it is not given."""
    names = list(known) if text is None else [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise unknown(option, name, known)
    return names


def _all_runs(folder: Path, problems: Sequence[str], methods: Sequence[str], seeds: int, seconds: float, tell: Progress) -> list[dict[str, Any]]:
    """Every run, from its file where it is there already; seeds outermost, so that a study that is stopped has something of everything."""
    cases = [
        _asked(folder, problem, method, seed, seconds)
        for seed in range(seeds)
        for problem in problems
        for method in methods
        if _able(problem, method)
    ]
    missing = [case for case in cases if _kept(case) is None]
    for problem in dict.fromkeys(case["problem"] for case in missing):
        hand_over(problem, folder)
    failures: dict[str, str] = {}
    first = list({(case["problem"], case["method"]): case for case in reversed(missing)}.values())
    steps: list[tuple[Callable[[dict[str, Any]], str | None], dict[str, Any]]] = [
        *((_warm, case) for case in first),
        *((launch, case) for case in missing),
    ]
    for place, (step, case) in enumerate(steps):
        tell(f"{'filling the cache: ' if step is _warm else ''}{case['problem']}, {case['method']}", place / len(steps))
        failure = step(case)
        if failure is not None:
            failures[case["file"]] = failure
    return [{**case, "failed": failures[case["file"]]} if case["file"] in failures else _kept(case) or {} for case in cases]


def _able(problem: str, method: str) -> bool:
    """Whether a method can take a problem."""
    on = METHODS[method].on
    return on is None or problem in on


def _asked(folder: Path, problem: str, method: str, seed: int, seconds: float) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9]+", "-", f"{problem} {method}".lower())
    files = {"file": str(folder / f"{name}-{seed}.json"), "pickle": str(folder / f"{problem}.pickle")}
    return {"problem": problem, "method": method, "seed": seed, "seconds": seconds, **files}


def hand_over(problem: str, folder: Path) -> None:
    """Writes a resolved problem for all its runs, its reference point within: none of them spends time on resolving it."""
    made = PROBLEMS[problem]()
    assert np.all(np.isfinite(made.reference))
    write_atomically(folder / f"{problem}.pickle", pickle.dumps(made))


def _kept(asked: dict[str, Any]) -> dict[str, Any] | None:
    """A run of these seconds that was made before; none where there is none."""
    try:
        found: dict[str, Any] = json.loads(Path(asked["file"]).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return found if found["seconds"] == asked["seconds"] else None


def _warm(case: dict[str, Any]) -> None:
    """Runs of which nothing is kept, until one adds nothing to the compilation cache: each goes on for `WARM_S`, or a fifth of a run, once it evaluates."""
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(WARM_RUNS):
            before = _programs()
            launch({**case, "seconds": GRACE_S, "after_first": min(WARM_S, case["seconds"] / 5), "file": str(Path(scratch) / "run.json")})
            if _programs() == before:
                return


def _programs() -> set[str]:
    """The compiled programs that are kept on disk."""
    return {path.name for folder, ending in ((cache_folder(), "-cache"), (programs_folder(), ".program")) for path in folder.glob(f"*{ending}")}


def launch(case: dict[str, Any]) -> str | None:
    """One run in a process of its own, which writes its file; what went wrong, or none. Its threads are as many as there are cores."""
    cores = str(os.cpu_count() or 1)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), cores)
    environment = {**os.environ, **threads, "KVOPT_CACHE": str(cache_folder().parent)}
    text = json.dumps({**case, "launched": time.time()})
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CODE, text], env=environment, capture_output=True, text=True, timeout=case["seconds"] + GRACE_S
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {GRACE_S:g} s after its time"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
