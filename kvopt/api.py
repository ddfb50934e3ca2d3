"""The verbs: one call, one result. `kvopt.analyze`, `kvopt.optimize`, `kvopt.pareto`, `kvopt.sensitivity`, `kvopt.evaluate`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np

from kvopt import any_engine, block_report, chances, describe, named
from kvopt.any_engine import Answered
from kvopt.assumptions import assumptions
from kvopt.errors import BadInput, unknown
from kvopt.explanation.arithmetic import arithmetic
from kvopt.head_plans import head_plan
from kvopt.head_summary import files, summary
from kvopt.infeasible import explain, weights_do_not_fit
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import assess
from kvopt.problem import Problem, resolve
from kvopt.provenance import behind
from kvopt.realise import gap
from kvopt.results import Result
from kvopt.search import best as search
from kvopt.search import outcome
from kvopt.search.best import Point
from kvopt.search.blocks.answer import evaluated_on
from kvopt.search.blocks.answer import front as by_block_front
from kvopt.search.chance import require_draws
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import Choice, memory_left
from kvopt.search.pipeline import Found, Progress
from kvopt.search.shadow_prices import accuracy_floor, elasticities
from kvopt.search.solve import at_latencies, least_broken, vector

LATENCIES = 6  # limits between the least latency found and the best plan's, at which a front against a latency is searched once more
OBJECTIVES = ("sessions_per_gpu_hour", "accuracy_retained")
FRONT_FLOOR = 0.5  # a front that trades accuracy is drawn down to half of it
FRONT_POINTS = 60
BLOCK_POINTS = 64  # levels of loss of a front of plans by layer or head
KEPT = (
    "plan",
    "metrics",
    "constraints",
    "bottleneck",
    "evidence",
    "behind",
    "arithmetic",
    "elasticities",
    "baseline",
    "baseline_point",
    "research",
    "gap",
    "bound",
    "infeasible",
)  # of the best plans, beside a front


def analyze(scenario: Scenario | None = None, **fields: Any) -> Result:
    """What one plan gives at the largest load that meets the targets: uncompressed, or with `methods`.

    Takes the scenario's fields by name. Raises `BadInput`; infeasible is a result with `feasible` false.
    """
    return any_engine.best_result([(problem, _analyzed(problem)) for problem in any_engine.able(_problem(scenario, fields))])


def _analyzed(problem: Problem) -> Result:
    """What the named plan gives on the problem's engine."""
    chosen, fixed = named.methods(problem)
    grouped, weights = named.groupings(problem), problem.checkpoints[0]
    first = Choice(grouped[0], weights, chosen, head_plan(problem, chosen, fixed))
    if np.isnan(float(problem.architecture.parameters)):
        return _unknown_size(problem, first, fixed)
    if memory_left(problem, grouped, weights).max() <= 0:
        return _does_not_fit(problem, "analyze", first, fixed)
    answer = named.best_case(problem)
    data = {"scenario": describe.scenario(problem), **describe.describe(problem, answer), "heads": summary(problem, answer)}
    data |= {"behind": behind(problem, answer), "arithmetic": arithmetic(problem, answer), "assumptions": assumptions(problem)}
    if not answer.feasible:
        data["infeasible"] = explain(problem, answer)
    return Result("analyze", data, problem.warnings, answer.feasible, files=files(answer.choice.heads))


def optimize(
    scenario: Scenario | None = None, objective: str = "sessions_per_gpu_hour", verify: bool = False, progress: Progress | None = None, **fields: Any
) -> Result:
    """The plan that the engine can run today and that serves most, beside the uncompressed baseline and the research optimum.

    `objective`: one of `sessions_per_gpu_hour`, `users_per_gpu`, `output_tokens_per_gpu_s`, `cost_per_session_usd`, `energy_per_session_j`, `ttft_s`, `tpot_s`,
    `accuracy_retained`. `verify`: the deployable plan is simulated as well, at the load it is recommended for (`verification` in the result).
    Raises `BadInput`; infeasible is a result with `feasible` false.
    """
    problem = _problem(scenario, fields)
    _check(problem, [objective])
    report = progress or (lambda phase, share: None)
    found = any_engine.solve_each(problem, objective, report)
    report("elasticities", 0.9)
    answer = _answer(found, objective)
    best = any_engine.today(found, objective)
    if verify and best.solved.answer is not None:
        from kvopt.simulation.verb import verified

        report("simulation", 0.95)
        answer.data["verification"] = verified(best.problem, best.solved.answer)
    return answer


