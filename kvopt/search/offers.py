"""Which methods are searched for a model, an accelerator, a task and an engine."""

from __future__ import annotations

import numpy as np

from kvopt.accuracy import curves
from kvopt.inputs import engine as engines
from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice, choices
from kvopt.inputs.method import MethodSpec
from kvopt.plans import named_methods
from kvopt.problem import Problem
from kvopt.realise import placed
from kvopt.search.dominance import undominated

FEWEST = 3  # readings of a method that is searched without being named: one or two say little, whatever its kind
MOST_METHODS = 3  # of a research plan: no published source measured more than two compressed dimensions at once


def applicable(problem: Problem, method: MethodSpec) -> bool:
    """Whether the model has what the method works on: heads that can be told apart are more than one latent (MLA) or one KV head (MQA)."""
    return method.dimension != "head" or float(np.max(problem.architecture.head_count)) > 1


def deployable_methods(problem: Problem) -> list[MethodChoice]:
    """What the engine can run today on this accelerator: no compression first, then every method with evidence for the task."""
    offered = [method for method in methods.load_all() if applicable(problem, method) and placed(problem, method)]
    return list(choices(offered, problem.asked))


def research_methods(problem: Problem) -> list[MethodChoice]:
    """Every combination of up to three methods with evidence for the task, whatever runs them.

    Where a selection cannot see the question, it may also keep the whole cache and select anew for each. A format that engines run must have kernels for
    this accelerator in one of them. Methods that another one beats in every respect are left out, and those with next to no measurements of their own.
    """
    kernels = {name for engine in engines.load_all() for name in engine.formats_on(problem.accelerator.arch, problem.accelerator.id)}
    offered = [
        method
        for method in methods.load_all()
        if applicable(problem, method) and (method.dimension != "bits" or method.where != "engine-ready" or method.id in kernels)
    ]
    if problem.question_hidden:
        offered += [methods.reselecting(method) for method in offered if methods.can_reselect(method)]
    best = undominated(problem, [method for method in offered if method.where != "needs a trained checkpoint" and _known(problem, method)])
    return [chosen for chosen in choices(best, problem.asked) if len(chosen.methods) <= MOST_METHODS]


def _known(problem: Problem, method: MethodSpec) -> bool:
    curve = curves.find(method, problem.asked)
    return curve is not None and curve.rows + curve.borrowed >= FEWEST


def offered(problem: Problem, research: bool = False) -> list[MethodChoice]:
    """The methods that may be searched: all that apply, or those that the scenario names. No compression comes first."""
    if problem.scenario.methods is None:
        return research_methods(problem) if research else deployable_methods(problem)
    named, _ = named_methods(problem.scenario.methods)
    usable = [method for method in named.methods if (research or placed(problem, method))]
    return list(choices(usable, problem.asked))
