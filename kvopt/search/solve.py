"""One question solved: the best plan for today's engine, the uncompressed baseline, and the best plan of research."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kvopt.compiling import clock
from kvopt.metrics import assess
from kvopt.problem import Problem
from kvopt.search import best as search
from kvopt.search.best import Point
from kvopt.search.blocks import answer as by_block
from kvopt.search.blocks.answer import BlockAnswer
from kvopt.search.deployments import Deployment
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import FIELDS, Choice, default_chunk, make_choices
from kvopt.search.offers import offered
from kvopt.search.pipeline import Found, Progress, Space, Tally, space
from kvopt.search.uniform_bound import RATES, Bound, uniform_bound

RESEARCH_DEPLOYMENTS = 4  # groupings that research plans are searched on: the best of the deployable search
LOOKED_AT = 256  # candidates examined for the least broken one where none is feasible


@dataclass(frozen=True)
class Solved:
    """The optima of one problem; `None` where no plan meets its constraints."""

    answer: Point | None
    baseline: Point | None
    research: Point | None
    candidates: Space | None  # deployable; None where no grouping holds the weights
    plain: tuple[Choice, ...]  # of them, the uncompressed
    wide: Space | None  # research
    cost: dict[str, float]  # seconds, compile_seconds, evaluations
    bound: Bound | None = None  # on the deployable plan, uniform or by layer
    blocks: dict[str, BlockAnswer | None] = field(default_factory=dict)  # the best plans by layer or head: deployable, research
    uniform: dict[str, float | None] = field(default_factory=dict)  # [1/h] sessions per GPU-hour of the best uniform plans beside them


def solve(problem: Problem, objective: str, progress: Progress) -> Solved:
    """The optima for one objective."""
    started, compiled = time.perf_counter(), clock().seconds
    seed = problem.scenario.seed
    candidates = make_choices(problem, offered(problem))
    plain = [choice for choice in candidates if not choice.methods.methods]
    if not candidates:
        return Solved(None, None, None, None, (), None, {"seconds": 0.0, "compile_seconds": 0.0, "evaluations": 0})
    progress("deployable plans", 0.1)
    today = space(problem, candidates)
    answer, found, tally = best_of(problem, today, objective)
    progress("uncompressed baseline", 0.5)
    bare, bare_tally = search.run(problem, space(problem, plain), [objective], seed)
    baseline = search.best(problem, plain, bare, objective)
    progress("research plans", 0.6)
    wide = space(problem, make_choices(problem, offered(problem, research=True), promising(candidates, found, objective)))
    open_found, open_tally = search.run(problem, wide, [objective], seed)
    research = search.best(problem, wide.choices, open_found, objective)
    if research is None or (answer is not None and worth(answer, objective) <= worth(research, objective)):
        research = answer
    bounded = uniform_bound(problem, today, float(answer.state.values["sessions_per_gpu_hour"])) if answer and objective in RATES else None
    blocks: dict[str, BlockAnswer | None] = {}
    uniform = {"deployable": _rate(answer), "research": _rate(research)}
    if problem.scenario.per != "model":
        progress(f"plans per {problem.scenario.per}", 0.8)
        blocks = {
            "deployable": by_block.best(problem, candidates, found, objective, research=False),
            "research": by_block.best(problem, wide.choices, open_found, objective, research=True),
        }
        answer, bounded = _better(answer, blocks["deployable"], objective, bounded)
        research, _ = _better(research, blocks["research"], objective, None)
        research, _ = _better(research, blocks["deployable"], objective, None)
    cost = {
        "seconds": time.perf_counter() - started,
        "compile_seconds": clock().seconds - compiled,
        "evaluations": tally.evaluations
        + bare_tally.evaluations
        + open_tally.evaluations
        + (bounded.evaluations if bounded else 0)
        + sum(one.evaluations for one in blocks.values() if one),
    }
    return Solved(answer, baseline, research, today, tuple(plain), wide, cost, bounded, blocks, uniform)


def best_of(problem: Problem, searched: Space, objective: str) -> tuple[Point | None, Found, Tally]:
    """The best plan of a space, all that was found on the way, and what it cost; no plan where none meets the constraints."""
    found, tally = search.run(problem, searched, [objective], problem.scenario.seed)
    answer = search.best(problem, searched.choices, found, objective)
    if answer is None and (closest := least_broken(problem, searched.choices)).feasible:
        answer = closest  # only the least load is feasible, where no start of the search lies
    return answer, found, tally


def _rate(point: Point | None) -> float | None:
    return None if point is None else float(point.state.values["sessions_per_gpu_hour"])


def _better(point: Point | None, other: BlockAnswer | None, objective: str, bound: Bound | None) -> tuple[Point | None, Bound | None]:
    """The better of a uniform plan and one by block, and the bound on both."""
    if other is None:
        return point, bound
    wins = point is None or worth(other.point, objective) < worth(point, objective)
    best_point = other.point if wins or point is None else point
    value = float(best_point.state.values["sessions_per_gpu_hour"])
    most = max(other.bound, value, bound.sessions_per_gpu_hour if bound else 0.0)
    return best_point, Bound(most, 100 * (most / value - 1), bound.evaluations if bound else 0)


def promising(candidates: Sequence[Choice], found: Found, objective: str) -> list[Deployment]:
    """The groupings whose deployable plans come out best, then those of the other candidates."""
    order = found.choice[np.argsort(found.logs[:, list(GOALS).index(objective)], kind="stable")]
    ranked = [candidates[row].deployment for row in order] + [candidate.deployment for candidate in candidates]
    return list(dict.fromkeys(ranked))[:RESEARCH_DEPLOYMENTS]


def worth(point: Point, objective: str) -> float:
    """The objective of a point, less is better."""
    return GOALS[objective] * float(point.state.values[objective])


def vector(problem: Problem, fixed: dict[str, float], resident: float = 0.0, prefix: float = 0.0) -> np.ndarray:
    """Settings without a search: uncompressed but for what is `fixed`, the default chunk, the least load."""
    values = dict.fromkeys(FIELDS, 1.0) | {"key_bits": 16.0, "value_bits": 16.0, "chunk": default_chunk(problem)} | fixed
    return np.array([{**values, "idle_resident": resident, "prefix_cache_tokens": prefix}[name] for name in FIELDS])


def at_latencies(problem: Problem, searched: Space, objectives: Sequence[str], found: Found, best: Point | None, levels: int) -> list[Point]:
    """The best plans for the first of two objectives under several limits of a latency that is the second: a front's own search moves loads only in steps.

    Limits are spread from the least latency found to the best plan's; none where no latency is an objective, or no plan is known.
    """
    if len(objectives) != 2 or objectives[1] not in ("ttft_s", "tpot_s") or best is None or not len(found.logs):
        return []
    name = objectives[1]
    least, most = float(np.exp(found.logs[:, list(GOALS).index(name)].min())), float(best.state.values[name])
    plans = []
    for level in np.geomspace(1.05 * least, max(most, 1.1 * least), levels):
        limited = replace(problem, scenario=problem.scenario.model_copy(update={name.removesuffix("_s"): float(level)}))
        under, _ = search.run(limited, searched, [objectives[0]], problem.scenario.seed)
        plans.append(search.best(limited, searched.choices, under, objectives[0]))
    return [plan for plan in plans if plan is not None]


def least_broken(problem: Problem, candidates: Sequence[Choice]) -> Point:
    """The candidate that breaks the fewest constraints, and those least, at the least load: what an infeasible answer is explained by."""
    some = list(candidates)[:LOOKED_AT]
    x, states = assess(problem, some, np.array([vector(problem, _fewest_bits(choice)) for choice in some]))
    found = [Point(choice, settings, state) for choice, settings, state in zip(some, x, states, strict=True)]
    return min(found, key=lambda point: (int(np.sum(np.asarray(point.state.broken) > 0)), float(np.nanmax(np.asarray(point.state.broken)))))


def _fewest_bits(choice: Choice) -> dict[str, float]:
    low, _ = choice.methods.bounds()
    return {name: float(getattr(low, name)) for name in ("key_bits", "value_bits")} if choice.methods.bits else {}
