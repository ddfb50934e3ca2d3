"""The verbs: one call, one result. `kvopt.analyze`, `kvopt.optimize`, `kvopt.pareto`, `kvopt.sensitivity`, `kvopt.evaluate`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np

from kvopt.compiling import clock
from kvopt.errors import BadInput, unknown
from kvopt.infeasible import explain, weights_do_not_fit
from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice, choices
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess, bottleneck, constraint_rows, metrics
from kvopt.plans import from_plan, named_methods, to_plan
from kvopt.problem import Problem, resolve
from kvopt.results import Result
from kvopt.search import best as search
from kvopt.search.best import Point
from kvopt.search.deployments import Deployment, divisors, fates
from kvopt.search.elasticity import elasticities
from kvopt.search.evaluate import GOALS
from kvopt.search.grid import PREFIX_STEPS
from kvopt.search.lanes import (
    FIELDS,
    Choice,
    default_chunk,
    deployable_methods,
    make_choices,
    memory_left,
    research_methods,
)
from kvopt.search.pipeline import Progress
from objectives.types import Plan

OBJECTIVES = ("sessions_per_gpu_hour", "accuracy_retained")
FRONT_FLOOR = 0.5  # a front that trades accuracy is drawn down to half of it
FRONT_POINTS = 60
RESEARCH_DEPLOYMENTS = 4  # groupings that research plans are searched on: the best of the deployable search
RESIDENT = 21  # shares of resident idle caches that analyze tries


def analyze(scenario: Scenario | None = None, **fields: Any) -> Result:
    """What one plan gives at the largest load that meets the targets: uncompressed, or with `methods`.

    Takes the scenario's fields by name. Raises `BadInput`; infeasible is a result with `feasible` false.
    """
    problem = _problem(scenario, fields)
    chosen, fixed = named_methods(problem.scenario.methods) if problem.scenario.methods else (MethodChoice(), {})
    grouped = _analyzed(problem)
    weights = problem.checkpoints[0]
    if np.isnan(float(problem.architecture.parameters)):
        return _unknown_size(problem, Choice(grouped[0], weights, chosen), fixed)
    if memory_left(problem, grouped, weights).max() <= 0:
        return _does_not_fit(problem, "analyze", Choice(grouped[0], weights, chosen), fixed)
    several = bool(np.any(problem.sessions.turns > 1)) and problem.scenario.fidelity != "peak"
    prefixes = np.linspace(0, float(problem.sessions.reuse_tokens[-1]), PREFIX_STEPS) if np.any(problem.sessions.shared_prefix > 0) else [0.0]
    cases = [
        (Choice(deployment, weights, chosen), _vector(problem, fixed, resident, prefix))
        for deployment in grouped
        for resident in (np.linspace(0, 1, RESIDENT) if several else [0.0])
        for prefix in prefixes
    ]
    x, states = assess(problem, [case[0] for case in cases], np.array([case[1] for case in cases]))
    found = [Point(choice, vector, state) for (choice, _), vector, state in zip(cases, x, states, strict=True)]
    feasible = [point for point in found if point.feasible]
    answer = max(feasible, key=_rate) if feasible else min(found, key=_worst)
    data = {"scenario": _scenario(problem), **_described(problem, answer)}
    if not feasible:
        data["infeasible"] = explain(problem, answer)
    return Result("analyze", data, problem.warnings, bool(feasible))


def optimize(scenario: Scenario | None = None, objective: str = "sessions_per_gpu_hour", progress: Progress | None = None, **fields: Any) -> Result:
    """The plan that the engine can run today and that serves most, beside the uncompressed baseline and the research optimum.

    `objective`: one of `sessions_per_gpu_hour`, `users_per_gpu`, `output_tokens_per_gpu_s`, `cost_per_session_usd`, `energy_per_session_j`, `ttft_s`, `tpot_s`,
    `accuracy_retained`. Raises `BadInput`; infeasible is a result with `feasible` false.
    """
    problem = _problem(scenario, fields)
    problem.require_known()
    _goals(problem, [objective])
    started = time.perf_counter()
    candidates = make_choices(problem, _offered(problem))
    if not candidates:
        grouped = _analyzed(problem)
        return _does_not_fit(problem, "optimize", Choice(grouped[0], problem.checkpoints[0], MethodChoice()), {})
    report = progress or (lambda phase, share: None)
    report("deployable plans", 0.1)
    compiled = clock().seconds
    found, tally = search.run(problem, candidates, [objective], problem.scenario.seed)
    answer = search.best(problem, candidates, found, objective)
    report("uncompressed baseline", 0.4)
    plain = [choice for choice in candidates if not choice.methods.methods] or make_choices(problem, [MethodChoice()])
    bare, bare_tally = search.run(problem, plain, [objective], problem.scenario.seed)
    baseline = search.best(problem, plain, bare, objective)
    report("research plans", 0.6)
    grouped = _promising(candidates, found, objective)
    wide = make_choices(problem, _offered(problem, research=True), grouped)
    open_found, open_tally = search.run(problem, wide, [objective], problem.scenario.seed)
    research = search.best(problem, wide, open_found, objective)
    if research is None or (answer is not None and _goal(answer, objective) <= _goal(research, objective)):
        research = answer
    report("elasticities", 0.9)
    evaluations = tally.evaluations + bare_tally.evaluations + open_tally.evaluations
    cost = {"seconds": time.perf_counter() - started, "compile_seconds": clock().seconds - compiled, "evaluations": evaluations}
    if answer is None:
        return _nothing_found(problem, candidates, research, cost)
    data = {
        "scenario": _scenario(problem),
        **_described(problem, answer),
        "baseline": _baseline(problem, baseline, plain),
        "research": _point(problem, research),
        "bound": {"sessions_per_gpu_hour": None, "gap_percent": None},
        "elasticities": elasticities(problem, answer),
        "evidence": _evidence(problem, answer),
        "search": cost,
    }
    return Result("optimize", data, problem.warnings, True)


def pareto(
    scenario: Scenario | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    progress: Progress | None = None,
    **fields: Any,
) -> Result:
    """The front over two or three objectives, of plans that the engine can run today and of research plans, with the best plan of each.

    A front over accuracy goes below the floor, down to half: the floor is the person's choice to make on it. Raises `BadInput`.
    """
    problem = _problem(scenario, fields)
    problem.require_known()
    _goals(problem, objectives, fewest=2)
    report = progress or (lambda phase, share: None)
    answer = optimize(problem.scenario, progress=lambda phase, share: report(phase, share * 0.5))
    lowered = problem
    if "accuracy_retained" in objectives:
        floor = min(FRONT_FLOOR, problem.scenario.accuracy_floor)
        lowered = dataclasses.replace(problem, scenario=problem.scenario.model_copy(update={"accuracy_floor": floor}))
    started = time.perf_counter()
    candidates = make_choices(lowered, _offered(lowered))
    if not candidates:
        return Result(
            "pareto",
            {**answer.data, "points": [], "objectives": list(objectives), "hypervolume": None, "reference_point": None},
            answer.warnings,
            False,
        )
    load = not {"ttft_s", "tpot_s"} & set(objectives)
    report("front: deployable plans", 0.55)
    found, tally = search.run(lowered, candidates, objectives, problem.scenario.seed)
    today = search.front(lowered, candidates, found, objectives, FRONT_POINTS // 2, load)
    report("front: research plans", 0.75)
    wide = make_choices(lowered, _offered(lowered, research=True), _promising(candidates, found, objectives[0]))
    open_found, open_tally = search.run(lowered, wide, objectives, problem.scenario.seed)
    later = search.front(lowered, wide, open_found, objectives, FRONT_POINTS, load)
    report("done", 1.0)
    labelled = [("deployable", point) for point in today] + [("research", point) for point in later]
    rows = _described_all(lowered, [point for _, point in labelled])
    points = [{"front": label, **row} for (label, _), row in zip(labelled, rows, strict=True)]
    volume, reference = hypervolume([search.goal_values(point) for _, point in labelled], objectives)
    data = {
        "scenario": answer.data["scenario"],
        "points": points,
        "objectives": list(objectives),
        "hypervolume": volume,
        "reference_point": reference,
        "answer": {
            key: answer.data.get(key) for key in ("plan", "metrics", "constraints", "bottleneck", "baseline", "research", "evidence", "infeasible")
        },
        "search": {
            "seconds": time.perf_counter() - started + answer.data.get("search", {}).get("seconds", 0.0),
            "compile_seconds": answer.data.get("search", {}).get("compile_seconds"),
            "evaluations": tally.evaluations + open_tally.evaluations + answer.data.get("search", {}).get("evaluations", 0),
        },
    }
    return Result("pareto", data, answer.warnings, bool(points) and answer.feasible)


def sensitivity(scenario: Scenario | None = None, progress: Progress | None = None, **fields: Any) -> Result:
    """How the best deployable plan answers to each input, a step of ten percent either way, its load solved again."""
    answer = optimize(scenario, progress=progress, **fields)
    return Result("sensitivity", answer.data, answer.warnings, answer.feasible)


def evaluate(plan: dict[str, Any], scenario: Scenario | None = None, **fields: Any) -> Result:
    """A plan as a result holds it, evaluated at the load it states: the same metrics and constraints as when it was found. Raises `BadInput`."""
    problem = _problem(scenario, fields)
    choice, x = from_plan(plan)
    _, states = assess(problem, [choice], x[None], load=False)
    point = Point(choice, x, states[0])
    return Result("analyze", {"scenario": _scenario(problem), **_described(problem, point)}, problem.warnings, point.feasible)


def session_of(scenario: Scenario) -> dict[str, float]:
    """The mean session of a scenario: answer [tokens], answers [tokens in all], turns and gaps between them. Raises `BadInput`."""
    w = resolve(scenario).sessions
    mean = {name: float(np.sum(w.weight * values)) for name, values in (("answer", w.answer), ("answers", w.answer * w.turns), ("turns", w.turns))}
    return {**mean, "gaps": mean["turns"] - 1}


def hypervolume(values: Sequence[dict[str, float]], objectives: Sequence[str]) -> tuple[float | None, list[float] | None]:
    """The volume that a front dominates, maximised objectives negated, against its own worst corner: (volume, reference point in natural signs)."""
    if not values:
        return None, None
    signs = np.array([GOALS[name] for name in objectives])
    points = np.array([[value[name] for name in objectives] for value in values]) * signs
    reference = points.max(axis=0) + 1e-9
    return float(moocore.hypervolume(points, ref=reference)), [float(entry) for entry in reference * signs]


def _problem(scenario: Scenario | None, fields: dict[str, Any]) -> Problem:
    if scenario is not None and fields:
        scenario = Scenario.of(**{**scenario.model_dump(exclude_unset=True), **fields})
    return resolve(scenario if scenario is not None else Scenario.of(**fields))


def _goals(problem: Problem, objectives: Sequence[str], fewest: int = 1) -> None:
    for name in objectives:
        if name not in GOALS:
            raise unknown("objective", name, GOALS)
    if not fewest <= len(objectives) <= 3 or len(set(objectives)) != len(objectives):
        raise BadInput("objectives", ", ".join(objectives), f"give {fewest} to 3 different ones")
    device = problem.device(problem.checkpoints[0])
    for name, number in (("cost_per_session_usd", device.price_per_hour), ("energy_per_session_j", device.power)):
        if name in objectives and np.isnan(float(number)):
            raise BadInput("objective", name, f"{problem.accelerator.id} has no known {'price' if 'usd' in name else 'power'}")


def _offered(problem: Problem, research: bool = False) -> list[MethodChoice]:
    if problem.scenario.methods is None:
        return research_methods(problem) if research else deployable_methods(problem)
    named, _ = named_methods(problem.scenario.methods)
    engine = None if research else problem.engine.id
    return list(choices([method for method in methods.load_all() if method in named.methods], problem.task, problem.question_hidden, engine))


def _promising(candidates: Sequence[Choice], found: search.Found, objective: str) -> list[Deployment]:
    """The groupings whose deployable plans come out best; those of the least compressed candidates where none is feasible."""
    order = found.choice[np.argsort(found.logs[:, list(GOALS).index(objective)], kind="stable")]
    ranked = [candidates[row].deployment for row in order] + [candidate.deployment for candidate in candidates]
    return list(dict.fromkeys(ranked))[:RESEARCH_DEPLOYMENTS]


def _analyzed(problem: Problem) -> list[Deployment]:
    """The groupings that analyze looks at: one width, every fate of idle caches."""
    scenario = problem.scenario
    tp = scenario.tp or max(d for d in divisors(scenario.gpus // (scenario.pp or 1)) if problem.model.query_heads % d == 0)
    pp = scenario.pp or 1
    return [Deployment(tp, pp, scenario.gpus // (tp * pp), park=park) for park in fates(problem)]


def _vector(problem: Problem, fixed: dict[str, float], resident: float, prefix: float) -> np.ndarray:
    values = dict.fromkeys(FIELDS, 1.0) | {"key_bits": 16.0, "value_bits": 16.0, "chunk": default_chunk(problem)} | fixed
    return np.array([{**values, "idle_resident": resident, "prefix_cache_tokens": prefix}[name] for name in FIELDS])


def _scenario(problem: Problem) -> dict[str, Any]:
    """The question with everything that was filled in."""
    ttft, tpot = problem.latency_targets
    filled = {
        "model": problem.model.id,
        "accelerator": problem.accelerator.id,
        "context": problem.context,
        "task": problem.task,
        "question_hidden": problem.question_hidden,
        "weights": ",".join(weights.format for weights in problem.checkpoints),
        "ttft_s": ttft.seconds,
        "tpot_s": tpot.seconds,
        "profile": problem.profile.id if problem.profile else "peak",
    }
    return {**problem.scenario.model_dump(mode="json"), **filled}


def _described_all(problem: Problem, found: Sequence[Point]) -> list[dict[str, Any]]:
    if not found:
        return []
    rows = metrics(problem, [point.choice for point in found], np.array([point.x for point in found]), [point.state for point in found])
    return [
        {
            "plan": to_plan(problem, point.choice, point.x),
            "metrics": row,
            "constraints": constraint_rows(point.state),
            "bottleneck": bottleneck(point.state, point.choice),
            "evidence": _evidence(problem, point),
        }
        for point, row in zip(found, rows, strict=True)
    ]


def _described(problem: Problem, point: Point) -> dict[str, Any]:
    return _described_all(problem, [point])[0]


def _point(problem: Problem, point: Point | None) -> dict[str, Any]:
    return _described(problem, point) if point is not None else {"plan": None, "metrics": None}


def _baseline(problem: Problem, point: Point | None, plain: Sequence[Choice]) -> dict[str, Any]:
    """The metrics of the best uncompressed plan; where none meets the targets, those of one at the least load, its rate 0."""
    if point is not None:
        return _described(problem, point)["metrics"]
    return _described(problem, _least_load(problem, plain))["metrics"]


def _least_load(problem: Problem, candidates: Sequence[Choice]) -> Point:
    """The candidate that breaks its constraints least at the least load."""
    some = list(candidates)[:256]
    x, states = assess(problem, some, np.array([_vector(problem, _smallest(choice), 0.0, 0.0) for choice in some]))
    return min((Point(choice, vector, state) for choice, vector, state in zip(some, x, states, strict=True)), key=_worst)


def _smallest(choice: Choice) -> dict[str, float]:
    low, _ = choice.methods.bounds()
    return {name: float(getattr(low, name)) for name in ("key_bits", "value_bits")} if choice.methods.bits else {}


def _evidence(problem: Problem, point: Point) -> str:
    plan = dict(zip(FIELDS, point.x, strict=True))
    fields = Plan(**{name: plan[name] for name in Plan.__dataclass_fields__})
    return point.choice.methods.evidence(problem.task, fields, problem.context, problem.question_hidden)


def _does_not_fit(problem: Problem, kind: str, choice: Choice, fixed: dict[str, float]) -> Result:
    """No grouping of the GPUs holds the weights."""
    x, states = assess(problem, [choice], _vector(problem, fixed, 0.0, 0.0)[None])
    described = _described(problem, Point(choice, x[0], states[0]))
    data: dict[str, Any] = {"scenario": _scenario(problem), **described, "infeasible": weights_do_not_fit(problem)}
    if kind == "optimize":
        data |= _empty_answer(described["metrics"])
    return Result(kind, data, problem.warnings, False)


def _nothing_found(problem: Problem, candidates: Sequence[Choice], research: Point | None, cost: dict[str, Any]) -> Result:
    closest = _least_load(problem, candidates)
    described = _described(problem, closest)
    data = {
        "scenario": _scenario(problem),
        **described,
        **_empty_answer(described["metrics"]),
        "infeasible": explain(problem, closest),
        "search": cost,
    }
    data["research"] = _point(problem, research)
    return Result("optimize", data, problem.warnings, False)


def _empty_answer(baseline: dict[str, Any]) -> dict[str, Any]:
    return {
        "baseline": baseline,
        "research": {"plan": None, "metrics": None},
        "bound": {"sessions_per_gpu_hour": None, "gap_percent": None},
        "elasticities": {},
        "evidence": "none",
        "search": {"seconds": 0.0, "compile_seconds": 0.0, "evaluations": 0},
    }


def _unknown_size(problem: Problem, choice: Choice, fixed: dict[str, float]) -> Result:
    """A model whose parameters are not known: its cache is, everything that needs its weights is null."""
    x = _vector(problem, fixed, 0.0, 0.0)
    _, states = assess(problem, [choice], x[None], load=False)
    described = _described(problem, Point(choice, x, states[0]))
    described["bottleneck"] = "unknown: the model's parameters are not known"
    warning = f"model: the source of {problem.model.id} does not hold its parameters: what needs them is null"
    return Result("analyze", {"scenario": _scenario(problem), **described}, (*problem.warnings, warning), True)


def _rate(point: Point) -> float:
    return float(point.state.values["sessions_per_gpu_hour"])


def _goal(point: Point, objective: str) -> float:
    return GOALS[objective] * float(point.state.values[objective])


def _worst(point: Point) -> float:
    return float(np.nanmax(np.asarray(point.state.broken)))