def pareto(
    scenario: Scenario | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    progress: Progress | None = None,
    chance: int | None = None,
    **fields: Any,
) -> Result:
    """The front over two to four objectives, of plans that the engine can run today and of research plans, with the best plan of each.

    A front over accuracy goes below the floor, down to half: the floor is the person's choice to make on it. Where any engine may run the answer, each front is
    that of the engine whose best plan it holds. `chance`: draws of the fitted quantities in which all limits must hold together, as `kvopt.chances` adds them.
    Raises `BadInput`.
    """
    problem = _problem(scenario, fields)
    _check(problem, objectives, fewest=2)
    if chance is not None:
        require_draws(chance)
        if problem.scenario.per != "model":
            raise BadInput("chance", chance, "knows no plans per layer or head: leave out per")
    report = progress or (lambda phase, share: None)
    started = time.perf_counter()
    best_objective = objectives[0] if objectives[0] in ("sessions_per_gpu_hour", "users_per_gpu", "output_tokens_per_gpu_s") else OBJECTIVES[0]
    each = any_engine.solve_each(problem, best_objective, lambda phase, share: report(phase, share * 0.5))
    answer = _answer(each, best_objective)
    ready, ahead = any_engine.today(each, best_objective), any_engine.ahead(each, best_objective)
    kept = {name: answer.data.get(name) for name in KEPT} | {name: answer.data[name] for name in ("engines",) if name in answer.data}
    data: dict[str, Any] = {
        "scenario": answer.data["scenario"],
        "points": [],
        "objectives": list(objectives),
        "hypervolume": None,
        "reference_point": None,
    }
    data |= {"answer": kept, "search": answer.data["search"], "assumptions": answer.data["assumptions"]}
    if ready.solved.candidates is None or ahead.solved.wide is None:
        return Result("pareto", {**data, "infeasible": answer.data["infeasible"]}, answer.warnings, False)
    lowered = _lowered(ready.problem, objectives)
    open_lowered = lowered if ahead is ready else _lowered(ahead.problem, objectives)
    load = not {"ttft_s", "tpot_s"} & set(objectives)
    report("front: deployable plans", 0.6)
    solved, candidates = ready.solved, ready.solved.candidates
    found, tally = search.run(lowered, candidates, objectives, problem.scenario.seed)
    stricter = at_latencies(lowered, candidates, objectives, found, solved.answer, LATENCIES)
    by_layer = _by_block(lowered, candidates.choices, found, objectives, research=False)
    today = search.front(
        lowered,
        candidates.choices,
        found,
        objectives,
        FRONT_POINTS // 2,
        load,
        [solved.answer, solved.baseline, *stricter, *(p for p, _ in by_layer)],
    )
    report("front: research plans", 0.75)
    best, wide = ahead.solved.research, ahead.solved.wide
    open_found, open_tally = search.run(open_lowered, wide, objectives, problem.scenario.seed)
    stricter = at_latencies(open_lowered, wide, objectives, open_found, best, LATENCIES)
    apart = _by_block(open_lowered, wide.choices, open_found, objectives, research=True)
    later = search.front(open_lowered, wide.choices, open_found, objectives, FRONT_POINTS, load, [best, *stricter, *today, *(p for p, _ in apart)])
    report("done", 1.0)
    ours = {id(point) for point in today}  # plans of today can lie on the front of research too
    homes = [evaluated_on(lowered if id(point) in ours else open_lowered, point.choice) for point in (*today, *later)]
    rows = describe.describe_each(list(zip(homes, (*today, *later), strict=True)))
    bounds = {id(point): {"bound": bound_of(point, most)} for point, most in (*by_layer, *apart)}
    data["points"] = [
        {"front": "deployable" if index < len(today) else "research", **row, **bounds.get(id(point), {})}
        for index, (point, row) in enumerate(zip((*today, *later), rows, strict=True))
    ]
    if chance is not None:
        fronts = [
            chances.Searched("deployable", ready.problem, today, candidates.choices, found),
            chances.Searched("research", ahead.problem, later, wide.choices, open_found),
        ]
        data["chance"] = chances.added(data["points"], fronts, solved.answer, chance)
    data["hypervolume"], data["reference_point"] = hypervolume([search.goal_values(point) for point in (*today, *later)], objectives)
    data["search"] = {
        "seconds": time.perf_counter() - started,
        "compile_seconds": answer.data["search"]["compile_seconds"],
        "evaluations": tally.evaluations + open_tally.evaluations + answer.data["search"]["evaluations"],
        "outcomes": answer.data["search"]["outcomes"],
    }
    if not answer.feasible:
        data["infeasible"] = answer.data["infeasible"]
    return Result("pareto", data, answer.warnings, bool(data["points"]) and answer.feasible)


