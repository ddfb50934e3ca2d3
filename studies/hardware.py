"""The study `hardware`: every accelerator of the catalog for one model and one kind of session, per GPU, per dollar and per watt, and what binds each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import any_engine, catalog
from kvopt.errors import BadInput
from kvopt.infeasible import explain, least_gpus, weights_do_not_fit
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import bottleneck
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search.best import Point
from kvopt.search.lanes import make_choices
from kvopt.search.offers import offered
from kvopt.search.pipeline import Progress, space
from kvopt.search.shadow_prices import elasticities
from kvopt.search.solve import best_of, least_broken
from studies.hardware_plot import figure
from studies.result import StudyResult

QUESTION = "Which accelerator serves the most users of a model per GPU, per dollar and per watt, and which of its resources is worth most?"
RATE = "sessions_per_gpu_hour"
WORTH = {
    "hbm_bytes": "HBM size",
    "hbm_bandwidth": "HBM bandwidth",
    "flops": "FLOP/s",
    "scaleup_bandwidth": "link between GPUs",
    "host_bandwidth": "host link",
    "host_memory": "host memory",
}
"""Resources of an accelerator, by the names of `kvopt.search.moves.INPUTS`."""
COLUMNS = (
    "accelerator",
    "engine",
    "plan",
    "users per GPU",
    "users per USD/h",
    "users per kW",
    "sessions per GPU-hour",
    "USD per session",
    "TTFT s",
    "TPOT ms",
    "worth most",
    "binds",
    "uncompressed",
    "fewest GPUs",
    "speed from",
    "why not",
)


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    model: str = "llama-3.1-70b",
    context: str | int = "32k",
    gpus: int = 8,
    engine: str = "vllm",
    accelerators: Sequence[str] | None = None,
    **fields: Any,
) -> StudyResult:
    """One row per accelerator: the best plan that its engine can run today, `gpus` of them together, ordered by users per GPU.

    `accelerators`: ids or files, all of the catalog unless told. A card that `engine` does not run on takes the first engine that does. Other fields of
    `Scenario` change the question. `out`: folder for the picture. Raises `BadInput`.
    """
    if "accelerator" in fields:
        raise BadInput("option", "accelerator", "this study takes several: accelerators")
    names = catalog.ids("accelerators") if accelerators is None else list(accelerators)
    report, rows = progress or (lambda phase, share: None), []
    for place, name in enumerate(names):
        report(name, place / len(names))
        rows.append(_row(_asked(name, engine, {"model": model, "context": context, "gpus": gpus, **fields})))
    rows.sort(key=lambda row: (-(row["users per GPU"] or 0.0), row["accelerator"]))
    question = f"{model} on {gpus} of each, {context} tokens of context, {engine} where it runs"
    if out is not None and any(row["users per GPU"] for row in rows):
        write_figure(figure(rows, question), out, "hardware")
    hidden = ("speed from", "USD per session", "binds", "TTFT s", "TPOT ms")
    return StudyResult(title=QUESTION, columns=COLUMNS, rows=tuple(rows), notes=(question, *_notes(rows)), footnotes="why not", hidden=hidden)


def _asked(accelerator: str, engine: str, fields: dict[str, Any]) -> Problem:
    """The question on one card, with the engine asked for or, where that does not run there, the first that does."""
    try:
        return resolve(Scenario.of(**fields, accelerator=accelerator, engine=engine))
    except BadInput as error:
        if error.field != "engine" or "runs on" not in error.allowed:
            raise
        return any_engine.able(resolve(Scenario.of(**fields, accelerator=accelerator, engine="any")))[0]


def _row(problem: Problem) -> dict[str, Any]:
    problem.require_known()
    candidates = make_choices(problem, offered(problem))
    row: dict[str, Any] = {name: None for name in COLUMNS} | {"accelerator": problem.accelerator.id, "engine": problem.engine.id, "why not": ""}
    row["fewest GPUs"] = least_gpus(dataclasses.replace(problem, scenario=problem.scenario.model_copy(update={"gpus": 0})))  # more than none
    if not candidates:
        return row | {"why not": _short(weights_do_not_fit(problem))}
    point, _, _ = best_of(problem, space(problem, candidates), RATE)
    if point is None:
        return row | {"why not": _short(explain(problem, least_broken(problem, candidates)))}
    bare, _, _ = best_of(problem, space(problem, [one for one in candidates if not one.methods.methods]), RATE)
    return row | _served(problem, point) | {"uncompressed": float(bare.state.values["users_per_gpu"]) if bare else 0.0}


def _short(why: dict[str, Any]) -> str:
    return f"{why['reason'].partition('; per GPU')[0]}: {why['change']}"


def _served(problem: Problem, point: Point) -> dict[str, Any]:
    card, values = problem.accelerator, {name: float(value) for name, value in point.state.values.items()}
    users = values["users_per_gpu"]
    return {
        "plan": point.choice.label,
        "users per GPU": users,
        "users per USD/h": users / card.usd_per_h.value if card.usd_per_h else None,
        "users per kW": 1000 * users / card.tdp_w.value if card.tdp_w else None,
        "sessions per GPU-hour": values[RATE],
        "USD per session": values["cost_per_session_usd"] if card.usd_per_h else None,
        "TTFT s": values["ttft_s"],
        "TPOT ms": 1000 * values["tpot_s"],
        "worth most": _worth_most(problem, point),
        "binds": bottleneck(point.state, point.choice),
        "speed from": problem.profile.evidence if problem.profile else "peak",
    }


def _worth_most(problem: Problem, point: Point) -> str | None:
    """The resource of which one percent more gives the most sessions; none where nothing is known of any."""
    found = elasticities(problem, point)
    more = {name: _upper(found[name]) for name in WORTH if name in found}
    known = {name: value for name, value in more.items() if value is not None}
    best = max(known, key=lambda name: known[name], default=None)
    return WORTH[best] if best is not None and known[best] > 0.01 else None


def _upper(sides: dict[str, Any]) -> float | None:
    """What one percent more is worth; the middle of both ends where the derivative and a whole step do not agree."""
    ends = sides.get("right_interval")
    value: float | None = (ends[0] + ends[1]) / 2 if ends else sides.get("right")
    return value


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    served = [row for row in rows if row["users per GPU"]]
    notes = []
    for column in ("users per GPU", "users per USD/h", "users per kW"):
        known = sorted((row for row in served if row[column]), key=lambda row: -row[column])[:3]
        if known:
            named = [f"{row['accelerator']} {row[column]:.3g}" for row in known]
            notes.append(f"{column}: {', '.join(named)}")
    for what in ("users per USD/h", "users per kW"):
        unknown = [row["accelerator"] for row in served if row[what] is None]
        if unknown:
            notes.append(f"no {'price' if 'USD' in what else 'power'} is known of {', '.join(unknown)}")
    worth = [row["worth most"] for row in served if row["worth most"]]
    if worth:
        counted = sorted({name: worth.count(name) for name in worth}.items(), key=lambda entry: -entry[1])
        notes.append(f"worth most: {', '.join(f'{name} on {count}' for name, count in counted)} of {len(served)} cards that serve the session")
    more = [row["users per GPU"] / row["uncompressed"] for row in served if row["uncompressed"]]
    if more:
        notes.append(
            f"compression that the engine runs today serves {np.median(more):.2f} times the users of none in the median (column uncompressed: users per GPU)"
        )
    notes.append("prices are of several kinds (on demand, rented for years) and sellers: kvopt catalog accelerators ID; host memory is often assumed")
    guessed = [row["accelerator"] for row in served if row["speed from"] == "none"]
    if guessed:
        notes.append(f"{len(guessed)} of the {len(served)} were never measured on their own: their speed follows their class, with a wider spread")
    if len(served) < len(rows):
        notes.append(f"{len(rows) - len(served)} of {len(rows)} cards do not serve it: the table says why, with the least change that would help")
    return notes
