"""A plan as serving engines and research libraries take it: commands, YAML, JSON, code and tables. All are functions of a result alone.

>>> from kvopt.export import ENGINES
>>> ENGINES[0]
'vllm'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from kvopt.errors import BadInput, unknown
from kvopt.export.exported import Exported
from kvopt.export.servers import SERVERS
from kvopt.export.settings import settings
from kvopt.results import Result, chosen

ENGINES = ("vllm", "vllm-bench", "sglang", "trtllm", "lmcache", "kvpress", "kvtuner", "duoattention")
_MODULES = {
    "vllm": ("vllm", "vllm"),
    "vllm-bench": ("vllm_bench", "vllm"),
    "sglang": ("sglang", "sglang"),
    "trtllm": ("trtllm", "trtllm"),
    "lmcache": ("lmcache", "vllm"),
    "kvpress": ("kvpress", "hf"),
    "kvtuner": ("kvtuner", "hf"),
    "duoattention": ("duoattention", "hf"),
}
"""The exporter's module, and the engine of the catalog whose settings it writes."""
KINDS = ("analyze", "optimize", "pareto", "sensitivity", "explain")  # of results that hold a plan

__all__ = ["ENGINES", "Exported", "export", "export_point", "launch_files"]


def export_point(engine: str, scenario: Mapping[str, Any], point: Mapping[str, Any]) -> Exported:
    """The plan of one point as `engine` takes it. Raises `BadInput` for an engine that is not known and for a point without a plan."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    module, catalogued = _MODULES[engine]
    found: Exported = import_module(f"kvopt.export.{module}").export(settings(catalogued, scenario, point))
    return found


def export(engine: str, result: Result, point: int | None = None) -> Exported:
    """The recommended plan of a result, or point number `point` of its front from 0. `vllm-bench` without a number takes the front's best plans together.

    Raises `BadInput` for an engine, a point or a plan that there is not.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if result.kind not in KINDS:
        raise BadInput("run", result.kind, f"holds no plan to export; a run of {' or '.join(KINDS)} does")
    answer = chosen(result, point)
    if engine == "vllm-bench" and point is None and result.kind == "pareto":
        from kvopt.export.vllm_bench import export_all, top

        return export_all([settings("vllm", result.data["scenario"], one) for one in top(result)])
    return export_point(engine, result.data["scenario"], with_heads(result, answer))


def with_heads(result: Result, point: Mapping[str, Any]) -> Mapping[str, Any]:
    """A point with what the result says of its layers and heads, which an answer has beside it."""
    beside = result.data.get("heads") if point is result.data else None
    return {**point, "heads": beside} if beside and "heads" not in point else point


def launch_files(result: Result) -> dict[str, str]:
    """The files that a run folder gets for its recommended plan, by name; none where nothing is recommended.

    Those of the plan's own engine; of vLLM also the benchmark of the front's best plans, and LMCache's where the plan parks caches. Named `research-`:
    those of the libraries that run all methods of the plan, or of the research plan beside it.
    """
    if result.kind not in KINDS:
        return {}
    try:
        answer = chosen(result)
    except BadInput:
        return _of_research(result, [(result.data.get("answer") or result.data).get("research")])
    if "engine" not in answer["plan"]:  # an older kvopt wrote it
        return {}
    engine = answer["plan"]["engine"]
    files: dict[str, str] = {}
    names = [engine] if engine in SERVERS else []
    names += ["lmcache"] if engine == "vllm" and settings("vllm", result.data["scenario"], answer).parks else []
    for name in names:
        files |= export(name, result).files
    files |= _bench(result) if engine == "vllm" else {}
    return {**files, **_of_research(result, [answer.get("research"), with_heads(result, answer)])}


def _bench(result: Result) -> dict[str, str]:
    """The benchmark's files; none where it can start no plan."""
    try:
        return export("vllm-bench", result).files
    except BadInput:
        return {}


def _of_research(result: Result, points: Sequence[Mapping[str, Any] | None]) -> dict[str, str]:
    """Files of the libraries that run every method of a plan beyond what engines do; of the first such plan that a library has."""
    for point in points:
        if not point or not point.get("plan") or point["plan"]["where"] == "engine-ready":
            continue
        wanted = ["kvpress", *(name for name in ("kvtuner", "duoattention") if name in point["plan"]["methods"])]
        made = [export_point(name, result.data["scenario"], point) for name in wanted]
        files = {f"research-{name}": text for one in made if not one.cannot for name, text in one.files.items()}
        if files:
            return files
    return {}
