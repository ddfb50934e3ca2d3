"""The study `pareto`: the front of sessions against accuracy for one scenario, deployable today and research, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvopt import api, plots
from kvopt.inputs.scenario import Scenario
from kvopt.search.pipeline import Progress
from studies.result import StudyResult

QUESTION = "What does each further step of throughput cost in accuracy, with what an engine can run today and with any method that has evidence?"
SHOWN = {
    "sessions per GPU-hour": "sessions_per_gpu_hour",
    "users per GPU": "users_per_gpu",
    "accuracy kept": "accuracy_retained",
    "at least": "accuracy_lower",
    "TTFT s": "ttft_s",
    "TPOT s": "tpot_s",
    "KV bytes per token": "kv_bytes_per_token",
}


def run(out: Path | None = None, progress: Progress | None = None, objectives: Sequence[str] = api.OBJECTIVES, **fields: Any) -> StudyResult:
    """The fronts of a scenario (the paper's example unless told otherwise); fields of `Scenario` change it. `out`: folder for the pictures."""
    result = api.pareto(Scenario.of(**fields), objectives=list(objectives), progress=progress)
    rows = tuple(
        {
            "front": point["front"],
            "methods": "+".join(point["plan"]["methods"]) or "uncompressed",
            **{column: point["metrics"][name] for column, name in SHOWN.items()},
        }
        for point in result.data["points"]
    )
    if out is not None:
        plots.save_all(result, out)
    return StudyResult(title=QUESTION, columns=("front", "methods", *SHOWN), rows=rows, notes=_notes(result.data), ok=result.feasible)


def _notes(data: dict[str, Any]) -> tuple[str, ...]:
    answer, baseline = data["answer"], data["answer"].get("baseline") or {}
    notes = (
        []
        if data["hypervolume"] is None
        else [f"hypervolume {data['hypervolume']:.4g} from {', '.join(f'{v:.4g}' for v in data['reference_point'])}"]
    )
    if baseline.get("sessions_per_gpu_hour"):
        for name, found in (("today", answer["metrics"]), ("research", (answer.get("research") or {}).get("metrics"))):
            if found:
                gain = found["sessions_per_gpu_hour"] / baseline["sessions_per_gpu_hour"]
                notes.append(f"the best plan above the floor, {name}, serves {gain:.2f} times the sessions of the uncompressed one")
    if answer.get("infeasible"):
        notes.append(f"{answer['infeasible']['reason']}; least change: {answer['infeasible']['change']}")
    return tuple(notes)
