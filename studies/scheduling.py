"""The study `scheduling`: what chunk size, load and the fate of idle caches do to TTFT and TPOT, and when parking a cache beats computing it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import named
from kvopt.errors import BadInput
from kvopt.explanation.parts import parts
from kvopt.inputs.quantities import parse_lengths
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search.best import Point
from kvopt.search.deployments import fates
from kvopt.search.evaluate import State
from kvopt.search.lanes import BATCH, FIELDS, chunk_sizes, max_sequences, sequence_cap
from kvopt.search.pipeline import Progress
from kvopt.wording import number
from objectives.limits import NAMES
from studies.result import StudyResult
from studies.scheduling_plot import figure

QUESTION = (
    "Which chunk size, load and fate of idle caches hold TTFT and TPOT, and from which context on is parking a cache better than computing it again?"
)
LOADS = (0.25, 0.5, 0.75, 0.95)  # of the sessions that the plan carries within its targets
COMMON = 0.5  # the load at which fates of idle caches are compared
POINTS = 32  # numbers of decodes in flight between which the load is interpolated
LIGHT, FATES_MOST = 0.03, 12.0  # of the plan's decodes in flight: the lightest load, and the heaviest that another fate of idle caches is tried at
CONTEXTS = ("8k", "16k", "32k", "64k", "128k")
CHUNK, RESIDENT = FIELDS.index("chunk"), FIELDS.index("idle_resident")
MEMORY = [NAMES.index(name) for name in ("hbm", "hbm_peak", "host_memory", "host_link")]
COLUMNS = (
    "what",
    "context",
    "chunk",
    "load %",
    "idle caches",
    "sessions per GPU-hour",
    "decodes in flight",
    "max-num-seqs",
    "TTFT s",
    "later TTFT s",
    "TPOT ms",
    "longest step ms",
    "holds",
    "fetch s",
    "recompute s",
    "break-even GB/s",
)
HIDDEN = ("decodes in flight", "max-num-seqs", "later TTFT s")


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    model: str = "llama-3.1-8b",
    accelerator: str = "h100-sxm",
    gpus: int = 1,
    context: str | int = "32k",
    contexts: Sequence[str | int] = CONTEXTS,
    methods: str | None = "fp8",
    ttft: str | float | None = "6s",
    tpot: str | float | None = "25ms",
    **fields: Any,
) -> StudyResult:
    """Rows of three kinds: `chunk` (each size at several loads), `load` (from nearly none to the most, at the best chunk), `idle` (each fate at each context).

    The plan is that of `kvopt analyze`: its grouping and methods stay. `contexts`: of the `idle` rows, which have the
    workload's own targets. `out`: folder for the picture. Raises `BadInput`.
    """
    if "chunk" in fields or "idle" in fields:
        raise BadInput("option", "chunk" if "chunk" in fields else "idle", "this study tries several")
    report = progress or (lambda phase, share: None)
    asked = {"model": model, "accelerator": accelerator, "gpus": gpus, "methods": methods, **fields}
    problem = resolve(Scenario.of(**asked, context=context, ttft=ttft, tpot=tpot))
    problem.require_known()
    point = named.best_case(problem)
    if not point.feasible:
        raise BadInput("context", context, "the plan meets no targets at any load: kvopt analyze says why")
    report("chunk sizes", 0.1)
    rows = _chunks(problem, point)
    report("loads", 0.3)
    rows += _loads(problem, point, _best_chunk(rows))
    lengths = parse_lengths(contexts, "contexts")
    for place, length in enumerate(lengths):
        report(f"idle caches at {length:,} tokens", 0.4 + 0.6 * place / len(lengths))
        rows += _idle(resolve(Scenario.of(**asked, context=length)))
    question = f"{model} on {gpus} x {accelerator}, {methods or 'no compression'}"
    if out is not None:
        drawn = figure(rows, f"{question}, {context} tokens of context", _mean_limits(problem), f"{100 * problem.scenario.confidence:g} %")
        write_figure(drawn, out, "scheduling")
    notes = (
        f"{question}; targets at {context} tokens: TTFT {float(problem.targets.ttft_s):g} s, TPOT {1000 * float(problem.targets.tpot_s):g} ms",
        *_notes(rows),
    )
    return StudyResult(title=QUESTION, columns=COLUMNS, rows=tuple(rows), notes=notes, hidden=HIDDEN, shown=_shown(rows))


def _mean_limits(problem: Problem) -> tuple[float, float]:
    """TTFT [s] and TPOT [ms] in the mean at which the targets still hold with the confidence asked for."""
    targets, efficiency = problem.targets, problem.system().efficiency
    margins = [float(np.exp(targets.z * sd)) for sd in (efficiency.prefill_log_sd, efficiency.decode_log_sd)]
    return float(targets.ttft_s) / margins[0], 1000 * float(targets.tpot_s) / margins[1]


def _shown(rows: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """All rows but most of the load curve."""
    loads = [place for place, row in enumerate(rows) if row["what"] == "load"]
    return tuple(place for place, row in enumerate(rows) if row["what"] != "load" or loads.index(place) % 4 == 0)


def curve(problem: Problem, point: Point, chunk: float, most: float = 1.3, resident: float | None = None, park: bool | None = None) -> list[State]:
    """States from a light load to `most` times the point's, with another chunk, share of resident idle caches or fate of the others."""
    x = np.repeat(np.asarray(point.x, np.float64)[None], POINTS, axis=0)
    x[:, CHUNK], x[:, BATCH] = chunk, np.minimum(float(point.x[BATCH]) * np.geomspace(LIGHT, most, POINTS), sequence_cap(problem))
    if resident is not None:
        x[:, RESIDENT] = resident
    choice = point.choice
    if park is not None:
        choice = dataclasses.replace(choice, deployment=dataclasses.replace(choice.deployment, park=park))
    return assess(problem, [choice] * POINTS, x, load=False)[1]


