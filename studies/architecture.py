"""The study `architecture`: one size of model under ten kinds of attention, from 4K to 1M tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import describe
from kvopt.errors import BadInput, unknown
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.quantities import parse_lengths
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.named import RESIDENT
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.results import write_files
from kvopt.search.best import Point
from kvopt.search.deployments import deployments
from kvopt.search.lanes import Choice, memory_left
from kvopt.search.solve import vector
from kvopt.wording import dollars, grouping, number
from studies.architecture_models import Architecture, architectures, read_trunk
from studies.architecture_plot import figure
from studies.result import StudyResult

QUESTION = "At one size of model, what does the kind of attention do to users and to the cost of a session, from 4K to 1M?"
CONTEXTS = ("4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1m")
FIXED = ("model", "context", "methods", "head_scores", "per")  # fields of a scenario that this study sets itself
USUAL = "GQA"  # what the others are compared with
ALIKE = 2.0  # times its cost at the shortest context, up to which a longer one is called as cheap

Row = dict[str, Any]


def run(
    out: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    trunk: str = "llama-3.1-8b",
    attention: str | Sequence[str] | None = None,
    contexts: str | int | Sequence[str | int] = CONTEXTS,
    accelerator: str = "h200-sxm",
    gpus: int = 8,
    **fields: Any,
) -> StudyResult:
    """One row per architecture and context: the uncompressed cache under the grouping and the fate of idle caches that serve most, targets kept.

    `trunk`: a dense model of the catalog, whose hidden size, layers, query heads and parameters all architectures have. `attention`: some of their names, all
    unless given. `contexts`: a list, or text as `4k,128k`. Other fields are those of `Scenario`. `out`: folder for the picture and the config.json of each.
    Raises `BadInput`.
    """
    for name in FIXED:
        if fields.get(name) is not None:
            raise BadInput("option", name, "this study sets it: give trunk, attention and contexts")
    lengths = _lengths(contexts)
    model = read_trunk(trunk)
    chosen = _chosen(architectures(model), attention)
    report = progress or (lambda phase, share: None)
    problems = [resolve(Scenario.of(model=trunk, accelerator=accelerator, gpus=gpus, context=length, **fields)) for length in lengths]
    rows: list[Row] = []
    for place, one in enumerate(chosen):
        report(one.name, place / len(chosen))
        rows += [_row(one, replace(problem, model=one.model), length) for problem, length in zip(problems, lengths, strict=True)]
    _compare(rows)
    if out is not None:
        for one in chosen:
            _write(out, one)
        write_figure(figure(rows, f"{model.name.partition('/')[2] or model.name}'s size, {gpus} x {accelerator}"), out, "architecture")
    return StudyResult(
        QUESTION,
        tuple(rows[0]),
        tuple(rows),
        _notes(chosen, rows, problems[0]),
        hidden=("prefill s", "grouping", "parameters"),
        shown=_shown(rows, lengths),
    )


def _lengths(contexts: str | int | Sequence[str | int]) -> list[int]:
    found = parse_lengths(contexts, "contexts")
    if not found:
        raise BadInput("contexts", "none", "needs one length or more")
    return found


def _chosen(known: Sequence[Architecture], attention: str | Sequence[str] | None) -> list[Architecture]:
    if attention is None:
        return list(known)
    listed = [name.strip() for name in (attention.split(",") if isinstance(attention, str) else attention)]
    names = {one.name: one for one in known}
    for name in listed:
        if name not in names:
            raise unknown("attention", name, names)
    if not listed:
        raise BadInput("attention", "none", "needs one architecture or more")
    return [one for one in known if one.name in listed]


def best(problem: Problem) -> Point | None:
    """The uncompressed plan without separate prefill that serves most over every grouping and share of resident idle caches; none where weights do not fit.

    Where nothing is feasible, the one that comes closest.
    """
    groups = [one for one in deployments(problem) if one.pp == (problem.scenario.pp or 1) and not one.prefill_groups]
    weights = problem.checkpoints[0]
    groups = [one for one, left in zip(groups, memory_left(problem, groups, weights), strict=True) if left > 0] if groups else []
    if not groups:
        return None
    shares = np.linspace(0, 1, RESIDENT) if problem.keeps_idle_caches else [0.0]
    tried = [(Choice(one, weights, MethodChoice()), vector(problem, {}, share)) for one in groups for share in shares]
    x, states = assess(problem, [choice for choice, _ in tried], np.array([settings for _, settings in tried]))
    points = [Point(choice, settings, state) for (choice, _), settings, state in zip(tried, x, states, strict=True)]
    feasible = [point for point in points if point.feasible]
    if feasible:
        return max(feasible, key=lambda point: float(point.state.values["sessions_per_gpu_hour"]))
    return min(points, key=lambda point: float(np.nanmax(np.asarray(point.state.broken))))


def _row(one: Architecture, problem: Problem, length: int) -> Row:
    point = best(problem)
    found = describe.describe(problem, point) if point is not None else None
    metrics: Mapping[str, Any] = found["metrics"] if found else {}
    serves = bool(point is not None and point.feasible)
    return {
        "attention": one.name,
        "context": length,
        "KiB per next token": metrics["kv_bytes_per_token"] / 2**10 if metrics else None,
        "KV GiB/session": metrics["kv_bytes_per_session"] / 2**30 if metrics else None,
        "users/GPU": metrics["users_per_gpu"] if serves else 0.0,
        "sessions/GPU-hour": metrics["sessions_per_gpu_hour"] if serves else 0.0,
        "USD/session": metrics["cost_per_session_usd"] if serves else None,
        "prefill s": metrics.get("prefill_s"),
        "grouping": grouping(found["plan"]) if found else "",
        "binds": found["bottleneck"].partition(";")[0] if found else "infeasible: the weights do not fit",
        "parameters": one.model.parameters.total,
    }


def _compare(rows: Sequence[Row]) -> None:
    """Adds to each row its GPU-hours per session over those of the same architecture's shortest context, and its sessions over those of the usual one."""
    for row in rows:
        first = next(other for other in rows if other["attention"] == row["attention"])
        usual = next((other for other in rows if other["attention"] == USUAL and other["context"] == row["context"]), None)
        row["times its shortest"] = _ratio(first["sessions/GPU-hour"], row["sessions/GPU-hour"])
        row[f"times {USUAL}"] = _ratio(row["sessions/GPU-hour"], usual["sessions/GPU-hour"]) if usual else None


