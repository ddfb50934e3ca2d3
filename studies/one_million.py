"""The study `one_million`: what it would take for a session of 1M tokens to cost what one of 4K does, metric by metric, and what remains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kvopt import named
from kvopt.errors import BadInput
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.quantities import parse_tokens
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import metrics
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search.best import Point
from kvopt.search.lanes import Choice, memory_left
from kvopt.search.pipeline import Progress
from kvopt.search.solve import vector
from studies import combinations
from studies.methods_rows import said, uppers
from studies.one_million_levers import Stage, after, in_turn, measured_costs, points_of, shares
from studies.one_million_meter import Meter
from studies.one_million_notes import notes
from studies.one_million_plot import figure
from studies.one_million_search import Answer, Goal, Levers, measured
from studies.result import StudyResult

QUESTION = "What makes a session of 1M tokens cost what one of 4K does, metric by metric, at what loss of accuracy, and what remains?"
GOALS: dict[str, tuple[int, ...]] = {"cache held": (0,), "decoding": (1,), "context switch": (2,), "all of the cache": (0, 1, 2), "prefill": (3,)}
"""The columns of `one_million_meter.METRICS` that each goal brings down. Decoding: the time for the cache; the weights are read at any context."""
ASKED = ("least loss", "measured ratios", "above the floor")
NO_TARGET = {"ttft": "30d", "tpot": "1h"}  # the question is what a context costs, not whether it is served in time


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    short: str | int = "4k",
    long: str | int = "1m",
    trained: bool = False,
    **fields: Any,
) -> StudyResult:
    """Rows for both contexts uncompressed and for every goal, for one scenario (eight A100s at `peak` fidelity unless told otherwise).

    For each goal: the combination that loses least at the confidence asked for and brings the metrics to those of `short`, or as near as any does; the same
    with ratios that were measured alone; and the one that comes nearest above the accuracy floor. `trained`: also methods that need a trained checkpoint.
    Fields of `Scenario` change the question. `out`: folder for the picture. Raises `BadInput`.
    """
    if "context" in fields:
        raise BadInput("option", "context", "this study takes two: short and long")
    few, many = parse_tokens(short, "short"), parse_tokens(long, "long")
    if few >= many:
        raise BadInput("short", short, f"must be shorter than long, {long}")
    asked = {"gpus": 8, "fidelity": "peak", **NO_TARGET, **fields}
    before, problem = (resolve(Scenario.of(**{**asked, "context": tokens})) for tokens in (few, many))
    problem.require_known()
    if problem.scenario.head_scores is not None:
        raise BadInput("head_scores", problem.scenario.head_scores, "analyze and simulate take it; no search does yet")
    deployment = named.groupings(problem)[0]
    bare = (Choice(deployment, problem.checkpoints[0], MethodChoice()), vector(problem, {}))
    if memory_left(problem, [deployment], problem.checkpoints[0])[0] <= 0:
        told = f"the weights of {problem.model.id} do not fit on {problem.scenario.gpus} x {problem.accelerator.id}"
        return StudyResult(QUESTION, (), (), (told,), ok=False)
    target = Meter(before, [bare[0]], before.context).costs(np.zeros(1, int), bare[1][None]).metrics[0]
    levers = Levers(problem, combinations.singles(problem, trained), deployment, problem.context, target)
    questions = {(name, asked_for): goal for name in GOALS for asked_for, goal in goals(problem, GOALS[name]).items()}
    answers = {}
    for place, (question, goal) in enumerate(questions.items()):
        if progress is not None:
            progress(": ".join(question), place / len(questions))
        answers[question] = levers.search(goal)
    first = _row(before, points_of(before, [bare])[0], f"{few:,} tokens", "uncompressed")
    rows = [first, *_rows(problem, bare, answers, levers)]
    stages, new = staged(before, problem, bare, answers[("all of the cache", ASKED[0])], few, many)
    if out is not None:
        write_figure(figure(stages, problem.scenario), out, "one_million")
    return StudyResult(
        title=QUESTION,
        columns=tuple(rows[-1]),
        rows=tuple(rows),
        notes=(*notes(problem, levers, answers, stages, new), *problem.warnings),
        hidden=("upper %", "cut by", "searched", "ids"),
    )


def goals(problem: Problem, columns: tuple[int, ...]) -> dict[str, Goal]:
    """What is asked of some metrics, by the names in `ASKED`."""
    budget = -float(np.log(problem.scenario.accuracy_floor))
    return dict(zip(ASKED, (Goal(columns), Goal(columns, measured_only=True), Goal(columns, budget)), strict=True))


def _rows(problem: Problem, bare: tuple[Choice, np.ndarray], answers: dict[tuple[str, str], Answer], levers: Levers) -> list[dict[str, Any]]:
    points = points_of(problem, [bare, *((answer.choice, answer.x) for answer in answers.values())])
    ends = uppers(problem, points)
    rows = [_row(problem, points[0], f"{problem.context:,.0f} tokens", "uncompressed")]
    rows[0]["x short"] = float(np.max(levers.base / levers.target))
    for (name, asked), answer, point, upper in zip(answers, answers.values(), points[1:], ends[1:], strict=True):
        columns = list(GOALS[name])
        row = _row(problem, point, name, asked) | {"upper %": 100 * upper}
        row["x short"] = float(answer.remains[columns].max())
        turn = shares(in_turn(problem, answer.choice, answer.x), [column for column in columns if column != 1] or [1])
        row["cut by"] = ", ".join(f"{label.split(' ')[0]} {100 * share:.0f} %" for label, share in turn)
        row["ratios"] = "measured" if measured(problem, answer.choice, answer.x) else "beyond"
        row["searched"] = f"{answer.searched} of {answer.possible}"
        rows.append(row)
    return rows


def _row(problem: Problem, point: Point, goal: str, asked: str) -> dict[str, Any]:
    found = metrics(problem, [point.choice], point.x[None], [point.state])[0]
    return {
        "goal": goal,
        "asked": asked,
        "methods": said(point) or "none",
        "KV GiB": found["kv_bytes_per_session"] / 2**30,
        "users in HBM": found["concurrency"],
        "decode ms": 1e3 * found["decode_s_per_token"],
        "switch s": found["context_switch_s"],
        "prefill s": found["prefill_s"],
        "x short": None,
        "kept %": 100 * found["accuracy_retained"],
        "lower %": 100 * found["accuracy_lower"],
        "upper %": 100.0,
        "cut by": "",
        "ratios": "",
        "searched": "",
        "ids": ",".join(method.id for method in point.choice.methods.methods),
    }


def staged(
    before: Problem, problem: Problem, bare: tuple[Choice, np.ndarray], answer: Answer, few: int, many: int
) -> tuple[list[Stage], float | None]:
    """The bars: both contexts uncompressed, the levers of the cache one after another, then those of prefill; and the tokens that may be new."""
    short = Stage(f"{few:,} tokens", measured_costs(before, points_of(before, [bare]))[0])
    turn = in_turn(problem, answer.choice, answer.x)
    last, new = after(problem, answer.choice, answer.x, float(short.costs[3]))
    levers = [Stage(f"+ {stage.label}", stage.costs) for stage in (*turn[1:], *last)]
    return [short, Stage(f"{many:,} tokens", turn[0].costs), *levers], new