def at_rate(states: Sequence[State], rate: float) -> dict[str, float]:
    """What a curve gives at so many sessions per GPU-hour, between its points: NaN beyond the most that memory and the host link carry."""
    carried = [state for state in states if np.all(np.asarray(state.broken)[MEMORY] <= 0)]
    rates = np.maximum.accumulate([float(state.values["sessions_per_gpu_hour"]) for state in carried]) if carried else np.zeros(1)
    columns = {
        "TTFT s": [float(state.values["ttft_s"]) for state in carried],
        "later TTFT s": [float(state.service.ttft_follow_up_s) for state in carried],
        "TPOT ms": [1000 * float(state.values["tpot_s"]) for state in carried],
        "decodes in flight": [float(state.service.batch) for state in carried],
        "worst": [float(np.max(np.asarray(state.broken)[:-1])) for state in carried],
    }
    if not carried or rate > rates[-1]:
        return dict.fromkeys(columns, float("nan"))
    return {name: float(np.interp(rate, rates, values)) for name, values in columns.items()}


def _row(what: str, problem: Problem, **values: Any) -> dict[str, Any]:
    worst = values.pop("worst", None)
    if worst is not None and np.isfinite(worst):
        values["holds"] = bool(worst <= 1e-6)
        values["max-num-seqs"] = int(min(float(max_sequences(values["decodes in flight"])), sequence_cap(problem)))
    return {**dict.fromkeys(COLUMNS), "what": what, "context": round(problem.context), **values}


def _chunks(problem: Problem, point: Point) -> list[dict[str, Any]]:
    most = float(point.state.values["sessions_per_gpu_hour"])
    rows = []
    for chunk in chunk_sizes(problem):
        states = curve(problem, point, float(chunk))
        step = 1000 * parts(problem, Point(point.choice, np.where(np.arange(len(FIELDS)) == CHUNK, chunk, point.x), point.state))["chunk"]["seconds"]
        for load in LOADS:
            told = {"load %": 100 * load, "sessions per GPU-hour": load * most, "longest step ms": step}
            rows.append(_row("chunk", problem, chunk=int(chunk), **told, **at_rate(states, load * most)))
    return rows


def _best_chunk(rows: Sequence[dict[str, Any]]) -> int:
    """The size that holds the targets at the highest load, and with the least TPOT there."""
    holding = [row for row in rows if row["holds"]] or list(rows)
    return int(max(holding, key=lambda row: (row["load %"], -(row["TPOT ms"] or np.inf)))["chunk"])