def _ratio(value: float, base: float) -> float | None:
    return value / base if value and base else None


def _write(out: Path, one: Architecture) -> None:
    folder = out / "models" / one.name.replace(" ", "-").replace("+-", "").replace(":", "-").lower()
    write_files(folder, {"config.json": json.dumps(one.config, indent=2) + "\n"})


def _shown(rows: Sequence[Row], lengths: Sequence[int]) -> tuple[int, ...] | None:
    """The shortest, middle and longest context where there are more than four."""
    if len(lengths) <= 4:
        return None
    kept = {lengths[0], lengths[len(lengths) // 2], lengths[-1]}
    return tuple(place for place, row in enumerate(rows) if row["context"] in kept)


def _notes(chosen: Sequence[Architecture], rows: Sequence[Row], problem: Problem) -> tuple[str, ...]:
    by = {one.name: [row for row in rows if row["attention"] == one.name] for one in chosen}
    short, long = (rows[place]["context"] for place in (0, -1))
    sizes = [row["parameters"] for row in rows]
    spread = 100 * (max(sizes) / min(sizes) - 1)
    said = [
        f"all have the trunk's hidden size, layers and query heads and, through the feed-forward width, its {number(sizes[0] / 1e9)} B parameters (within "
        f"{number(spread)} %); what a kind of attention does to quality is not part of the question",
        f"targets at {short:,} tokens: {number(float(problem.targets.ttft_s))} s to the first token, {number(1000 * float(problem.targets.tpot_s))} ms per "
        "output token; the first grows with the prompt as the workload says, so that long prompts may wait longer",
        *(f"{one.name}: {one.about}" for one in chosen),
    ]
    if long > short:
        said += [*_long(by, short, long), *_prefill(by, long)]
    return tuple(said)


def _long(by: Mapping[str, Sequence[Row]], short: int, long: int) -> list[str]:
    """How the longest context compares with the shortest, best first."""
    found = {name: mine[-1] for name, mine in by.items()}
    served = sorted((row for row in found.values() if row["users/GPU"]), key=lambda row: -row["users/GPU"])
    none = [name for name, row in found.items() if not row["users/GPU"]]
    ranked = "; ".join(f"{row['attention']} {number(row['users/GPU'])}" for row in served)
    said = [f"users per GPU at {long:,} tokens: {ranked or 'none'}" + (f"; nobody: {', '.join(none)}" if none else "")]
    times = {row["attention"]: row["times its shortest"] for row in served if row["times its shortest"]}
    if times:
        least, most = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
        cheap = [name for name, ratio in times.items() if ratio <= ALIKE]
        said.append(
            f"a session of {long:,} tokens costs {number(times[least])} ({least}) to {number(times[most])} ({most}) times one of {short:,} of the same "
            f"architecture, for {number(long / short)} times the tokens; as cheap (up to {ALIKE:g} times): {', '.join(cheap) or 'none'}"
        )
    return said


def _prefill(by: Mapping[str, Sequence[Row]], long: int) -> list[str]:
    """Which resource is left once the cache is small: the least and the largest cache at the longest context."""
    ends = [mine[-1] for mine in by.values() if mine[-1]["users/GPU"]]
    if len(ends) < 2:
        return []
    small, large = (pick(ends, key=lambda row: row["KV GiB/session"]) for pick in (min, max))
    said = []
    for row in (large, small):
        price = dollars(row["USD/session"]) if row["USD/session"] else "no price"
        said.append(
            f"{row['attention']} at {long:,} tokens: {number(row['KV GiB/session'])} GiB and {price} a session, prefill alone {number(row['prefill s'])} s; "
            f"binds: {row['binds']}"
        )
    return said
