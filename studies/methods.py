"""The study `methods`: every compression method alone, every pair and every triple, ranked by the users that it serves above the accuracy floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvopt.errors import BadInput
from kvopt.inputs.method import DIMENSIONS, load
from kvopt.inputs.scenario import Scenario
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search.pipeline import Progress
from studies.methods_notes import notes
from studies.methods_plot import figure
from studies.methods_rows import table
from studies.methods_search import search
from studies.result import StudyResult

QUESTION = (
    "Which works combine into an end-to-end system: what does every method serve alone, in pairs and in triples, at its best ratio above the floor?"
)
TOP = 15  # rows printed, beside no compression and the best method of each dimension alone
HIDDEN = ("kind", "ids", "grouping", "upper %", "ceiling %", "evidence")  # of the printed table; the files have them


def run(out: Path | None = None, progress: Progress | None = None, trained: bool = False, **fields: Any) -> StudyResult:
    """One row per combination for one scenario (the paper's example unless told otherwise); fields of `Scenario` change it.

    `trained`: also methods that need a trained checkpoint. `out`: folder for the picture. Raises `BadInput`.
    """
    problem = _problem(Scenario.of(**fields))
    tried = search(problem, trained, progress)
    if tried is None:
        told = f"the weights of {problem.model.id} do not fit on {problem.scenario.gpus} x {problem.accelerator.id}"
        return StudyResult(QUESTION, (), (), (told,), ok=False)
    rows = table(problem, tried)
    if out is not None and rows:
        write_figure(figure(rows, problem.scenario), out, "methods")
    columns = tuple(rows[0]) if rows else ()
    return StudyResult(
        title=QUESTION,
        columns=columns,
        rows=tuple(rows),
        notes=(*notes(problem, tried, rows), *problem.warnings),
        ok=bool(rows),
        footnotes="binds",
        hidden=HIDDEN,
        shown=shown(rows),
    )


def _problem(scenario: Scenario) -> Problem:
    """The scenario resolved, where it is one that can be searched."""
    problem = resolve(scenario)
    problem.require_known()
    if scenario.head_scores is not None:
        raise BadInput("head_scores", scenario.head_scores, "analyze and simulate take it; no search does yet")
    return problem


def shown(rows: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """The places of the rows that are printed: the first `TOP`, no compression, and the best method of each dimension alone."""
    places = dict.fromkeys(range(min(TOP, len(rows))))
    of = {row["ids"]: load(row["ids"]).dimension if row["kind"] == "single" else None for row in rows if row["kind"] in ("none", "single")}
    for dimension in (*DIMENSIONS, None):
        first = next((place for place, row in enumerate(rows) if row["ids"] in of and of[row["ids"]] == dimension), None)
        if first is not None:
            places[first] = None
    return tuple(sorted(places))
