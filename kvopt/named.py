"""The plan that a scenario names, where none is searched: uncompressed or with its methods, on one grouping, with the better fate of idle caches."""

from __future__ import annotations

import numpy as np

from kvopt.inputs.choice import MethodChoice
from kvopt.metrics import assess
from kvopt.plans import named_methods
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.deployments import Deployment, divisors, fates
from kvopt.search.grid import PREFIX_STEPS
from kvopt.search.lanes import Choice
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
    return named_methods(problem.scenario.methods) if problem.scenario.methods else (MethodChoice(), {})


def cases(problem: Problem) -> list[tuple[Choice, np.ndarray]]:
    """What may be the plan: every fate, share of resident idle caches and room for prefixes."""
    chosen, fixed = methods(problem)
    prefixes = np.linspace(0, float(problem.sessions.reuse_tokens[-1]), PREFIX_STEPS) if problem.keeps_prefixes else [0.0]
    return [
        (Choice(deployment, problem.checkpoints[0], chosen), vector(problem, fixed, resident, prefix))
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
