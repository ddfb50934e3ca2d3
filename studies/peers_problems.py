"""The problems of the study `peers`, by name."""

from __future__ import annotations

from collections.abc import Callable

from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search.vector_blocks import BlockVector
from kvopt.search.vector_problem import VectorProblem
from kvopt.search.vector_uniform import UniformVector

METHODS = ("kvzip", "palu", "round-to-nearest")  # of tokens, rank and bits
CONTEXT = "128k"


def _chosen() -> MethodChoice:
    return MethodChoice.of(*map(methods.load, METHODS))


def uniform() -> VectorProblem:
    """Eight variables: one plan for the whole model, on four accelerators, for documents with five rounds of questions."""
    return UniformVector(resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=4)), _chosen())


def per_layer() -> VectorProblem:
    """324 variables: each of 80 layers keeps its own share of tokens and ranks, and has its own format."""
    return BlockVector(resolve(Scenario.of(model="llama-3.1-70b", accelerator="h100-sxm", gpus=8, context=CONTEXT)), _chosen(), "layer")


def per_head() -> VectorProblem:
    """1,028 variables: the same for each KV head of 32 layers."""
    return BlockVector(resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=4, context=CONTEXT)), _chosen(), "head")


PROBLEMS: dict[str, Callable[[], VectorProblem]] = {"uniform": uniform, "per-layer": per_layer, "per-head": per_head}
