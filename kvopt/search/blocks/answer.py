"""The best plan by layer or KV head: of what an engine can run today, and of research methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs.choice import FIELDS_OF, MethodChoice
from kvopt.metrics import assess
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.block_plan import Width
from kvopt.search.blocks.front import BlockPlans, BlockSearch
from kvopt.search.blocks.optimum import at_floor, front_bounds
from kvopt.search.blocks.plan import block_plan, tables
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import Choice
from kvopt.search.pipeline import Found
from kvopt.search.uniform_bound import RATES

SET_BY_BLOCK = frozenset({"token", "rank", "bits"})  # dimensions that a layer or head can have to itself
TRIED = 4  # choices of methods: those whose uniform plans come out best


@dataclass(frozen=True)
class BlockAnswer:
    """The best plan by block, and how good it can be at most."""

    point: Point
    relaxed: float  # [1/h] sessions per GPU-hour where a block may mix two values, at the same schedule
    bound: float  # [1/h] of any plan by block of the methods tried
    methods: tuple[MethodChoice, ...]  # that were tried
    variables: int  # settings of the plan
    evaluations: int


def evaluated_on(problem: Problem, choice: Choice) -> Problem:
    """The problem that a choice is evaluated on."""
    return problem.splitting_heads if choice.blocks is not None and choice.blocks.width == "head" else problem


def ranked_methods(choices: Sequence[Choice], found: Found, objective: str) -> list[MethodChoice]:
    """The choices of methods that a block can have to itself, by how well their uniform plans come out, then the others."""
    order = np.argsort(found.logs[:, list(GOALS).index(objective)], kind="stable")
    first = dict.fromkeys(int(row) for row in found.choice[order])
    ranked = {_names(choices[row].methods): choices[row].methods for row in (*first, *range(len(choices)))}
    return [chosen for chosen in ranked.values() if chosen.methods and {method.dimension for method in chosen.methods} <= SET_BY_BLOCK]


def _names(chosen: MethodChoice) -> tuple[str, ...]:
    return tuple(method.id for method in chosen.methods)


def _with(choices: Sequence[Choice], chosen: MethodChoice) -> list[Choice]:
    """The choices of some methods: every grouping."""
    return [choice for choice in choices if _names(choice.methods) == _names(chosen)]


def deployable_width(problem: Problem, chosen: MethodChoice) -> Width | None:
    """What the engine can set apart today: precision by layer, or nothing."""
    by_layer = problem.engine.per_layer_precision.available and all(method.dimension == "bits" for method in chosen.methods)
    return "layer" if by_layer else None


def best(problem: Problem, choices: Sequence[Choice], found: Found, objective: str, research: bool) -> BlockAnswer | None:
    """The best plan by block of the methods that come out best uniformly; none where none may be set apart, or none meets the targets. Raises `BadInput`."""
    if objective not in RATES:
        raise BadInput("objective", objective, f"a search per layer or head takes {', '.join(RATES)}")
    asked: Width = problem.scenario.per  # type: ignore[assignment]
    answers, tried, bound, evaluations = [], [], -math.inf, 0
    for chosen in ranked_methods(choices, found, objective)[:TRIED]:
        width = asked if research else deployable_width(problem, chosen)
        if width is None:
            continue
        mine = _with(choices, chosen)
        search = BlockSearch(problem, mine, width, objective)
        optimum = at_floor(search, problem.scenario.accuracy_floor)
        tried.append(chosen)
        evaluations += search.schedules.evaluations
        if optimum is None:
            continue
        rate = list(GOALS).index("sessions_per_gpu_hour")
        gain = math.exp(optimum.plans.logs[0, search.schedules.goal] - optimum.bound_log)
        bound = max(bound, math.exp(-optimum.plans.logs[0, rate]) * gain)
        points = exactly(problem, search, optimum.plans)
        relaxed = math.exp(-optimum.plans.logs[0, rate] + optimum.plans.logs[0, search.schedules.goal] - optimum.relaxed_log)
        answers += [(point, search, relaxed) for point in points if point.feasible]
    if not answers:
        return None
    point, search, relaxed = max(answers, key=lambda one: float(one[0].state.values["sessions_per_gpu_hour"]))
    value = float(point.state.values["sessions_per_gpu_hour"])
    return BlockAnswer(point, relaxed, max(bound, value), tuple(tried), variables(search), evaluations)


def variables(search: BlockSearch) -> int:
    """Settings of a plan: of every block those of every method."""
    return len(search.blocks.row) * sum(len(FIELDS_OF[method.dimension]) for method in search.methods.methods)


def exactly(problem: Problem, search: BlockSearch, found: BlockPlans) -> list[Point]:
    """Plans evaluated setting by setting in double precision."""
    width = search.blocks.width
    chosen = []
    for lane, picks in zip(found.lane, found.picks, strict=True):
        made = block_plan(problem, search.methods, width, tables(search.blocks, search.values, picks))
        choice = search.choices[lane]
        chosen.append(Choice(choice.deployment, choice.weights, choice.methods, blocks=made))
    if not chosen:
        return []
    x, states = assess(evaluated_on(problem, chosen[0]), chosen, found.x)
    return [Point(choice, vector, state) for choice, vector, state in zip(chosen, x, states, strict=True)]


def front(problem: Problem, choices: Sequence[Choice], found: Found, count: int, research: bool) -> list[tuple[Point, float]]:
    """A front over sessions per GPU-hour and accuracy kept, of the methods whose uniform plans serve most: points, and the bound at each [1/h].

    The bound is on plans of the same methods that keep at least as much accuracy. Empty where no method may be set apart. Raises `BadInput`.
    """
    for chosen in ranked_methods(choices, found, RATES[0]):
        width: Any = problem.scenario.per if research else deployable_width(problem, chosen)
        if width is None:
            continue
        search = BlockSearch(problem, _with(choices, chosen), width)
        made = search.front(count, problem.scenario.accuracy_floor)
        kept = made.rows(np.flatnonzero((made.broken <= 0).all(axis=1)))
        if not len(kept.x):
            continue
        bounds = np.exp(-front_bounds(search, kept))
        points = exactly(problem, search, kept)
        pairs = zip(points, bounds, strict=True)
        return [(point, max(float(bound), float(point.state.values[RATES[0]]))) for point, bound in pairs if point.feasible]
    return []
