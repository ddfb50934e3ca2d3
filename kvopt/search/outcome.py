"""Infeasible lanes as values: for every categorical choice of a search whether any setting of it is feasible, and if not, what is broken and by how much.

A lane (grouping x checkpoint x methods) is tried at settings from its least compression to its most, with idle caches in HBM and out of it, at its smallest and
its default chunk, each at the largest load that it carries, which is the least where it carries none. The code is the constraint that is broken most at the
setting that breaks fewest, and those least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from kvopt.infeasible import explain, memory_ledger, weights_do_not_fit
from kvopt.metrics import assess
from kvopt.problem import Problem, Weights
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.deployments import Deployment, deployments
from kvopt.search.lanes import BATCH, FIELDS, PLAN_FIELDS, Choice, Lane, default_chunk, stacked, take
from kvopt.search.offers import offered
from kvopt.search.pipeline import given, linked
from objectives.limits import AT_LEAST, NAMES
from objectives.serving.group import weight_bytes

COMPRESSIONS = 9  # settings from the least to the most compression
NOT_SAID = 1.99  # a violation this large has a limit of nothing: no excess in percent says how much too much it is


class Outcome(IntEnum):
    """What became of a lane. `UNKNOWN`: a quantity that it needs is not known."""

    FEASIBLE = 0
    WEIGHTS = 1
    HBM = 2
    HBM_PEAK = 3
    HOST_MEMORY = 4
    HOST_LINK = 5
    PREFILL_UTILISATION = 6
    MAX_SEQUENCES = 7
    TTFT_S = 8
    TPOT_S = 9
    ACCURACY = 10
    UNKNOWN = 11

    @property
    def code(self) -> str:
        """As files name it: the constraint's own name, or `feasible`, `weights` or `unknown`."""
        return self.name.lower()

    @property
    def message(self) -> str:
        """What it says to a person."""
        return MESSAGES[self]


MESSAGES = {
    Outcome.FEASIBLE: "feasible",
    Outcome.WEIGHTS: "the weights do not fit",
    Outcome.HBM: "the caches of the least load do not fit in HBM",
    Outcome.HBM_PEAK: "the longest session does not fit in HBM",
    Outcome.HOST_MEMORY: "parked caches do not fit in host memory at the least load",
    Outcome.HOST_LINK: "the host link is too busy at the least load",
    Outcome.PREFILL_UTILISATION: "prefill is too busy at the least load",
    Outcome.MAX_SEQUENCES: "more requests in flight than are admitted at the least load",
    Outcome.TTFT_S: "time to first token is above its target at the least load",
    Outcome.TPOT_S: "time per output token is above its target at the least load",
    Outcome.ACCURACY: "no setting within the other limits keeps the accuracy floor",
    Outcome.UNKNOWN: "a quantity that it needs is unknown",
}
OF_CONSTRAINT = {name: Outcome[name.upper()] for name in NAMES}


@dataclass(frozen=True)
class Outcomes:
    """The lanes of a search, one entry each."""

    codes: np.ndarray  # (lanes,) of `Outcome`
    broken: np.ndarray  # (lanes, constraints) violations of the setting that comes closest, positive where broken (`objectives.limits.violation`)
    x: np.ndarray  # (lanes, fields) that setting

    @property
    def excess_percent(self) -> np.ndarray:
        """By how much the constraint of the code is broken `(lanes,)`: percent above its limit, of accuracy below its floor; 0 where feasible, nan unsaid."""
        names = {int(code): place for place, code in enumerate(OF_CONSTRAINT.values())}
        found = np.zeros(len(self.codes))
        for row, code in enumerate(self.codes):
            if int(code) in names:
                found[row] = excess(NAMES[names[int(code)]], float(self.broken[row, names[int(code)]]))
            elif code != Outcome.FEASIBLE:
                found[row] = np.nan
        return found


def excess(name: str, violation: float) -> float:
    """[%] that a violation stands for; nan where its limit is nothing. A violation is the difference over the mean of value and limit."""
    if violation >= NOT_SAID:
        return float("nan")
    return 100 * 2 * violation / (2 + violation if name in AT_LEAST else 2 - violation)


def outcomes(problem: Problem, choices: Sequence[Choice]) -> Outcomes:
    """The outcome of every choice whose weights fit, as `kvopt.search.lanes.make_choices` gives them; single precision, as the search itself."""
    lanes = linked(stacked(problem, list(choices)))
    x = settings(problem, lanes)
    owner = np.repeat(np.arange(len(choices)), x.shape[1])
    found = programs.measure(given(problem, ()), take(lanes, owner), programs.repeat(problem.targets, len(owner)), x.reshape(-1, x.shape[-1]))
    broken = found.broken.reshape(*x.shape[:2], -1)
    order = np.lexsort((np.nan_to_num(broken.max(axis=2), nan=np.inf), (~(broken <= 0)).sum(axis=2)), axis=1)
    rows, closest = np.arange(len(choices)), order[:, 0]
    least = broken[rows, closest]
    worst = np.array(list(OF_CONSTRAINT.values()))[np.nan_to_num(least, nan=-np.inf).argmax(axis=1)]
    codes = np.where((least <= 0).all(axis=1), Outcome.FEASIBLE, np.where((least > 0).any(axis=1), worst, Outcome.UNKNOWN))
    return Outcomes(codes, least, found.x.reshape(x.shape)[rows, closest])


