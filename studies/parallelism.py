"""The study `parallelism`: every way to group a fixed number of accelerators, for a model with many KV heads and one with a latent (MLA)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.explanation.parts import parts
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess, bottleneck, metrics
from kvopt.named import methods as named
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.deployments import Deployment, deployments
from kvopt.search.lanes import FIELDS, Choice, chunk_sizes, memory_left, stacked, take
from kvopt.search.pipeline import Progress, given
from kvopt.search.solve import vector
from studies.parallelism_plot import figure
from studies.result import StudyResult

QUESTION = "How should a fixed number of accelerators be grouped: tensor, pipeline, context and attention-data parallel, replicas, separate prefill?"
RESIDENT = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of idle caches that stay in HBM that are tried, with every chunk size, at the largest load
REPORTED, REPORTED_CHUNK = {"TP8": 20.4, "attention DP8": 156.9}, 8192.0  # maximum concurrency in the logs of vllm#51454
COLUMNS = (
    "model",
    "grouping",
    "tp",
    "pp",
    "replicas",
    "prefill only",
    "attention dp",
    "dcp",
    "users per GPU",
    "sessions per GPU-hour",
    "copies of the cache",
    "sessions in HBM",
    "TTFT s",
    "TPOT ms",
    "chunk",
    "binds",
)


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    model: str = "llama-3.1-70b",
    accelerator: str = "h100-sxm",
    latent_model: str = "deepseek-v3",
    latent_accelerator: str = "h200-sxm",
    gpus: int = 8,
    context: str | int = "64k",
    methods: str | None = "fp8",
    **fields: Any,
) -> StudyResult:
    """One row per grouping and model, the best chunk and fate of idle caches of each at the largest load within the targets, best first.

    `latent_model`: the second model, whose latent is copied on every tensor-parallel rank. `methods`: as for `kvopt analyze`; none: uncompressed. Other
    fields of `Scenario` change both questions. `out`: folder for the picture. Raises `BadInput`.
    """
    for name in ("tp", "pp"):
        if name in fields:
            raise BadInput("option", name, "this study tries all groupings")
    report, rows, notes = progress or (lambda phase, share: None), [], []
    for place, (one, card) in enumerate(((model, accelerator), (latent_model, latent_accelerator))):
        report(one, place / 2)
        problem = resolve(Scenario.of(model=one, accelerator=card, gpus=gpus, context=context, methods=methods, **fields))
        problem.require_known()
        mine = _rows(problem)
        rows += mine
        notes += _notes(problem, mine)
    notes += _reported()
    if out is not None:
        write_figure(figure(rows, f"{gpus} accelerators, {context} tokens of context, {methods or 'no compression'}"), out, "parallelism")
    return StudyResult(
        title=QUESTION, columns=COLUMNS, rows=tuple(rows), notes=tuple(notes), hidden=("tp", "pp", "replicas", "prefill only", "attention dp", "dcp")
    )


def _rows(problem: Problem) -> list[dict[str, Any]]:
    """The best of each grouping; groupings that do not hold the weights are left out, those that miss a target have no rate."""
    chosen, fixed = named(problem)
    weights, candidates = problem.checkpoints[0], deployments(problem)
    fitting = [one for one, left in zip(candidates, memory_left(problem, candidates, weights), strict=True) if left > 0]
    if not fitting:
        raise BadInput("gpus", problem.scenario.gpus, f"do not hold the weights of {problem.model.name} on {problem.accelerator.id}")
    points = _best([Choice(one, weights, chosen) for one in fitting], problem, fixed)
    rows = [_row(problem, point, row) for point, row in zip(points, _metrics(problem, points), strict=True)]
    return sorted(_apart(rows), key=lambda row: -(row["users per GPU"] or 0.0))


def _apart(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without expert-parallel groupings that give what their twin gives: a token that goes to as many experts as there are ranks is sent to all of them."""
    same = {(row["grouping"], row["users per GPU"], row["TTFT s"]) for row in rows}
    return [
        row for row in rows if (row["grouping"].replace(" EP", ""), row["users per GPU"], row["TTFT s"]) not in same or " EP" not in row["grouping"]
    ]


