"""The study `traffic`: real request traces replayed at several loads, who meets the targets, and what the caches of those who think cost."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import named
from kvopt.errors import BadInput, unknown
from kvopt.inputs.quantities import parse_duration
from kvopt.inputs.scenario import Scenario
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.results import table_text, write_files
from kvopt.simulation.figures import PERCENTILES
from kvopt.simulation.run import Setting
from kvopt.simulation.sessions import Session, replayed
from studies.evidence import TRACE_QUANTILES, TRACES
from studies.result import StudyResult
from studies.traffic_idle import break_even_s, costs, gaps
from studies.traffic_notes import notes
from studies.traffic_plot import figure
from studies.traffic_replay import FATES, PARK, Replay, Slo, full_rate, replay, settings

QUESTION = "Under real traffic, how many users does one GPU serve within targets, and what do the caches of those who think cost?"
LOADS = (5, 10, 20, 40, 70, 100, 120)
REQUESTS = 1000  # of a person's own trace
DEFAULT: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "chunk": "2K"}
SET = (
    "workload",
    "context",
    "turns",
    "answer",
    "followup",
    "think",
    "idle",
    "ttft",
    "tpot",
    "head_scores",
    "per",
)  # fields that a trace or the study has
Row = dict[str, Any]


@dataclass(frozen=True)
class Traffic:
    """One trace as it is replayed: its sessions, the quantiles of its gaps [%, s], and where it is from."""

    name: str
    sessions: tuple[Session, ...]
    gap_quantiles: tuple[np.ndarray, np.ndarray]
    source: str


def run(
    out: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    trace: str | None = None,
    requests: int = REQUESTS,
    traces: str | Sequence[str] = tuple(TRACES),
    loads: str | int | Sequence[str | int | float] = LOADS,
    fates: str | Sequence[str] = tuple(FATES),
    ttft: str | float = "1s",
    ttft_per_1k: str | float = "300ms",
    tpot: str | float = "100ms",
    **fields: Any,
) -> StudyResult:
    """One row per trace, fate of idle caches and load; loads in percent of the throughput with all requests queued at once.

    `traces`: of the committed samples of Azure's and Mooncake's; `trace`: a file of one's own in their place (Azure CSV, Mooncake JSONL, CSV as `kvopt
    simulate --trace` reads it), of which the sessions that begin first count, `requests` requests in all. `fates`: keep, park, drop. Targets are met request
    by request: `ttft` and `ttft_per_1k` more for every 1,000 tokens of prompt, `tpot` as a mean over the answer. Llama-3.1-8B on one H100 with 2,048 tokens a
    step unless fields of `Scenario` say otherwise (the engine's 8,192 make steps so long that the time per output token misses its target). `out`: folder for
    the picture and `idle.csv`. Raises `BadInput`.
    """
    for name in SET:
        if fields.get(name) is not None:
            raise BadInput("option", name, "the traces say it, or the study: give trace or traces, loads, fates, ttft, ttft_per_1k and tpot")
    slo = Slo(parse_duration(ttft, "ttft"), parse_duration(ttft_per_1k, "ttft_per_1k", zero=True), parse_duration(tpot, "tpot"))
    shares, asked = _loads(loads), _known("fates", fates, FATES)
    report = progress or (lambda phase, share: None)
    if requests < 2:
        raise BadInput("requests", requests, "must be 2 or more")
    played = [own(Path(trace), requests)] if trace is not None else [sample(name) for name in _known("traces", traces, TRACES)]
    problem = resolve(Scenario.of(**{**DEFAULT, **fields}))
    problem.require_known()
    named.require_room(problem)
    rows: list[Row] = []
    idle: list[Row] = []
    full: dict[str, float] = {}
    for place, traffic in enumerate(played):
        report(traffic.name, place / len(played))
        found = {fate: setting for fate, setting in settings(problem, traffic.sessions).items() if fate in asked}
        if not found:
            raise BadInput("fates", ", ".join(asked), f"{problem.engine.id} has none of them on {problem.accelerator.id}")
        best = found.get(PARK) or next(iter(found.values()))
        rate = full_rate(best, traffic.sessions, problem.scenario.seed)
        full[traffic.name] = rate * best.groups_per_gpu
        rows += [
            _row(traffic.name, fate, load, replay(setting, traffic.sessions, rate * load / 100, slo, problem.scenario.seed))
            for fate, setting in found.items()
            for load in (shares if rate > 0 else ())
        ]
        idle += _idle(problem, traffic, best)
    if out is not None:
        write_files(out, {"idle.csv": table_text(idle or [{"trace": None}])})
        write_figure(figure(rows, idle, {one.name: one.gap_quantiles for one in played}, full, _titled(problem)), out, "traffic")
    told = notes(problem, slo, rows, idle, [(one.name, len(one.sessions), sum(len(s.turns) for s in one.sessions), one.source) for one in played])
    hidden = tuple(column for column in (rows[0] if rows else ()) if " p90" in column or " p99" in column)
    shown = tuple(place for place, row in enumerate(rows) if row["idle"] == _shown(rows, row["trace"]) or row["load %"] == 100)
    return StudyResult(QUESTION, tuple(rows[0]) if rows else (), tuple(rows), told, hidden=hidden, shown=shown)


def _shown(rows: Sequence[Row], trace: str) -> str:
    """The fate whose loads are all printed: parking, where there is one."""
    of = [row["idle"] for row in rows if row["trace"] == trace]
    return PARK if PARK in of else str(of[0])


def _known(field: str, given: str | Sequence[str], known: Mapping[str, Any]) -> list[str]:
    listed = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
    for name in listed:
        if name not in known:
            raise unknown(field, name, known)
    if not listed:
        raise BadInput(field, "none", f"needs one or more of {', '.join(known)}")
    return [name for name in known if name in listed]


def _loads(loads: str | int | Sequence[str | int | float]) -> list[float]:
    listed = loads.split(",") if isinstance(loads, str) else [loads] if isinstance(loads, int | float) else loads
    try:
        found = sorted({float(load) for load in listed})
    except ValueError:
        found = []
    if not found or not all(0 < load <= 1000 for load in found):
        raise BadInput("loads", loads, "must be percents above 0 and at most 1,000, as 20,60,100")
    return found


def sample(name: str) -> Traffic:
    """A committed sample, with the quantiles of the whole trace's gaps."""
    with TRACE_QUANTILES.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["trace"] == name]
    gap = next((row for row in rows if row["quantity"] == "gap_s"), None)
    points = [(float(column[1:]), float(gap[column])) for column in gap if column.startswith("p")] if gap else []
    percent, seconds = np.array(points, float).reshape(-1, 2).T
    return Traffic(name, tuple(replayed(TRACES[name])), (percent, seconds), rows[0]["source"])


def own(path: Path, most: int) -> Traffic:
    """A person's own trace: the sessions that begin first and hold so many requests together, or the first alone where it holds more."""
    found: list[Session] = []
    for session in replayed(path):
        if found and sum(len(one.turns) for one in found) + len(session.turns) > most:
            break
        found.append(session)
    if len({session.turns[0].arrival_s for session in found}) < 2:
        raise BadInput("trace", path, "must have sessions that begin at two times or more")
    seconds = np.sort([gap.seconds for gap in gaps(found)])
    return Traffic(path.stem, tuple(found), (np.linspace(0, 100, len(seconds)), seconds), str(path.name))


def _row(name: str, fate: str, load: float, found: Replay) -> Row:
    row: Row = {"trace": name, "idle": fate, "load %": load, "requests/s": found.requests_per_s, "users": found.users}
    row["attained %"] = 100 * found.attained
    row |= {f"TTFT p{p} s": value for p, value in zip(PERCENTILES, found.ttft_s, strict=True)}
    return row | {f"TPOT p{p} ms": 1000 * value for p, value in zip(PERCENTILES, found.tpot_s, strict=True)}


def _idle(problem: Problem, traffic: Traffic, setting: Setting) -> list[Row]:
    """One row on the idle caches of a trace; none where nobody comes back. Sums are per session that comes back."""
    found = list(gaps(traffic.sessions))
    if not found:
        return []
    parks = setting.limits.parks
    each = costs(setting, found, parks)
    back = len({session.number for session in traffic.sessions if len(session.turns) > 1})
    seconds = np.array([gap.seconds for gap in found])
    context = int(np.median([gap.context for gap in found]))
    even = break_even_s(setting, context, parks)
    price = float(problem.device(problem.checkpoints[0]).price_per_hour) / 3600 / setting.groups_per_gpu
    row: Row = {
        "trace": traffic.name,
        "gaps": len(found),
        "gap p50 s": float(np.median(seconds)),
        "gap p90 s": float(np.percentile(seconds, 90)),
        "context p50": context,
        "GB.s/session": float(each.byte_s.sum()) / 1e9 / back,
        "GB of cache per session/s": float(each.byte_s.sum()) / 1e9 / len(traffic.sessions),
        "sessions per request": len(traffic.sessions) / sum(len(session.turns) for session in traffic.sessions),
        "pool GB": setting.pool / 1e9 * setting.groups_per_gpu,
        "park after s": even.get("park"),
        "recompute after s": even["recompute"],
        "gaps below recompute %": 100 * float(np.mean(seconds < even["recompute"])),
    }
    for fate, spent in (("keep", each.keep), ("park", each.park), ("recompute", each.recompute), ("least", each.least)):
        total = None if spent is None else float(spent.sum()) / back
        row[f"{fate} GPU s/session"] = None if total is None else total / setting.groups_per_gpu
        row[f"{fate} USD/session"] = None if total is None or not np.isfinite(price) else total * price
    return [row]


def _titled(problem: Problem) -> str:
    return f"{problem.model.id}, {problem.scenario.gpus} x {problem.accelerator.id}, {problem.engine.id}"
