"""The ways in which the accelerators can be grouped: the categorical half of the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kvopt.problem import Problem
from objectives.types import Accelerator

MOST_STAGES = 8
SPLITS = (0.25, 0.5, 0.75)  # shares of the groups that only prefill, tried beside one group and all but one


@dataclass(frozen=True)
class Deployment:
    """One grouping of all accelerators, and the fate of idle caches that leave HBM."""

    tp: int
    pp: int = 1
    replicas: int = 1
    dcp: int = 1  # decode-context parallelism
    attention_dp: int = 1
    expert_parallel: bool = False
    prefill_groups: int = 0
    park: bool = True

    @property
    def label(self) -> str:
        """What a person calls it, e.g. `TP2 x 4, park`."""
        parts = [f"TP{self.tp}", *([f"PP{self.pp}"] if self.pp > 1 else []), *([f"DCP{self.dcp}"] if self.dcp > 1 else [])]
        parts += [*([f"attention DP{self.attention_dp}"] if self.attention_dp > 1 else []), *(["EP"] if self.expert_parallel else [])]
        grouped = " ".join(parts) + (f" x {self.replicas}" if self.replicas > 1 else "")
        split = f", {self.prefill_groups} of {self.replicas} prefill only" if self.prefill_groups else ""
        return f"{grouped}{split}, {'park' if self.park else 'recompute'}"


def divisors(number: int) -> list[int]:
    """All divisors, rising."""
    return [d for d in range(1, number + 1) if number % d == 0]


def scaleup_bandwidth(problem: Problem, device: Accelerator, tp: int) -> np.float64:
    """[bytes/s] one way among the ranks of a group: the host link's where the group is wider than the scale-up domain."""
    domain = problem.accelerator.scaleup_domain
    if domain is not None and tp > domain.value and not np.isnan(device.host_bandwidth):
        return np.float64(min(device.scaleup_bandwidth, device.host_bandwidth))
    return np.float64(device.scaleup_bandwidth)


def groupings(problem: Problem) -> Iterator[tuple[int, int]]:
    """(tp, pp) that the accelerators, the query heads and the layers allow, and the scenario has not fixed otherwise."""
    scenario, model = problem.scenario, problem.model
    widths = [d for d in divisors(scenario.gpus) if model.query_heads % d == 0] if problem.engine.parallelism.tensor else [1]
    for tp in [scenario.tp] if scenario.tp else widths:
        stages = [scenario.pp] if scenario.pp else [d for d in divisors(scenario.gpus // tp) if d <= min(MOST_STAGES, model.layers)]
        if problem.engine.parallelism.pipeline is None and not scenario.pp:
            stages = [1]
        yield from ((tp, pp) for pp in stages)


def deployments(problem: Problem) -> list[Deployment]:
    """Every grouping that the engine can run, for every fate of idle caches that it has. Unknown links leave out what needs them."""
    engine, arch = problem.engine, problem.architecture
    heads = int(np.max(arch.head_count.sum(axis=-1)))
    latent = bool(np.any((arch.value_width == 0) & (arch.key_width > 0)))
    windowed = bool(np.any(arch.window > 0))
    experts = bool(arch.experts > 1)
    linked = not np.isnan(problem.device(problem.checkpoints[0]).scaleup_bandwidth)
    found = []
    for tp, pp in groupings(problem):
        if tp > 1 and not linked:
            continue
        replicas = problem.scenario.gpus // (tp * pp)
        contexts = engine.parallelism.decode_context_sizes(tp, heads, latent) if not windowed else (1,)
        attention = (1, tp) if engine.parallelism.attention_data and tp > 1 and experts else (1,)
        splits = {0}
        if engine.disaggregated_prefill.available and replicas > 1 and fates(problem)[0]:
            splits |= {1, replicas - 1, *(round(share * replicas) for share in SPLITS)} - {replicas}
        for dcp in contexts:
            for dp in attention:
                if dp > 1 and dcp > 1:
                    continue
                for ep in (False, True) if experts and tp > 1 and engine.parallelism.expert else (False,):
                    for split in sorted(splits):
                        for park in fates(problem):
                            found.append(Deployment(tp, pp, replicas, dcp, dp, ep, split, park))
    return found


def fates(problem: Problem) -> tuple[bool, ...]:
    """What can become of an idle cache that leaves HBM: parked (True) where engine, link and scenario allow it, recomputed (False)."""
    linked = not np.isnan(problem.device(problem.checkpoints[0]).host_bandwidth)
    can_park = "park" in problem.engine.idle and linked
    asked = problem.scenario.idle
    if problem.scenario.fidelity == "peak" and linked:
        return (True,)  # the theory knows no other fate
    if not np.any(problem.sessions.turns > 1):
        return (can_park,)
    allowed = [fate for fate, has in ((True, can_park), (False, "recompute" in problem.engine.idle)) if has]
    return tuple(fate for fate in allowed if asked is None or fate == (asked == "park")) or (False,)