def _best(choices: Sequence[Choice], problem: Problem, fixed: dict[str, float]) -> list[Point]:
    """For every grouping the settings with the highest rate; where nothing meets the targets, those that come closest."""
    resident = RESIDENT if problem.keeps_idle_caches else (0.0,)
    prefixes = (0.0, float(problem.sessions.reuse_tokens[-1])) if problem.keeps_prefixes else (0.0,)
    tried = [(chunk, stay, prefix) for chunk in chunk_sizes(problem) for stay in resident for prefix in prefixes]
    settings = np.array([vector(problem, {**fixed, "chunk": float(chunk)}, stay, prefix) for chunk, stay, prefix in tried])
    at = np.repeat(np.arange(len(choices)), len(settings))
    x = np.tile(settings, (len(choices), 1))
    found = programs.measure(given(problem, ()), take(stacked(problem, choices), at), programs.repeat(problem.targets, len(at)), x)
    rate = np.where(np.any(found.broken > 0, axis=1), -np.inf, -found.logs[:, 0])  # of sessions; less is better on the log scale
    worst = np.maximum(found.broken, 0).sum(axis=1)
    groups: dict[Deployment, list[int]] = {}
    for row, choice in enumerate(at.tolist()):  # parked and recomputed are fates of one grouping
        groups.setdefault(dataclasses.replace(choices[choice].deployment, park=True), []).append(row)
    best = [max(rows, key=lambda row: (rate[row], -worst[row])) for rows in groups.values()]
    exact, states = assess(problem, [choices[at[row]] for row in best], found.x[best])
    return [Point(choices[at[row]], vector_, state) for row, vector_, state in zip(best, exact, states, strict=True)]


def _metrics(problem: Problem, points: Sequence[Point]) -> list[dict[str, Any]]:
    return metrics(problem, [point.choice for point in points], np.array([point.x for point in points]), [point.state for point in points])


def _row(problem: Problem, point: Point, found: dict[str, Any]) -> dict[str, Any]:
    d, sizes = point.choice.deployment, parts(problem, point)["sizes"]
    return {
        "model": problem.model.id,
        "grouping": d.label,
        "tp": d.tp,
        "pp": d.pp,
        "replicas": d.replicas,
        "prefill only": d.prefill_groups,
        "attention dp": d.attention_dp,
        "dcp": d.dcp,
        "users per GPU": found["users_per_gpu"] if point.feasible else None,
        "sessions per GPU-hour": found["sessions_per_gpu_hour"] if point.feasible else None,
        "copies of the cache": sizes["on_group"] / sizes["session"],
        "sessions in HBM": found["concurrency"],
        "TTFT s": found["ttft_s"],
        "TPOT ms": 1000 * found["tpot_s"],
        "chunk": point.x[FIELDS.index("chunk")],
        "binds": bottleneck(point.state, point.choice),
    }


def _notes(problem: Problem, rows: Sequence[dict[str, Any]]) -> list[str]:
    served = [row for row in rows if row["users per GPU"]]
    name = f"{problem.model.id} on {problem.scenario.gpus} x {problem.accelerator.id}"
    if not served:
        return [f"{name}: none of {len(rows)} groupings meets the targets"]
    best, last = served[0], served[-1]
    notes = [
        f"{name}: {best['grouping']} serves {best['users per GPU']:.3g} users per GPU, {best['users per GPU'] / last['users per GPU']:.1f} times what "
        f"{last['grouping']} serves; {len(rows) - len(served)} of {len(rows)} groupings that hold the weights miss a target"
    ]
    widest = max(rows, key=lambda row: (row["copies of the cache"], row["tp"]))
    if widest["copies of the cache"] > 1.01:
        least = max(rows, key=lambda row: row["sessions in HBM"])
        notes.append(
            f"{name}: {widest['grouping']} holds {widest['copies of the cache']:.3g} copies of every cache and {widest['sessions in HBM']:.0f} sessions, "
            f"{least['grouping']} {least['copies of the cache']:.3g} and {least['sessions in HBM']:.0f}"
        )
    return notes


def _reported() -> list[str]:
    """What kvopt says of a deployment that was logged with its latent copied and with attention data parallelism."""
    problem = resolve(Scenario.of(model="deepseek-v4-flash", accelerator="b200-sxm", gpus=8, context="1M", ttft="1h", tpot="10s"))
    wanted = {"TP8": Deployment(8), "attention DP8": Deployment(8, attention_dp=8)}
    choices = [Choice(one, problem.checkpoints[0], MethodChoice()) for one in wanted.values()]
    x, states = assess(problem, choices, np.array([vector(problem, {"chunk": REPORTED_CHUNK})] * len(choices)), load=False)
    held = [row["concurrency"] for row in metrics(problem, choices, x, states)]
    said = [f"{name}: {count:.0f} requests here, {REPORTED[name]:g} reported" for name, count in zip(wanted, held, strict=True)]
    return [f"a check, DeepSeek-V4-Flash on 8 B200 at 1,048,576 tokens (vllm#51454): {'; '.join(said)}"]
