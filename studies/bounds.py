"""The study `bounds`: how far the plans that searches find are from the best there is, by trying every setting and by the bound that needs no trying."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs import method
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search import best as search
from kvopt.search import programs
from kvopt.search.block_plan import Width
from kvopt.search.blocks.answer import variables
from kvopt.search.blocks.front import BlockSearch
from kvopt.search.blocks.optimum import front_bounds
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import FIELDS, chunk_sizes, make_choices, take
from kvopt.search.offers import offered
from kvopt.search.pipeline import Progress, Space, given, known, space
from kvopt.search.uniform_bound import uniform_bound
from studies.bounds_plot import figure
from studies.result import StudyResult

QUESTION = "How far are the plans that are found from the best there is: tried out one by one, and bounded?"
RATE = "sessions_per_gpu_hour"
SETTINGS = 7  # of the dimensions, the first: those of a compression plan
AT_ONCE = 65_536  # settings evaluated at once
RESIDENT = 65  # shares of resident idle caches that are tried one by one
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "yi-34b-200k", "gemma-3-27b-it", "deepseek-v3", "gpt-oss-120b", "qwen3-next-80b-a3b-instruct")
ACCELERATORS = ("a100-80-sxm", "h100-sxm", "h200-sxm", "mi300x", "l40s", "rtx-4090")
FRONTS: tuple[tuple[Width, str, int, tuple[str, ...]], ...] = (
    ("layer", "llama-3.1-70b", 8, ("snapkv", "kivi")),
    ("head", "llama-3.1-8b", 4, ("kvzip", "kivi")),
    ("head", "llama-3.1-8b", 4, ("snapkv", "kivi")),
    ("layer", "llama-3.1-8b", 4, ("kvzip", "kivi")),
    ("head", "llama-3.1-70b", 8, ("kvzip", "kivi")),
    ("layer", "llama-3.1-70b", 8, ("kivi",)),
)


def run(
    out: Path | None = None, progress: Progress | None = None, scenarios: int = 12, points: int = 64, fronts: int = 3, seed: int = 0
) -> StudyResult:
    """`scenarios` drawn uniform problems, then the first `fronts` of `FRONTS`, of `points` plans each; `ok` if no bound is below what was found.

    `out`: folder for the picture. Raises `BadInput`.
    """
    if scenarios < 1:
        raise BadInput("scenarios", scenarios, "must be 1 or more")
    if not 0 <= fronts <= len(FRONTS):
        raise BadInput("fronts", fronts, f"must be 0 to {len(FRONTS)}")
    tell = progress or (lambda phase, share: None)
    steps, rows = scenarios + fronts, []
    tell("uniform scenarios", 0.0)
    for problem, best in drawn(scenarios, seed):
        rows.append(_uniform(problem, best))
        tell("uniform scenarios", len(rows) / steps)
    for front in FRONTS[:fronts]:
        tell(f"front per {front[0]}", len(rows) / steps)
        rows.append(_front(*front, points))
    uniform = [row for row in rows if row["plan"] == "uniform"]
    short = np.array([row["below everything tried %"] for row in uniform])
    gaps = np.array([row["gap %"] for row in uniform])
    if out is not None:
        write_figure(figure(rows), out, "bounds")
    notes = [
        f"{len(uniform)} uniform scenarios drawn with seed {seed}; everything tried: every grouping, method, chunk and {RESIDENT} shares of resident caches",
        f"below everything tried: at most {short.max():.3g} %; bound gap: median {np.median(gaps):.2g} %, at most {gaps.max():.2g} %",
        "gap: 100 (bound / value - 1); of a front the median and the worst over its points, each bounded at the accuracy that it keeps",
    ]
    if fronts:
        notes.append(f"{fronts} of {len(FRONTS)} fronts, per layer and per head, of {points} points each")
    columns = ("plan", "scenario", "variables", "found", "everything tried", "below everything tried %", "gap %", "worst gap %", "seconds")
    ok = bool(np.all(gaps >= -1e-9) and short.max() <= 0.5)
    return StudyResult(title=QUESTION, columns=columns, rows=tuple(rows), notes=tuple(notes), ok=ok)


def drawn(count: int, seed: int) -> Iterator[tuple[Problem, float]]:
    """So many random scenarios in which some plan is feasible, with the best that trying everything gives [1/h]."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        fields = {
            "model": rng.choice(MODELS),
            "accelerator": rng.choice(ACCELERATORS),
            "gpus": int(rng.choice([1, 2, 4, 8])),
            "context": int(2.0 ** rng.uniform(12, 18)),
            "turns": float(rng.integers(1, 12)),
            "think": f"{10 ** rng.uniform(0.5, 2.5):.0f}s",
            "accuracy_floor": round(float(rng.uniform(0.8, 0.99)), 3),
        }
        try:
            problem = resolve(Scenario.of(**{name: value if isinstance(value, int | float) else str(value) for name, value in fields.items()}))
        except BadInput:
            continue
        choices = make_choices(problem, offered(problem))
        best = tried(problem, space(problem, choices)) if choices else math.inf
        if not math.isinf(best):
            made += 1
            yield problem, math.exp(-best)


