"""The study `pareto`: the front of sessions against accuracy for one scenario, deployable today and research, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvopt import api, plots
from kvopt.inputs.scenario import Scenario
from studies.result import StudyResult

QUESTION = "What does each further step of throughput cost in accuracy, with what an engine can run today and with any method that has evidence?"
SHOWN = ("sessions_per_gpu_hour", "users_per_gpu", "accuracy_retained", "accuracy_lower", "ttft_s", "tpot_s", "kv_bytes_per_token")


def run(out: Path | None = None, objectives: Sequence[str] = api.OBJECTIVES, **fields: Any) -> StudyResult:
    """The fronts of a scenario (the paper's example unless told otherwise); fields of `Scenario` change it."""
    result = api.pareto(Scenario.of(**fields), objectives=list(objectives))
    rows = tuple(
        {"front": point["front"], "methods": "+".join(point["plan"]["methods"]) or "uncompressed", **{name: point["metrics"][name] for name in SHOWN}}
        for point in result.data["points"]
    )
    notes = [f"hypervolume {result.data['hypervolume']}, reference point {result.data['reference_point']}"]
    best, baseline = result.data["answer"]["metrics"], result.data["answer"].get("baseline")
    if baseline and baseline["sessions_per_gpu_hour"]:
        gain = best["sessions_per_gpu_hour"] / baseline["sessions_per_gpu_hour"]
        notes.append(f"the best plan above the floor serves {gain:.2f} times the uncompressed one's sessions")
    if out is not None:
        plots.save_all(result, out)
    return StudyResult(title=QUESTION, columns=("front", "methods", *SHOWN), rows=rows, notes=tuple(notes), ok=result.feasible)
