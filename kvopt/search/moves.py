"""The inputs whose worth is asked: what each is now, and how it is moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.evaluate import Given
from kvopt.search.lanes import Lane, stacked
from kvopt.search.pipeline import given
from objectives.goals import Targets
from objectives.types import replace


class Setting(NamedTuple):
    """All that one evaluation takes besides the vector of settings: one lane, not stacked."""

    given: Given
    lane: Lane
    targets: Targets


@dataclass(frozen=True)
class Input:
    """One input: its value in SI units, and the same setting with it times a factor. `unit` of `amount` (SI) is what a price is said per."""

    value: Callable[[Setting], float]
    move: Callable[[Setting, float], Setting]
    unit: str
    amount: float


def _accelerator(name: str, unit: str, amount: float) -> Input:
    def move(at: Setting, factor: float) -> Setting:
        accelerator = at.given.system.accelerator
        changed = replace(accelerator, **{name: getattr(accelerator, name) * factor})
        return at._replace(given=at.given._replace(system=replace(at.given.system, accelerator=changed)))

    return Input(lambda at: float(getattr(at.given.system.accelerator, name)), move, unit, amount)


def _part(part: str, name: str, unit: str, amount: float) -> Input:
    """A field of one part of the setting: of the lane, to which the peak of the weights' precision and the link among the ranks belong, or of the targets."""

    def move(at: Setting, factor: float) -> Setting:
        owner = getattr(at, part)
        return at._replace(**{part: replace(owner, **{name: getattr(owner, name) * factor})})

    return Input(lambda at: float(getattr(getattr(at, part), name)), move, unit, amount)


def _both_peaks(at: Setting, factor: float) -> Setting:
    return _accelerator("peak_flops_16bit", "", 1.0).move(_part("lane", "peak_flops", "", 1.0).move(at, factor), factor)


def _slower_thinkers(at: Setting, factor: float) -> Setting:
    system = at.given.system
    workload = replace(system.workload, think_s=system.workload.think_s * factor)
    return at._replace(given=at.given._replace(system=replace(system, workload=workload)))


def _think_s(at: Setting) -> float:
    """[s] a mean gap of the sessions that have one; nan where none has."""
    w = at.given.system.workload
    gaps = np.sum(w.weight * (w.turns - 1))
    return float(np.sum(w.weight * (w.turns - 1) * w.think_s) / gaps) if gaps > 0 else float("nan")


INPUTS: dict[str, Input] = {
    "hbm_bytes": _accelerator("memory_bytes", "GB of HBM a GPU", 1e9),
    "hbm_bandwidth": _accelerator("memory_bandwidth", "TB/s of HBM bandwidth", 1e12),
    "flops": Input(lambda at: float(at.lane.peak_flops), _both_peaks, "100 TFLOP/s", 1e14),
    "host_bandwidth": _accelerator("host_bandwidth", "10 GB/s of host link", 1e10),
    "host_memory": _accelerator("host_memory_bytes", "100 GB of host memory a GPU", 1e11),
    "scaleup_bandwidth": _part("lane", "scaleup_bandwidth", "100 GB/s between GPUs", 1e11),
    "ttft_target": _part("targets", "ttft_s", "s of TTFT target", 1.0),
    "tpot_target": _part("targets", "tpot_s", "ms of TPOT target", 1e-3),
    "think_time": Input(_think_s, _slower_thinkers, "s of think time", 1.0),
}
"""Every input that can be moved without another search. The amounts are what such hardware is sold in, or targets are written in."""


def setting(problem: Problem, point: Point) -> Setting:
    """What a point of a problem was evaluated with."""
    return Setting(given(problem, ()), jax.tree.map(lambda leaf: leaf[0], stacked(problem, [point.choice])), problem.targets)


def known(entry: Input, at: Setting) -> bool:
    """Whether the input has a value that can be moved: an unknown price or link, or no memory at all, has none."""
    return bool(np.isfinite(entry.value(at)) and entry.value(at) > 0)


def together(settings: list[Setting]) -> tuple[list[Given], Lane, Targets]:
    """Several settings as `programs.exact` takes them."""
    return [at.given for at in settings], programs.stack([at.lane for at in settings]), programs.stack([at.targets for at in settings])


def moved(name: str, own: Given, targets: Targets, lanes: Lane, factor: float) -> tuple[Given, Targets, Lane]:
    """What lanes, stacked or not, are evaluated with where one input is `factor` times what it is."""
    at = INPUTS[name].move(Setting(own, lanes, targets), factor)
    return at.given, at.targets, at.lane