def sensitivity(scenario: Scenario | None = None, progress: Progress | None = None, **fields: Any) -> Result:
    """What a little more of each input is worth to the best deployable plan, and of the accuracy floor, for which plans are searched again."""
    problem, objective = _problem(scenario, fields), OBJECTIVES[0]
    _check(problem, [objective])
    report = progress or (lambda phase, share: None)
    found = any_engine.solve_each(problem, objective, report)
    report("elasticities", 0.9)
    answer, best = _answer(found, objective), any_engine.today(found, objective)
    if best.solved.answer is not None and best.solved.candidates is not None:
        answer.data["elasticities"]["accuracy_floor"] = accuracy_floor(best.problem, best.solved.answer, best.solved.candidates)
    return Result("sensitivity", answer.data, answer.warnings, answer.feasible)


def evaluate(plan: dict[str, Any], scenario: Scenario | None = None, **fields: Any) -> Result:
    """A plan as a result holds it, evaluated at the load it states: the same metrics and constraints as when it was found. Raises `BadInput`."""
    problem = _problem(scenario, fields)
    problem = any_engine.of_plan(problem, plan)
    choice, x = named.restored(problem, plan)
    problem = evaluated_on(problem, choice)
    _, states = assess(problem, [choice], x[None], load=False)
    point = Point(choice, x, states[0])
    data = {"scenario": describe.scenario(problem), **describe.describe(problem, point), "heads": summary(problem, point)}
    return Result("analyze", data, problem.warnings, point.feasible, files=files(choice.heads))


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


def _check(problem: Problem, objectives: Sequence[str], fewest: int = 1) -> None:
    problem.require_known()
    if problem.scenario.head_scores is not None and problem.scenario.per == "model":
        raise BadInput("head_scores", problem.scenario.head_scores, "a search takes it with --per layer or --per head")
    for name in objectives:
        if name not in GOALS:
            raise unknown("objective", name, GOALS)
    if not fewest <= len(objectives) <= 4 or len(set(objectives)) != len(objectives):
        raise BadInput("objectives", ", ".join(objectives), f"give {fewest} to 4 different ones")
    device = problem.device(problem.checkpoints[0])
    for name, number in (("cost_per_session_usd", device.price_per_hour), ("energy_per_session_j", device.power)):
        if name in objectives and np.isnan(float(number)):
            raise BadInput("objective", name, f"{problem.accelerator.id} has no known {'price' if 'usd' in name else 'power'}")


def _by_block(problem: Problem, choices: Sequence[Choice], found: Found, objectives: Sequence[str], research: bool) -> list[tuple[Point, float]]:
    """Points of a front of plans by layer or head, each with its bound; none unless the scenario asks for them. Raises `BadInput`."""
    if problem.scenario.per == "model":
        return []
    if tuple(objectives) != OBJECTIVES:
        raise BadInput("per", problem.scenario.per, f"a front per layer or head is drawn over {' and '.join(OBJECTIVES)}")
    return by_block_front(problem, choices, found, BLOCK_POINTS, research)


def bound_of(point: Point, most: float) -> dict[str, float]:
    """What no plan of the same methods that keeps as much accuracy can exceed [sessions per GPU-hour], and by how much that is more."""
    return {"sessions_per_gpu_hour": most, "gap_percent": 100 * (most / float(point.state.values[OBJECTIVES[0]]) - 1)}


def _lowered(problem: Problem, objectives: Sequence[str]) -> Problem:
    """The problem with the floor that a front over accuracy is drawn down to."""
    if "accuracy_retained" not in objectives:
        return problem
    floor = min(FRONT_FLOOR, problem.scenario.accuracy_floor)
    return dataclasses.replace(problem, scenario=problem.scenario.model_copy(update={"accuracy_floor": floor}))


