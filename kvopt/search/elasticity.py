"""How the deployed plan's rate answers to each input: solved again with the input moved either way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.evaluate import Given
from kvopt.search.lanes import stacked
from kvopt.search.pipeline import given
from objectives.goals import Targets
from objectives.types import replace

STEP = 0.1  # relative move of the input

Moved = Callable[[Given, Targets, float], tuple[Given, Targets]]


def _accelerator(*names: str) -> Moved:
    def move(own: Given, targets: Targets, factor: float) -> tuple[Given, Targets]:
        accelerator = own.system.accelerator
        changed = replace(accelerator, **{name: getattr(accelerator, name) * factor for name in names})
        return own._replace(system=replace(own.system, accelerator=changed)), targets

    return move


def _target(name: str) -> Moved:
    def move(own: Given, targets: Targets, factor: float) -> tuple[Given, Targets]:
        return own, replace(targets, **{name: getattr(targets, name) * factor})

    return move


INPUTS: dict[str, Moved] = {
    "hbm_bytes": _accelerator("memory_bytes"),
    "hbm_bandwidth": _accelerator("memory_bandwidth"),
    "flops": _accelerator("peak_flops_16bit"),
    "host_bandwidth": _accelerator("host_bandwidth"),
    "host_memory": _accelerator("host_memory_bytes"),
    "scaleup_bandwidth": _accelerator(),
    "ttft_target": _target("ttft_s"),
    "tpot_target": _target("tpot_s"),
}
"""The inputs that are moved. FLOP/s moves both peaks; peak of the weights' precision and scale-up link belong to the lane."""
_OF_LANE = {"flops": "peak_flops", "scaleup_bandwidth": "scaleup_bandwidth"}


def elasticities(problem: Problem, point: Point) -> dict[str, dict[str, float | None]]:
    """Percent of sessions per GPU-hour per percent of each input, for a small step down (left) and up (right).

    The plan stays as it is deployed, only its load is solved again; where left and right differ, a constraint binds at the optimum.
    """
    factors = (1.0, 1 - STEP, 1 + STEP)
    owns, targets, lanes = [], [], []
    lane = stacked(problem, [point.choice])
    for name, move in INPUTS.items():
        for factor in factors:
            own, target = move(given(problem, ()), problem.targets, factor)
            owns.append(own)
            targets.append(target)
            changed = _OF_LANE.get(name)
            lanes.append(replace(lane, **{changed: getattr(lane, changed) * factor}) if changed else lane)
    together = programs.stack(lanes, axis=0)
    _, states = programs.exact(owns, together, programs.stack(targets), np.repeat(point.x[None], len(owns), axis=0))
    rates = np.array([_rate(state) for state in states]).reshape(len(INPUTS), 3)
    return {
        name: {"left": _slope(row[0], row[1], 1 - STEP), "right": _slope(row[0], row[2], 1 + STEP)} for name, row in zip(INPUTS, rates, strict=True)
    }


def _rate(state: Any) -> float:
    return float(state.values["sessions_per_gpu_hour"]) if np.all(np.asarray(state.broken) <= 0) else 0.0


def _slope(base: float, moved: float, factor: float) -> float | None:
    """d ln rate / d ln input; None where the move makes the plan infeasible."""
    return math.log(moved / base) / math.log(factor) if base > 0 and moved > 0 else None
