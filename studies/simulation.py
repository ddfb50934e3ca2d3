"""The study `simulation`: the closed form beside discrete events, over random scenarios."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import named
from kvopt.inputs.scenario import Scenario
from kvopt.plots import write_figure
from kvopt.problem import resolve
from kvopt.search.pipeline import Progress
from kvopt.simulation.traffic import Traffic
from kvopt.simulation.verb import played, prepared
from studies.result import StudyResult
from studies.simulation_plot import figure

QUESTION = "How far is the closed form from a simulation that plays every step?"
WITHIN = {"sessions": 0.10, "TPOT": 0.10, "TTFT": 0.20}
"""Relative differences of the means that are called agreement."""
KINDS = (
    ("dense", "llama-3.1-8b", "h100-sxm", 1),
    ("dense", "llama-3.1-8b", "a100-80-sxm", 1),
    ("dense", "yi-34b-200k", "a100-80-sxm", 2),
    ("dense", "qwen2.5-72b", "h100-sxm", 4),
    ("MoE", "qwen3-30b-a3b", "h100-sxm", 1),
    ("MoE", "mixtral-8x7b-v0.1", "h100-sxm", 2),
    ("MLA", "deepseek-v2-lite", "h100-sxm", 1),
    ("MLA", "deepseek-v3", "h200-sxm", 8),
)
CLOSED = ("sessions/GPU-h", "TPOT ms", "TTFT s")  # of the closed form; not printed
SHOWN = ("kind", "model", "context", "turns", "answer", "idle", "users", "of", *WITHIN, "TTFT p95", "TPOT p95", "agrees", *CLOSED)


def run(out: Path | None = None, progress: Progress | None = None, count: int = 30, requests: int = 2000, seed: int = 0) -> StudyResult:
    """`count` scenarios that have a feasible plan, drawn from `seed`, each simulated for `requests` requests at 30 to 100 % of the users it serves.

    Figures are simulated over closed form. `ok` is false where sessions per hour agree in fewer than nine of ten scenarios. `out`: folder for the picture.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        if progress is not None:
            progress(f"scenario {len(rows) + 1} of {count}", len(rows) / count)
        kind, scenario, load = *drawn(rng), rng.uniform(0.3, 1.0)
        row = compared(kind, scenario, load, requests)
        rows += [row] if row else []
    agreed = sum(abs(row["sessions"] - 1) <= WITHIN["sessions"] for row in rows)
    if out is not None:
        write_figure(figure(rows, WITHIN), out, "simulation")
    notes = (f"{count} scenarios drawn with seed {seed}, {requests:,} requests each", *_notes(rows))
    return StudyResult(title=QUESTION, columns=SHOWN, rows=tuple(rows), notes=notes, ok=agreed >= 0.9 * count, hidden=CLOSED)


def drawn(rng: random.Random) -> tuple[str, Scenario]:
    """A kind of model and a scenario: prompts of 4K to 200K tokens, answers of 50 to 800, on log scales; caches parked or recomputed."""
    kind, model, accelerator, gpus = rng.choice(KINDS)
    return kind, Scenario.of(
        model=model,
        accelerator=accelerator,
        gpus=gpus,
        tp=gpus,
        turns=rng.randint(1, 6),
        context=round(4000 * 50 ** rng.random()),
        answer=round(50 * 16 ** rng.random()),
        followup=round(20 * 30 ** rng.random()),
        think=round(5 * 20 ** rng.random(), 1),
        idle=rng.choice(("park", "recompute")),
        ttft="120s",
        tpot="150ms",
        seed=rng.randrange(1000),
    )


def compared(kind: str, scenario: Scenario, load: float, requests: int) -> dict[str, Any] | None:
    """Simulated over closed form at a share of the users that the plan serves; `None` where no plan is feasible or not one whole user is served."""
    problem = resolve(scenario)
    point = named.best_case(problem)
    if not point.feasible:
        return None
    most = prepared(problem, point.choice, point.x, Traffic()).form.at_load(float(point.state.service.batch))["users"]
    users = round(load * most)
    if users < 1:
        return None
    found = played(problem, point.choice, point.x, Traffic(users=users, requests=requests), loaded=True)
    if "infeasible" in found:
        return None
    ratio, said = found["ratio"], found["closed_form"]
    row = {
        "kind": kind,
        "model": problem.model.id,
        "context": problem.context,
        "turns": scenario.turns,
        "answer": scenario.answer,
        "idle": f"{scenario.idle}, {100 * float(point.state.schedule.idle_resident):.0f} % stay",
        "users": users,
        "of": most,
        "sessions": ratio["sessions_per_gpu_hour"],
        "TPOT": ratio["tpot_s"]["mean"],
        "TTFT": ratio["ttft_s"]["mean"],
        "TTFT p95": ratio["ttft_worse_s"]["p95"],
        "TPOT p95": ratio["tpot_s"]["p95"],
        **dict(zip(CLOSED, (said["sessions_per_gpu_hour"], 1e3 * said["tpot_s"]["mean"], said["ttft_s"]["mean"]), strict=True)),
    }
    return {**row, "agrees": all(abs(row[name] - 1) <= most for name, most in WITHIN.items())}


def _notes(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """How many agree, quantity by quantity, and how far the percentiles are off."""
    found = []
    for name, most in WITHIN.items():
        off = np.array([abs(row[name] - 1) for row in rows])
        inside = int(np.sum(off <= most))
        found.append(f"{name}: {inside} of {len(rows)} within {100 * most:.0f} %, median {100 * np.median(off):.1f} %, most {100 * off.max():.0f} %")
    for name in ("TTFT p95", "TPOT p95"):
        low, middle, high = np.percentile([row[name] for row in rows], (10, 50, 90))
        found.append(f"{name}: simulated over closed form {middle:.2f} at the median, {low:.2f} to {high:.2f} from the 10th to the 90th percentile")
    return tuple(found)