def _answer(found: Sequence[Answered], objective: str) -> Result:
    """The object that optimize prints: the engine that serves most, where any may."""
    best, ahead = any_engine.today(found, objective), any_engine.ahead(found, objective)
    problem, solved, research = best.problem, best.solved, ahead.solved.research
    if solved.candidates is None:
        result = _does_not_fit(problem, "optimize", Choice(named.groupings(problem)[0], problem.checkpoints[0], MethodChoice()), {})
        result.data.update(any_engine.table(found))
        return result
    closest = least_broken(problem, solved.candidates.choices) if solved.answer is None else None
    bare = solved.baseline or least_broken(problem, solved.plain or solved.candidates.choices)
    shown = [point for point in (solved.answer or closest, bare) if point is not None]
    rows = describe.describe_each([(evaluated_on(problem, point.choice), point) for point in shown])
    data: dict[str, Any] = {
        "scenario": {**describe.scenario(problem), "objective": objective},
        **rows[0],
        "baseline": rows[1]["metrics"],
        "baseline_plan": rows[1]["plan"],
        "research": describe.describe(evaluated_on(ahead.problem, research.choice), research) if research else {"plan": None, "metrics": None},
        "bound": any_engine.bound(found, best),
        "elasticities": elasticities(evaluated_on(problem, solved.answer.choice), solved.answer) if solved.answer else {},
        **({"per": block_report.summary(solved.blocks, solved.uniform)} if problem.scenario.per != "model" else {}),
        "search": {**any_engine.effort(found), "outcomes": outcome.summary(problem, solved.candidates.choices)},
        **any_engine.table(found),
    }
    if closest is not None:
        data["infeasible"] = explain(problem, closest)
    data |= {"gap": gap(data), "assumptions": assumptions(problem)}
    if solved.answer is not None:
        data |= {"behind": behind(problem, solved.answer), "arithmetic": arithmetic(evaluated_on(problem, solved.answer.choice), solved.answer)}
    if research is not None:
        its = evaluated_on(ahead.problem, research.choice)
        data["research"] |= {"behind": behind(ahead.problem, research), "arithmetic": arithmetic(its, research)}
    if solved.baseline is not None:
        data["baseline_point"] = {"plan": rows[1]["plan"], "metrics": rows[1]["metrics"], "arithmetic": arithmetic(problem, solved.baseline)}
    tables = block_report.files(solved.answer.choice.blocks) if solved.answer else {}
    return Result("optimize", data, problem.warnings, solved.answer is not None, files=tables)


def _does_not_fit(problem: Problem, kind: str, choice: Choice, fixed: dict[str, float]) -> Result:
    """No grouping of the GPUs holds the weights."""
    x, states = assess(problem, [choice], vector(problem, fixed)[None])
    point = Point(choice, x[0], states[0])
    described = {**describe.describe(problem, point), **({"heads": summary(problem, point)} if kind == "analyze" else {})}
    data: dict[str, Any] = {"scenario": describe.scenario(problem), **described, "infeasible": weights_do_not_fit(problem)}
    data["assumptions"] = assumptions(problem)
    if kind == "optimize":
        data |= {
            "baseline": described["metrics"],
            "baseline_plan": described["plan"],
            "research": {"plan": None, "metrics": None},
            "gap": gap(data),
            "bound": {"sessions_per_gpu_hour": None, "gap_percent": None},
            "elasticities": {},
            "search": {"seconds": 0.0, "compile_seconds": 0.0, "evaluations": 0, "outcomes": outcome.summary(problem, ())},
        }
    return Result(kind, data, problem.warnings, False)


def _unknown_size(problem: Problem, choice: Choice, fixed: dict[str, float]) -> Result:
    """A model whose parameters are not known: its cache is, everything that needs its weights is null."""
    x = vector(problem, fixed)
    _, states = assess(problem, [choice], x[None], load=False)
    point = Point(choice, x, states[0])
    described = {**describe.describe(problem, point), "heads": summary(problem, point)}
    described["bottleneck"] = "unknown: the model's parameters are not known"
    warning = f"model: the source of {problem.model.id} does not hold its parameters: what needs them is null"
    return Result(
        "analyze", {"scenario": describe.scenario(problem), **described, "assumptions": assumptions(problem)}, (*problem.warnings, warning), True
    )
