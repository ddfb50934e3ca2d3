"""Which methods are searched for a model, an accelerator, a task and an engine."""

from __future__ import annotations

import numpy as np

from kvopt.inputs import engine as engines
from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice, choices
from kvopt.inputs.method import MethodSpec
from kvopt.plans import named_methods
from kvopt.problem import Problem

MOST_METHODS = 3  # of a research plan: no published source measured more than two compressed dimensions at once


def applicable(problem: Problem, method: MethodSpec) -> bool:
    """Whether the model has what the method works on: heads that can be told apart are more than one latent (MLA) or one KV head (MQA)."""
    return method.dimension != "head" or float(np.max(problem.architecture.head_count)) > 1


def deployable_methods(problem: Problem) -> list[MethodChoice]:
    """What the engine can run today on this accelerator: no compression first, then every method with evidence for the task."""
    formats = problem.engine.formats_on(problem.accelerator.arch, problem.accelerator.id)
    offered = [method for method in methods.load_all() if applicable(problem, method) and (method.dimension != "bits" or method.id in formats)]
    return list(choices(offered, problem.task, problem.question_hidden, problem.engine.id))


def research_methods(problem: Problem) -> list[MethodChoice]:
    """Every combination of up to three methods with evidence for the task, whatever runs them.

    A format that engines run must have kernels for this accelerator in one of them.
    """
    kernels = {name for engine in engines.load_all() for name in engine.formats_on(problem.accelerator.arch, problem.accelerator.id)}
    offered = [
        method
        for method in methods.load_all()
        if applicable(problem, method) and (method.dimension != "bits" or method.where != "engine-ready" or method.id in kernels)
    ]
    return [chosen for chosen in choices(offered, problem.task, problem.question_hidden) if len(chosen.methods) <= MOST_METHODS]


def offered(problem: Problem, research: bool = False) -> list[MethodChoice]:
    """The methods that may be searched: all that apply, or those that the scenario names. No compression comes first."""
    if problem.scenario.methods is None:
        return research_methods(problem) if research else deployable_methods(problem)
    named, _ = named_methods(problem.scenario.methods)
    engine = None if research else problem.engine.id
    return list(choices([method for method in methods.load_all() if method in named.methods], problem.task, problem.question_hidden, engine))