def tried(problem: Problem, searched: Space) -> float:
    """The least log goal over every deployable plan of one setting for all layers: inf where none is feasible."""
    grid, lanes = searched.grid, searched.lanes
    resident = np.linspace(0, 1, RESIDENT) if problem.keeps_idle_caches else np.zeros(1)
    schedules = np.stack(np.meshgrid(chunk_sizes(problem), resident, indexing="ij"), axis=-1).reshape(-1, 2)
    index, choice = [], []
    for row in range(len(grid.counts)):
        plans = np.stack(np.meshgrid(*(np.arange(count) for count in grid.counts[row, :SETTINGS]), indexing="ij"), axis=-1).reshape(-1, SETTINGS)
        for one in np.flatnonzero(grid.of == row):
            index.append(plans)
            choice.append(np.full(len(plans), one))
    settings = np.concatenate(index)
    chosen = np.concatenate(choice)
    whole = np.concatenate([settings, np.zeros((len(settings), grid.counts.shape[1] - SETTINGS), int)], axis=1)
    x = np.repeat(grid.settings(chosen, whole, np.ones(len(chosen))), len(schedules), axis=0)
    x[:, [FIELDS.index("chunk"), FIELDS.index("idle_resident")]] = np.tile(schedules, (len(chosen), 1))
    of = np.repeat(chosen, len(schedules))
    own, best = known(given(problem, ())), math.inf
    for start in range(0, len(x), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        made = programs.measure(own, take(lanes, of[part]), programs.repeat(problem.targets, len(x[part])), x[part])
        holds = (made.broken <= 0).all(axis=1)
        best = min(best, float(made.logs[holds, list(GOALS).index(RATE)].min(initial=math.inf)))
    return best


def _uniform(problem: Problem, best: float) -> dict[str, Any]:
    started = time.perf_counter()
    searched = space(problem, make_choices(problem, offered(problem)))
    found, _ = search.run(problem, searched, [RATE], problem.scenario.seed)
    answer = search.best(problem, searched.choices, found, RATE)
    value = float(answer.state.values[RATE]) if answer else math.nan
    bound = uniform_bound(problem, searched, value)
    seconds = time.perf_counter() - started
    s = problem.scenario
    return {
        "plan": "uniform",
        "scenario": f"{problem.model.id}, {problem.accelerator.id} x {s.gpus}, {problem.context:,.0f} tokens",
        "variables": 10,
        "found": value,
        "everything tried": best,
        "below everything tried %": max(0.0, 100 * (1 - value / best)),
        "gap %": bound.gap_percent,
        "worst gap %": bound.gap_percent,
        "seconds": seconds,
    }


def _front(width: Width, model: str, gpus: int, names: tuple[str, ...], points: int) -> dict[str, Any]:
    problem = resolve(Scenario.of(model=model, accelerator="h100-sxm", gpus=gpus, context="128k", accuracy_floor=0.5))
    chosen = MethodChoice.of(*(method.load(name) for name in names))
    started = time.perf_counter()
    blocks = BlockSearch(problem, make_choices(problem, [chosen]), width)
    front = blocks.front(points, problem.scenario.accuracy_floor)
    seconds = time.perf_counter() - started
    kept = front.rows(np.flatnonzero((front.broken <= 0).all(axis=1)))
    gaps = 100 * np.expm1(kept.logs[:, list(GOALS).index(RATE)] - front_bounds(blocks, kept))
    return {
        "plan": f"per {width}",
        "scenario": f"{problem.model.id}, {problem.accelerator.id} x {gpus}, {problem.context:,.0f} tokens, {' + '.join(names)}",
        "variables": variables(blocks),
        "found": float(np.exp(-kept.logs[:, list(GOALS).index(RATE)].min())),
        "gap %": float(np.median(gaps)),
        "worst gap %": float(gaps.max()),
        "seconds": seconds,
    }