def settings(problem: Problem, lanes: Lane) -> np.ndarray:
    """What is tried of every lane `(lanes, tries, fields)`: ratios and bits move together from most to least, on a log scale."""
    low, high = lanes.low[:, None], lanes.high[:, None]
    share = np.linspace(0, 1, COMPRESSIONS)[None, :, None]
    path = np.exp((1 - share) * np.log(np.maximum(high, 1e-12)) + share * np.log(np.maximum(low, 1e-12)))
    column = {name: FIELDS.index(name) for name in FIELDS}
    tries = []
    for resident in (0.0, 1.0) if problem.keeps_idle_caches else (0.0,):
        for chunk in dict.fromkeys((float(lanes.low[:, column["chunk"]].min()), default_chunk(problem))):
            tried = np.repeat(low, COMPRESSIONS, axis=1)
            plan = [column[name] for name in PLAN_FIELDS]
            tried[:, :, plan] = path[:, :, plan]
            tried[:, :, column["idle_resident"]] = resident * lanes.high[:, None, column["idle_resident"]]
            tried[:, :, column["chunk"]] = np.clip(chunk, low[:, :, column["chunk"]], high[:, :, column["chunk"]])
            tried[:, :, BATCH] = low[:, :, BATCH]
            tries.append(tried)
    return np.concatenate(tries, axis=1)


def summary(problem: Problem, choices: Sequence[Choice]) -> dict[str, Any]:
    """`lanes`, how many are `feasible`, and `by_code` the others: `code`, `message`, `count`, `least_excess_percent` and the `change` that would do there.

    `choices`: those whose weights fit; the others are counted from the groupings that the problem allows.
    """
    lanes = len(deployments(problem)) * len(problem.checkpoints) * len(offered(problem))
    found = outcomes(problem, choices) if choices else Outcomes(np.zeros(0, int), np.zeros((0, len(NAMES))), np.zeros((0, len(FIELDS))))
    too_heavy = max(lanes - len(choices), 0)
    rows = [_heavy(problem, choices, too_heavy)] if too_heavy else []
    percent = found.excess_percent
    for code in sorted(set(found.codes.tolist()) - {Outcome.FEASIBLE}):
        of = np.flatnonzero(found.codes == code)
        least = of[np.nan_to_num(percent[of], nan=np.inf).argmin()]
        rows.append(
            {
                "code": Outcome(code).code,
                "message": Outcome(code).message,
                "count": len(of),
                "least_excess_percent": float(percent[least]) if np.isfinite(percent[least]) else None,
                "change": _change(problem, choices[least], found.x[least]),
            }
        )
    return {"lanes": lanes, "feasible": int(np.sum(found.codes == Outcome.FEASIBLE)), "by_code": sorted(rows, key=lambda row: -row["count"])}


def _heavy(problem: Problem, choices: Sequence[Choice], count: int) -> dict[str, Any]:
    """The lanes whose grouping does not hold the weights."""
    fitting = {(choice.deployment, choice.weights) for choice in choices}
    heavy = [(one, weights) for one in deployments(problem) for weights in problem.checkpoints if (one, weights) not in fitting]
    over = [_too_heavy_percent(problem, one, weights) for one, weights in heavy]
    wider = f"{min((one.tp * one.pp for one, _ in fitting), default=0)} or more GPUs a group"
    change = wider if fitting else weights_do_not_fit(problem)["change"]
    least = max(min(over), 0.0) if over else None
    return {"code": Outcome.WEIGHTS.code, "message": Outcome.WEIGHTS.message, "count": count, "least_excess_percent": least, "change": change}


def _too_heavy_percent(problem: Problem, grouped: Deployment, weights: Weights) -> float:
    """[%] by which weights and reserve exceed what the engine may use of a GPU."""
    held = float(weight_bytes(problem.architecture, problem.checkpoint(weights), grouped.attention_dp))
    ledger = memory_ledger(problem, grouped.tp * grouped.pp, held, grouped.tp)
    return 100 * ((ledger["weights"] + ledger["reserve"]) / ledger["usable"] - 1)


def _change(problem: Problem, choice: Choice, x: np.ndarray) -> str:
    """The least change for one lane, from the same setting in double precision."""
    at, states = assess(problem, [choice], x[None])
    return str(explain(problem, Point(choice, at[0], states[0]))["change"])
