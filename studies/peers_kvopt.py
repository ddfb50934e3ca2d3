"""kvopt on the problems of the study `peers`: its search by value of the blocks, every plan recorded as soon as its schedule is known."""

from __future__ import annotations

import numpy as np

from kvopt.search.blocks.front import BlockPlans
from kvopt.search.blocks.stream import stream
from kvopt.search.evaluate import GOALS
from kvopt.search.uniform_front import uniform_stream
from kvopt.search.vector_blocks import BlockVector
from kvopt.search.vector_problem import OBJECTIVES, Evaluated
from kvopt.search.vector_uniform import FLOOR, UniformVector
from studies.peers_runs import Recorder

COLUMNS = [list(GOALS).index(name) for name in OBJECTIVES]


def kvopt(recorder: Recorder, seed: int) -> None:
    """kvopt's own search, which draws nothing: every seed is the same."""
    problem = recorder.problem
    if isinstance(problem, BlockVector):
        for plans in stream(problem.search, FLOOR):
            keep(recorder, problem, plans)
    assert isinstance(problem, UniformVector)
    for plans in uniform_stream(problem.search(), FLOOR):
        recorder.record(problem.index_of(plans.lane, plans.x), evaluated(plans))


def keep(recorder: Recorder, problem: BlockVector, plans: BlockPlans) -> None:
    """Records plans with their schedules."""
    recorder.record(problem.index_of(plans.lane, plans.x, plans.picks), evaluated(plans))


def evaluated(plans: BlockPlans) -> Evaluated:
    """Plans as every other optimizer is told of its own."""
    goals, violation = plans.logs[:, COLUMNS], plans.broken.max(axis=1)
    return Evaluated(goals, violation, (violation <= 0) & np.isfinite(goals).all(axis=1))
