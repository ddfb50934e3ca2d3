"""What an answer's accuracy rests on, as plain values: the readings behind each method of a plan, what they predict of it, and how methods add up.

Taken when an answer is made, so that a saved run holds it. `kvopt.assumptions` has the inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from kvopt.accuracy import curves
from kvopt.accuracy.asked import Asked
from kvopt.accuracy.reading import Reading, model_key
from kvopt.inputs.choice import FIELDS_OF, MEASURED_PAIRS, composed_log_sd
from kvopt.inputs.method import Dimension, MethodSpec
from kvopt.kept_programs import Program
from kvopt.metrics import plain
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.lanes import FIELDS, PLAN_FIELDS
from objectives.accuracy.composition import Accuracy, Losses, Shares, losses
from objectives.accuracy.proxies import FULL_BITS
from objectives.types import Plan, replace

MOST_NAMED = 5  # models, benchmarks and sources by name
ALIKE = Shares(layer=1.0, head=1.0, content=1.0)


def behind(problem: Problem, point: Point) -> dict[str, Any]:
    """The evidence behind the accuracy of a plan.

    `methods`: for each, how many readings of this task family and of others, the models, benchmarks, lengths and sources they are from (most frequent first,
    with counts), what alone it is predicted to keep with both ends of the interval at the confidence asked for, whether that lies inside what was measured,
    and which shares of the spread the method, the model and noise have. `together`: what all keep, and in words how the losses of methods are added.
    """
    found = point.choice.methods
    alone = _alone(problem, point) if found.methods else {}
    return {
        "task": problem.task,
        "context": problem.context,
        "question": "hidden" if problem.question_hidden else "seen",
        "model": problem.model.id,
        "confidence": problem.scenario.confidence,
        "methods": [_method(problem, point, method, alone[method.dimension]) for method in found.methods],
        "together": {
            "retained": plain(point.state.retained),
            "lower": plain(point.state.lower),
            "weights_retained": point.choice.weights.retained,
            "interaction_retained": alone["interactions"]["retained"] if alone else 1.0,
            "note": _added(found.methods),
        },
    }


def _method(problem: Problem, point: Point, method: MethodSpec, predicted: Mapping[str, float]) -> dict[str, Any]:
    read, asked = curves.read_as(method, problem.asked)
    curve = curves.find(method, problem.asked)
    assert curve is not None  # a choice without evidence has no accuracy, and was never a point
    here = _readings(read, asked)
    on_task = [one for one in here if one.task == problem.task] or here
    fields = [np.asarray(_settings(point)[name], float) for name in FIELDS_OF[method.dimension]]
    values = np.ravel(sum(fields) / len(fields))
    tried = (
        values.mean(keepdims=True) if method.dimension in ("layer", "head") else values[values != (FULL_BITS if method.dimension == "bits" else 1)]
    )
    return {
        "method": method.id,
        "name": method.name,
        "dimension": method.dimension,
        "kept": float(values.mean()),
        "readings": curve.rows,
        "other_tasks": curve.borrowed,
        "own": sum(one in problem.asked.own for one in here),
        "of_this_model": sum(one.model == model_key(problem.model.id) for one in here),
        "models": _counted(one.model for one in on_task),
        "benchmarks": _counted(one.benchmark for one in on_task),
        "sources": _counted(one.source for one in on_task),
        "lengths": [min(one.context for one in on_task), max(one.context for one in on_task)] if on_task else None,
        "kept_measured": list(curve.range) if curve.range else None,
        "coverage": curve.covers(tried, problem.asked.context),
        **predicted,
        "spread": dict(curve.parts),
    }


def _readings(method: MethodSpec, asked: Asked) -> list[Reading]:
    """The readings that speak for a method as it is asked about, a person's own among them."""
    model = curves.fitted(method.dimension, asked.own)
    question = curves.speaks(model, method, asked.question_hidden)
    return [] if question is None else model.by_selection.get(curves.planned(method, asked, question).selection, [])


def _counted(names: Iterable[str]) -> list[list[Any]]:
    """The most frequent names with their counts, and how many others there are under an empty name."""
    found = Counter(names).most_common()
    rest = sum(count for _, count in found[MOST_NAMED:])
    return [[name, count] for name, count in found[:MOST_NAMED]] + ([["", rest]] if rest else [])


def _settings(point: Point) -> dict[str, Any]:
    """What the plan keeps, by field: numbers, or tables where layers and heads differ."""
    values = dict(zip(FIELDS, (float(entry) for entry in point.x), strict=True))
    heads, blocks = point.choice.heads, point.choice.blocks
    tables = {name: heads.table(name) for name in heads.kept} if heads else dict(blocks.tables) if blocks else {}
    return {**{name: values[name] for name in PLAN_FIELDS}, **tables}


def _alone(problem: Problem, point: Point) -> dict[str, dict[str, float]]:
    """What each dimension by itself keeps, with both ends of its interval, and what their interaction does."""
    heads = point.choice.heads
    settings: dict[str, Any] = {name: np.asarray(value, np.float64) for name, value in _settings(point).items()}
    plan = Plan(**settings)
    if heads is not None:  # rows as its shares have them
        plan = replace(plan, **{name: np.asarray(table, np.float64) for name, table in heads.kept.items()})
    accuracy = point.choice.methods.accuracy(problem.asked)
    accuracy = replace(accuracy, interactions=replace(accuracy.interactions, composed_log_sd=np.float64(0.0)))
    z = float(problem.targets.z)
    with jax.enable_x64(True):
        found = jax.device_get(_at_each(plan, accuracy, ALIKE if heads is None else heads.shares, np.array([0.0, z, -z])))
    edges = ("retained", "lower", "upper")
    return {name: dict(zip(edges, np.exp(-getattr(found, name)).tolist(), strict=True)) for name in Losses.__dataclass_fields__}


@Program
def _at_each(plan: Plan, accuracy: Accuracy, shares: Shares, z: Any) -> Losses:
    """The losses of each dimension at every z, `(n,)`."""
    return jax.vmap(lambda one: losses(plan, accuracy, shares, one))(z)


def _added(methods: tuple[MethodSpec, ...]) -> str:
    """How the losses of methods are put together, in words."""
    used: frozenset[Dimension] = frozenset(method.dimension for method in methods)
    names = " and ".join(method.id for method in methods)
    if not methods:
        return "nothing is compressed: nothing is lost"
    if len(used) == 1:
        return "one method alone: the interval is its own"
    width = 100 * composed_log_sd(used)
    if len(used) > 2:
        measured = "nobody measured three together"
    else:
        measured = "the two were measured together" if used in MEASURED_PAIRS else f"nobody measured {names} together"
    return f"log losses are added; {measured}, so that a standard deviation of {width:.0f} % of the whole loss is added to the spreads of the parts"
