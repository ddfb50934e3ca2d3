"""What each lever of a plan contributes: the costs of 4K, of 1M, and of 1M with one lever after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvopt.inputs import method as methods
from kvopt.inputs.choice import FIELDS_OF, MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.metrics import assess, metrics
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.lanes import FIELDS, Choice
from kvopt.search.solve import vector
from studies.methods_rows import said
from studies.one_million_meter import tokens_that_take

SHOWN = ("kv_bytes_per_session", "decode_s_per_token", "context_switch_s", "prefill_s")  # of a stage, in this order


@dataclass(frozen=True)
class Stage:
    """One bar of each metric: `costs` in the order of `SHOWN`, SI units, NaN where unknown."""

    label: str
    costs: np.ndarray


def with_members(problem: Problem, choice: Choice, x: np.ndarray, members: Sequence[MethodSpec]) -> tuple[Choice, np.ndarray]:
    """The plan with only these of its methods."""
    settings = vector(problem, {})
    for member in members:
        for name in FIELDS_OF[member.dimension]:
            settings[FIELDS.index(name)] = x[FIELDS.index(name)]
    return Choice(choice.deployment, choice.weights, MethodChoice.of(*members)), settings


def points_of(problem: Problem, plans: Sequence[tuple[Choice, np.ndarray]]) -> list[Point]:
    """The plans evaluated as they are."""
    x, states = assess(problem, [choice for choice, _ in plans], np.array([x for _, x in plans]), load=False)
    return [Point(choice, vector_, state) for (choice, _), vector_, state in zip(plans, x, states, strict=True)]


def measured_costs(problem: Problem, found: Sequence[Point]) -> np.ndarray:
    """`(plans, SHOWN)` of some points at the problem's context."""
    rows = metrics(problem, [one.choice for one in found], np.array([one.x for one in found]), [one.state for one in found])
    return np.array([[np.nan if row[name] is None else row[name] for name in SHOWN] for row in rows])


def in_turn(problem: Problem, choice: Choice, x: np.ndarray) -> list[Stage]:
    """The costs with no method, then with one method of the plan after another, in the order of the dimensions."""
    members = choice.methods.methods
    plans = [with_members(problem, choice, x, members[:count]) for count in range(len(members) + 1)]
    found = points_of(problem, plans)
    labels = ["uncompressed", *(said(points_of(problem, [with_members(problem, choice, x, [member])])[0]) for member in members)]
    return [Stage(label, costs) for label, costs in zip(labels, measured_costs(problem, found), strict=True)]


def shares(stages: Sequence[Stage], columns: Sequence[int]) -> list[tuple[str, float]]:
    """The share of every lever in ln of the whole reduction of some costs; they sum to 1. Empty where nothing was reduced."""
    logs = np.array([np.log(stage.costs[list(columns)]).mean() for stage in stages])
    whole = logs[0] - logs[-1]
    return [] if whole <= 0 else [(stage.label, float(step / whole)) for stage, step in zip(stages[1:], logs[:-1] - logs[1:], strict=True)]


def sparsest() -> tuple[str, float]:
    """The method of sparse prefill attention that keeps least, and the share that it keeps."""
    able = [
        method for method in methods.load_all() if method.dimension == "prefill" and method.allowed and method.where != "needs a trained checkpoint"
    ]
    least = min(able, key=lambda method: (method.allowed.bounds[0] if method.allowed else 1.0, method.id != "minference", method.id))
    return least.id, least.allowed.bounds[0] if least.allowed else 1.0


def after(problem: Problem, choice: Choice, x: np.ndarray, target_s: float) -> tuple[list[Stage], float | None]:
    """What is left for prefill beside a plan: sparse attention, whose loss nobody measured, then reuse of a prefix. The stages and the new tokens.

    With the reused prefix the prompt takes `target_s`; no stage where not even one new token does.
    """
    name, share = sparsest()
    sparse = x.copy()
    sparse[FIELDS.index("prefill_keep")] = share
    costs = measured_costs(problem, points_of(problem, [(choice, sparse)]))[0]
    stages = [Stage(f"{name} {share:.2g} (loss unknown)", costs)]
    new = tokens_that_take(problem, choice, x, problem.context, target_s)
    if new is not None:
        stages.append(Stage(f"prefix reuse, all but {new:,.0f} tokens", np.append(costs[:3], target_s)))
    return stages, new