def _loads(problem: Problem, point: Point, chunk: int) -> list[dict[str, Any]]:
    rows = []
    for state in curve(problem, point, chunk):
        broken = np.asarray(state.broken)
        if np.any(broken[MEMORY] > 0):
            break
        values = {
            "sessions per GPU-hour": float(state.values["sessions_per_gpu_hour"]),
            "decodes in flight": float(state.service.batch),
            "TTFT s": float(state.values["ttft_s"]),
            "later TTFT s": float(state.service.ttft_follow_up_s),
            "TPOT ms": 1000 * float(state.values["tpot_s"]),
        }
        rows.append(_row("load", problem, chunk=chunk, worst=float(broken[:-1].max()), **values))
    return rows


def _idle(problem: Problem) -> list[dict[str, Any]]:
    """Each fate of idle caches: the most that it serves within the targets, its latencies at a common load, and what a return takes."""
    if not problem.keeps_idle_caches:
        raise BadInput("turns", problem.scenario.turns, "idle caches need sessions of several turns, on an engine that keeps caches between requests")
    point = named.best_case(problem)
    most, chunk = float(point.state.values["sessions_per_gpu_hour"]), float(point.x[CHUNK])
    ways = {"keep": (1.0, True), **({"park": (0.0, True)} if True in fates(problem) else {}), "recompute": (0.0, False)}
    found = parts(problem, point)
    ranks = point.choice.deployment.tp
    recompute_s, moved = sum(found["prefill"].values()), found["sizes"]["moved"]
    rows = []
    for name, (resident, park) in ways.items():
        states = curve(problem, point, chunk, FATES_MOST, resident, park)
        feasible = [float(state.values["sessions_per_gpu_hour"]) for state in states if np.all(np.asarray(state.broken)[:-1] <= 0)]
        served = max(feasible, default=0.0)
        at = at_rate(states, COMMON * most)
        back = {"fetch s": moved / found["link"] if name == "park" else None, "recompute s": recompute_s if name == "recompute" else None}
        even = {"break-even GB/s": moved / recompute_s / ranks / 1e9 if name == "park" else None}
        rows.append(
            _row(
                "idle",
                problem,
                chunk=int(chunk),
                **{"idle caches": name, "sessions per GPU-hour": served, "load %": 100 * COMMON},
                **at,
                **back,
                **even,
            )
        )
    return rows


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    chunks = [row for row in rows if row["what"] == "chunk" and row["TPOT ms"] is not None and np.isfinite(row["TPOT ms"])]
    notes = [
        "chunk and load rows are at a mean load; rows of idle caches serve the most within the targets, and have their latencies at half of the best load"
    ]
    middle = [row for row in chunks if row["load %"] == 100 * COMMON]
    if len(middle) > 1:
        small, large = min(middle, key=lambda row: row["chunk"]), max(middle, key=lambda row: row["chunk"])
        notes.append(
            f"at half load a chunk of {small['chunk']:,} has TTFT {small['TTFT s']:.3g} s and TPOT {small['TPOT ms']:.3g} ms, one of {large['chunk']:,} "
            f"{large['TTFT s']:.3g} s and {large['TPOT ms']:.3g} ms in the mean; but a decode beside a full chunk waits "
            f"{small['longest step ms']:.3g} ms for its token with the one and {large['longest step ms']:.3g} ms with the other"
        )
    idle = [row for row in rows if row["what"] == "idle"]
    for length in sorted({row["context"] for row in idle}):
        mine = {row["idle caches"]: row for row in idle if row["context"] == length}
        best = max(mine, key=lambda name: mine[name]["sessions per GPU-hour"])
        said = ", ".join(f"{name} {number(row['sessions per GPU-hour'])}" for name, row in mine.items())
        even = mine.get("park", {}).get("break-even GB/s")
        link = f"; fetching beats computing again above {even:.2g} GB/s of link per GPU" if even else ""
        notes.append(f"{length:,} tokens: {best} serves most ({said} sessions per GPU-hour){link}")
    return notes
