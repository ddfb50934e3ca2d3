"""The study `sweep`: the same question on every combination of models, accelerators and workloads, on one machine or many, resumed where it was killed.

Every cell is one scenario, answered for itself and kept in a file of its own. What is written at the end depends on the answers alone, not on how often the
run was broken off or on how many processes shared it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvopt.errors import BadInput
from kvopt.plots import write_figure
from kvopt.results import table_text, writable, write_atomically
from kvopt.scale.cells import BAD, FEASIBLE, Cell, cells, solve
from kvopt.scale.checkpoint import Answer, answers, digest, sweep_up, write_whole
from kvopt.scale.hosts import ALONE, Hosts, agree
from studies.result import StudyResult
from studies.sweep_plot import figure

QUESTION = "What is the best plan, or the front, on every combination of models, accelerators and workloads?"
RESUMES = "cells"  # where a folder has this one, the run before is gone on with, not moved away
LISTS = {"models": "model", "accelerators": "accelerator", "workloads": "workload", "contexts": "context"}
OPTION = {"optimize": "objective", "pareto": "objectives"}  # of which verb
SHOWN = ("sessions_per_gpu_hour", "users_per_gpu", "accuracy_retained", "accuracy_lower", "ttft_s", "tpot_s", "cost_per_session_usd")
PRINTED = ("status", "methods", "sessions_per_gpu_hour", "users_per_gpu", "accuracy_retained", "gain_over_baseline", "reason")


@dataclass(frozen=True)
class Sweep(StudyResult):
    """The table, and the points of all fronts where there are any."""

    points: tuple[dict[str, Any], ...] = ()
    named: tuple[str, ...] = ()  # the columns that tell the cells apart

    def save(self, folder: Path | str) -> None:
        """Writes the picture, `points.csv` where there are fronts, `result.json` and `table.csv`, each whole or not at all."""
        for name in ("sweep.png", "sweep.svg", "points.csv", "table.csv", "result.json"):
            sweep_up(writable(folder) / name)
        write_figure(figure(self.rows, self.named), folder, "sweep")
        if self.points:
            write_atomically(Path(folder) / "points.csv", table_text(self.points))
        super().save(folder)


def run(
    verb: str = "optimize",
    objective: str | None = None,
    objectives: Sequence[str] | None = None,
    seed: int = 0,
    out: Path | None = None,
    hosts: Hosts = ALONE,
    **fields: Any,
) -> Sweep:
    """A row for each cell. Fields of `Scenario`, any of them as a list of values that are swept; lists may be named in the plural, as in `models`.

    `verb`: analyze, optimize or pareto, with its objective or objectives. `seed`: each cell's own follows from it and from its scenario. `out`: the folder
    where the cells' answers are kept, and found again. `hosts`: the processes that share the cells. What cannot be met or read is a row with its reason.
    Raises `BadInput` for options that are not known, and where no cell at all can be read.
    """
    if hosts.count > 1 and out is None:
        raise BadInput("out", "(none)", "a sweep over several processes needs a folder that all of them see")
    swept = cells(_fields(fields), verb, _options(verb, {"objective": objective, "objectives": objectives}), seed)
    agree(hosts, digest([cell.key for cell in swept]))
    found = answers(swept, _timed(out), None if out is None else out / RESUMES, hosts, _teller(len(swept)))
    if all(answer["status"] == BAD for answer in found):
        raise BadInput("sweep", f"{len(found)} cells", f"none can be read; the first: {found[0]['reason']}")
    rows = tuple(_row(cell, answer) for cell, answer in zip(swept, found, strict=True))
    points = tuple(point for cell, answer in zip(swept, found, strict=True) for point in _points(cell, answer))
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    shown = {*(name for name in swept[0].at if len({str(row[name]) for row in rows}) > 1), *PRINTED}
    return Sweep(
        title=QUESTION,
        columns=columns,
        rows=rows,
        notes=_notes(found),
        footnotes="reason",
        hidden=tuple(column for column in columns if column not in shown),
        points=points,
        named=tuple(name for name in swept[0].at if len({str(row[name]) for row in rows}) > 1),
    )


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario's fields, those named in the plural by their own names. Raises `BadInput` for one that is given both ways."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        field = LISTS.get(name, name)
        if field in found:
            raise BadInput(name, value, f"is given twice, as {field} and in the plural")
        found[field] = value if name == field or isinstance(value, list | tuple) else [value]
    return found


def _options(verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The verb's own options among those given."""
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        if OPTION.get(verb) != name:
            raise BadInput(name, value, f"is not an option of {verb}")
    return {name: value if isinstance(value, str) else list(value) for name, value in found.items()}


def _timed(out: Path | None) -> Callable[[Cell], Answer]:
    """`solve` that leaves the seconds it took in a folder beside the answers."""

    def timed(cell: Cell) -> Answer:
        started = time.perf_counter()
        answer = solve(cell)
        if out is not None:
            write_whole(writable(out / "seconds") / f"{cell.name}.json", json.dumps({"seconds": time.perf_counter() - started}) + "\n")
        return answer

    return timed


def _teller(count: int) -> Callable[[int, Cell, bool], None]:
    def tell(place: int, cell: Cell, kept: bool) -> None:
        at = ", ".join(f"{name} {value}" for name, value in cell.at.items())
        print(f"kvopt: cell {place + 1} of {count}{': ' if at else ''}{at}{' (kept)' if kept else ''}", file=sys.stderr, flush=True)

    return tell


def _row(cell: Cell, answer: Answer) -> dict[str, Any]:
    """A cell as one row: where it is, whether it can be met, its best plan's figures, and why not."""
    row = {**cell.at, "status": answer["status"]}
    data = answer["result"] or {}
    best = data.get("answer") or data
    serves = answer["status"] == FEASIBLE
    metrics, baseline = best.get("metrics") or {}, best.get("baseline") or {}
    served, before = metrics.get("sessions_per_gpu_hour"), baseline.get("sessions_per_gpu_hour")
    plan = (best.get("plan") or {}) if serves else {}
    row["methods"] = ("+".join(plan.get("methods", [])) or "uncompressed") if plan else None
    row |= {name: plan.get(name) for name in ("tp", "pp", "replicas", "key_bits", "value_bits", "max_num_seqs")}
    row |= {name: metrics.get(name) if serves else None for name in SHOWN}
    row["gain_over_baseline"] = served / before if serves and served and before else None
    row["bottleneck"] = best.get("bottleneck") if serves else None
    if cell.verb == "pareto":
        row |= {"points": len(data.get("points") or []), "hypervolume": data.get("hypervolume")}
    return {**row, "reason": answer["reason"], "seed": cell.seed, "file": f"{RESUMES}/{cell.name}.json"}


def _points(cell: Cell, answer: Answer) -> list[dict[str, Any]]:
    """The points of a cell's front, each with where the cell is."""
    return [
        {**cell.at, "front": point.get("front"), "methods": "+".join(point["plan"]["methods"]) or "uncompressed", **point["metrics"]}
        for point in ((answer["result"] or {}).get("points") or [])
    ]


def _notes(found: Sequence[Answer]) -> tuple[str, ...]:
    counts = {status: sum(answer["status"] == status for answer in found) for status in dict.fromkeys(answer["status"] for answer in found)}
    warnings = list(dict.fromkeys(warning for answer in found for warning in answer["warnings"]))
    return (f"{len(found)} cells: " + ", ".join(f"{count} {status}" for status, count in counts.items()), *warnings)
