"""What can be run today: where each setting of a plan runs, and what is lost while the best methods do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvopt.inputs import engine as engines
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import MethodSpec, RunsIn
from kvopt.problem import Problem

UNCOMPRESSED = "16-bit"


def placed(problem: Problem, method: MethodSpec) -> RunsIn | None:
    """How the problem's engine is told to use the method on the problem's accelerator; none where it cannot."""
    return _placed_in(problem, problem.engine, method)


def deployable(problem: Problem, chosen: MethodChoice) -> bool:
    """Whether the problem's engine can run all the methods on the problem's accelerator; true of no compression at all."""
    return all(placed(problem, method) for method in chosen.methods)


def settings(problem: Problem, chosen: MethodChoice) -> list[dict[str, Any]]:
    """Every method in use and the precision of the cache, each with where it runs.

    `where`: engine-ready, research library, or needs a trained checkpoint. `runs_in`: what tells the engine or the library, `engine`: which of the catalog's
    engines that is, as it is installed; both none where there is none. `remark`: what a person must know before they count on it.
    """
    found = [_setting(problem, method) for method in chosen.methods]
    if chosen.bits is None:
        plain = {"dimension": "bits", "method": UNCOMPRESSED, "where": "engine-ready", "engine": problem.engine.id, "runs_in": "the default"}
        found.append({**plain, "remark": None})
    return found


def gap(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the research optimum of an answer is worth beside the plan that can be deployed.

    `sessions_per_gpu_hour_percent`: more sessions per GPU-hour; `cost_per_session_usd`: saved by each session [USD]; none where unknown, or where nothing can
    be deployed. `methods`: those of the research plan that the deployable one lacks.
    """
    today, research = answer["metrics"], answer.get("research") or {}
    if not research.get("plan"):
        return {"sessions_per_gpu_hour_percent": None, "cost_per_session_usd": None, "methods": []}
    best, serves = research["metrics"], not answer.get("infeasible")
    (rate, better), (paid, cheaper) = ((today[name], best[name]) for name in ("sessions_per_gpu_hour", "cost_per_session_usd"))
    return {
        "sessions_per_gpu_hour_percent": 100 * (better / rate - 1) if serves and rate and better is not None else None,
        "cost_per_session_usd": paid - cheaper if serves and paid is not None and cheaper is not None else None,
        "methods": [name for name in research["plan"]["methods"] if not serves or name not in answer["plan"]["methods"]],
    }


def _placed_in(problem: Problem, engine: engines.EngineSpec, method: MethodSpec) -> RunsIn | None:
    windowed = bool(np.any(problem.architecture.window > 0))
    formats = engine.formats_on(problem.accelerator.arch, problem.accelerator.id, windowed)
    return method.placed(engine.id) if method.dimension != "bits" or method.id in formats else None


def _setting(problem: Problem, method: MethodSpec) -> dict[str, Any]:
    found = {"dimension": method.dimension, "method": method.id, "where": method.where}
    here = placed(problem, method)
    if here is not None:
        return {**found, "engine": here.engine, "runs_in": here.setting, "remark": None}
    own = problem.engine.id
    elsewhere = next((entry for engine in engines.load_all() if (entry := _placed_in(problem, engine, method))), None)
    if elsewhere is not None:
        return {**found, "engine": elsewhere.engine, "runs_in": elsewhere.setting, "remark": f"runs in {elsewhere.engine}, not in {own}"}
    # own code before a press that masks: the first is where the memory that the plan counts on is freed
    known = min(method.runs_in, key=lambda entry: bool(entry.masks_only), default=None)
    remark = None
    if method.where == "engine-ready":
        remark = f"no engine runs it with {problem.model.id} on {problem.accelerator.id}"
    elif known is not None and known.masks_only:
        remark = f"{known.version} only masks what it drops and frees no memory"
    elif method.dimension == "head" and problem.engine.block_tokens > 1:
        remark = f"counts on a cache that frees single heads; pages of {own} free none of it"
    return {**found, "engine": None, "runs_in": known.setting if known else None, "remark": remark}
