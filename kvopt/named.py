"""The plan that a scenario names, where none is searched: uncompressed or with its methods, on one grouping, with the better fate of idle caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.head_plans import head_plan
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.layer_bits import mean_bits
from kvopt.metrics import assess
from kvopt.plans import from_plan, named_methods
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.blocks.plan import block_plan
from kvopt.search.deployments import Deployment, divisors, fates
from kvopt.search.grid import PREFIX_STEPS
from kvopt.search.lanes import FIELDS, Choice, memory_left
from kvopt.search.solve import vector

RESIDENT = 21  # shares of resident idle caches that are tried


def groupings(problem: Problem) -> list[Deployment]:
    """One width, every fate of idle caches."""
    scenario = problem.scenario
    pp = scenario.pp or 1
    widths = [d for d in divisors(scenario.gpus // pp) if problem.model.query_heads % d == 0] if problem.engine.parallelism.tensor else [1]
    tp = scenario.tp or max(widths)
    return [Deployment(tp, pp, scenario.gpus // (tp * pp), park=park) for park in fates(problem)]


def methods(problem: Problem) -> tuple[MethodChoice, dict[str, float]]:
    """The methods asked for and the settings that they fix; none unless named."""
    return named_methods(problem.scenario.methods, mean_bits(problem.head_scores)) if problem.scenario.methods else (MethodChoice(), {})


def restored(problem: Problem, plan: dict[str, Any]) -> tuple[Choice, np.ndarray]:
    """The choice and settings of a plan as a result holds it, with what the scenario's scores make of its heads. Raises `BadInput`."""
    choice, x = from_plan(plan)
    if "blocks" in plan:
        tables = {name: np.asarray(table, np.float64) for name, table in plan["blocks"].items() if name != "per"}
        return replace(choice, blocks=block_plan(problem, choice.methods, plan["blocks"]["per"], tables)), x
    return replace(choice, heads=head_plan(problem, choice.methods, dict(zip(FIELDS, x, strict=True)))), x


def require_room(problem: Problem) -> None:
    """Raises `BadInput` where the weights leave no room for caches: nothing can then be served, played or explained."""
    choice = cases(problem)[0][0]
    if memory_left(problem, [choice.deployment], choice.weights).max() <= 0:
        raise BadInput("gpus", problem.scenario.gpus, f"the weights of {problem.model.name} do not fit: kvopt analyze says by how much")


def cases(problem: Problem) -> list[tuple[Choice, np.ndarray]]:
    """What may be the plan: every fate, share of resident idle caches and room for prefixes."""
    chosen, fixed = methods(problem)
    heads = head_plan(problem, chosen, fixed)
    prefixes = np.linspace(0, float(problem.sessions.reuse_tokens[-1]), PREFIX_STEPS) if problem.keeps_prefixes else [0.0]
    return [
        (Choice(deployment, problem.checkpoints[0], chosen, heads), vector(problem, fixed, resident, prefix))
        for deployment in groupings(problem)
        for resident in (np.linspace(0, 1, RESIDENT) if problem.keeps_idle_caches else [0.0])
        for prefix in prefixes
    ]


def best_case(problem: Problem) -> Point:
    """The case that serves most at the largest load that meets the targets; where none does, the one that comes closest at the least load."""
    tried = cases(problem)
    x, states = assess(problem, [case[0] for case in tried], np.array([case[1] for case in tried]))
    found = [Point(choice, settings, state) for (choice, _), settings, state in zip(tried, x, states, strict=True)]
    feasible = [point for point in found if point.feasible]
    if feasible:
        return max(feasible, key=lambda point: float(point.state.values["sessions_per_gpu_hour"]))
    return min(found, key=lambda point: float(np.nanmax(np.asarray(point.state.broken))))
