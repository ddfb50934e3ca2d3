"""`kvopt next`: the measurements of accuracy that would most reduce the regret of the present choice of a method, with how to run each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvopt import describe
from kvopt.accuracy import alternatives
from kvopt.accuracy.alternatives import Option
from kvopt.accuracy.own import COLUMNS
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import Reading
from kvopt.accuracy.recipes import kept, recipe
from kvopt.accuracy.value import Belief, belief, best_measurements, expected, regret
from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.results import Result

MOST = 5  # measurements that are named
CERTAIN = 0.1  # points of regret below which nothing needs measuring
LEAST = 0.01  # points that a further measurement must save


def next_measurements(scenario: Scenario | None = None, **fields: Any) -> Result:
    """The up to five measurements that would most reduce the regret of the present choice.

    The choice is between single methods at the same bytes of the cache. Takes the scenario's fields by name. Raises `BadInput`.
    """
    if scenario is None or fields:
        scenario = Scenario.of(**{**({} if scenario is None else scenario.model_dump(exclude_unset=True)), **fields})
    problem = resolve(scenario)
    found = alternatives.applicable(problem)
    if not found:
        raise BadInput("engine", problem.scenario.engine, f"runs no method with evidence for {problem.task}; leave it out, or give --engine any")
    budget, why = alternatives.byte_budget(problem, found)
    options = [option for method, _ in found if (option := alternatives.within(problem, method, budget)) is not None]
    if not options:
        raise BadInput(
            "methods", problem.scenario.methods or "(none)", f"no method with evidence for {problem.task} keeps so few bytes ({budget:.1%})"
        )
    return Result("next", {"scenario": describe.scenario(problem), **_answer(problem, budget, why, options)}, problem.warnings)


def _answer(problem: Problem, budget: float, why: str, options: Sequence[Option]) -> dict[str, Any]:
    lower = [other for option in options if (other := alternatives.beside(problem, option)) is not None]
    pairs = sorted(
        zip([*options, *lower], alternatives.readings(problem, [*options, *lower]), strict=True), key=lambda pair: FITTED.index(pair[1].dimension)
    )
    asked = [reading for _, reading in pairs]
    choosable = [i for i, (option, _) in enumerate(pairs) if any(option is one for one in options)]
    known = _known(problem, asked)
    now = regret(known.of(choosable))
    certain = now < CERTAIN
    chosen = [] if certain else best_measurements(known, choosable, range(len(asked)), MOST, LEAST)
    middle, spread = expected(known.mean, np.diag(known.covariance)), np.sqrt(np.diag(known.covariance))
    ranked = sorted(choosable, key=lambda i: -middle[i])
    return {
        "bytes_kept": budget,
        "bytes_why": why,
        "choice": _option(pairs[ranked[0]][0], asked[ranked[0]], middle[ranked[0]], spread[ranked[0]]),
        "alternatives": [_option(pairs[i][0], asked[i], middle[i], spread[i]) for i in ranked],
        "regret_points": now,
        "certain": certain,
        "measurements": [_measurement(problem, rank, pairs[i][0], asked[i], after) for rank, (i, after) in enumerate(chosen, start=1)],
        "feed_back": {"command": "kvopt calibrate --accuracy FILE.csv", "columns": list(COLUMNS)},
    }


def _known(problem: Problem, asked: Sequence[Reading]) -> Belief:
    """What is known of readings that are sorted by dimension."""
    parts = []
    for dimension in FITTED:
        mine = [one for one in asked if one.dimension == dimension]
        if mine:
            parts.append(alternatives.together(problem, dimension, mine))
    return belief(parts)


def _option(option: Option, reading: Reading, middle: float, spread: float) -> dict[str, Any]:
    return {
        "method": option.method.id,
        "dimension": option.method.dimension,
        "keeps": kept(reading),
        "bytes_kept": option.bytes,
        "expected_retained": float(middle),
        "log_loss_sd": float(spread),
    }


def _measurement(problem: Problem, rank: int, option: Option, reading: Reading, after: float) -> dict[str, Any]:
    bits = option.method.dimension == "bits"
    return {
        "rank": rank,
        "method": option.method.id,
        "dimension": option.method.dimension,
        "keeps": kept(reading),
        "kept_fraction": None if bits else option.key,
        "bits": (option.key + option.value) / 2 if bits else None,
        "task": reading.task,
        "benchmark": reading.benchmark,
        "context_len": reading.context,
        "query_aware": reading.question == "seen",
        "model": problem.model.name,
        "regret_after_points": after,
        "run": recipe(option.method, reading, problem.model.name),
    }
