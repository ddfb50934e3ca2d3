"""What the study `methods` says below its table: facts, each from the rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from kvopt.infeasible import explain
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import DIMENSIONS
from kvopt.metrics import LABELS
from kvopt.problem import Problem
from kvopt.realise import deployable
from kvopt.search.best import Point
from kvopt.search.lanes import make_choices
from kvopt.search.solve import least_broken
from kvopt.wording import number
from studies import combinations
from studies.methods_rows import SIZES, binds, said
from studies.methods_search import PAYS, Key, Tried

PREFILL = {"prefill_utilisation", "ttft_s"}  # constraints that the time of a prompt is behind
NEAR_CEILING = 0.8  # of the prefill ceiling: what is left above is queueing


def notes(problem: Problem, tried: Tried, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """All of them."""
    return (*_scope(problem, tried), *(_winner(problem, tried, rows) + _never(tried) if tried.points else [_nothing(problem)]))


def _scope(problem: Problem, tried: Tried) -> list[str]:
    scenario = problem.scenario
    words = [f"{tried.searched[size]:,} of {tried.possible[size]:,} {name}" for size, name in ((1, "methods alone"), (2, "pairs"), (3, "triples"))]
    cut = tried.searched[3] < tried.possible[3]
    left_out = "; of the triples, those whose pairs all pay, then those whose pairs serve most" if cut else ""
    unused, infeasible = sum(tried.unused.values()), sum(tried.infeasible.values())
    kept = 100 * scenario.accuracy_floor
    return [
        f"{problem.model.id} on {scenario.gpus} x {problem.accelerator.id}, {problem.context:,.0f} tokens, {problem.task}, {scenario.fidelity} fidelity; "
        f"accuracy at least {kept:g} % at {100 * scenario.confidence:g} % confidence",
        f"tried {', '.join(words)} that do not exclude each other, of the methods with evidence for this task{left_out}",
        f"not ranked: {unused:,} that serve most with a member left out, {infeasible:,} of which no ratio holds every limit",
        f"groupings searched: {'; '.join(grouping.label for grouping in tried.groupings)}: where no compression or a method alone comes out best",
        f"label: {', '.join(f'{short}: {long}' for long, short in combinations.LABELS.items())}; the least ready member decides, and several that "
        "need training need one checkpoint trained for all. x bare: times the users "
        "uncompressed. vs parts %: more users than the best of what is left without one member. ceiling %: of the rate that prefill alone allows. lower %: at "
        "that confidence. More than two compressed dimensions at once were never measured",
    ]


def _nothing(problem: Problem) -> str:
    """Why nothing is served, compressed or not: what breaks first uncompressed."""
    closest = explain(problem, least_broken(problem, make_choices(problem, [MethodChoice()])))
    return f"neither a method nor no compression holds the limits; uncompressed: {closest['reason']}; least change: {closest['change']}"


def _winner(problem: Problem, tried: Tried, rows: Sequence[dict[str, Any]]) -> list[str]:
    ranked = [key for row in rows if (key := frozenset(filter(None, row["ids"].split(","))))]
    if not ranked:
        return ["no method or combination holds the limits, no compression does"]
    best = ranked[0]
    point, users, bare = tried.points[best], tried.users(best), tried.users(frozenset())
    gain = f", {users / bare:.2f} times no compression" if bare else "; uncompressed, nobody is served within the limits"
    found = [f"most users per GPU: {said(point)}, {number(users)}{gain}; it stands at {_limit(point)}"]
    if "accuracy" in binds(point) and problem.scenario.confidence > 0.5:
        middle, low = (100 * float(end) for end in (point.state.retained, point.state.lower))
        found.append(f"the floor binds at the lower end: {low:.1f} %, where the middle is {middle:.1f} %; confidence 0.5 judges by the middle")
    for size in (2, 3):
        top = next((key for key in ranked if len(key) == size), None)
        if top is not None:
            found.append(f"best {SIZES[size]}: {said(tried.points[top])}, {number(tried.users(top))}; {_without(tried, top)}")
    near = min((key for key in ranked if tried.users(key) >= (1 - PAYS) * users), key=lambda key: (len(key), -tried.users(key)))
    if len(near) < len(best):
        found.append(f"within {100 * PAYS:g} % of it with fewer methods: {said(tried.points[near])}, {number(tried.users(near))}")
    ready = next((key for key in ranked if deployable(problem, tried.points[key].choice.methods)), None)
    if ready != best:
        today = f"{said(tried.points[ready])}, {number(tried.users(ready))}" if ready else "none"
        found.append(f"best that {problem.engine.id} runs as it is installed: {today}")
    return found


def _without(tried: Tried, key: Key) -> str:
    """What a combination serves without each of its members: what it loses is what the member brings."""
    users = tried.users(key)
    left = sorted((tried.users(key - {name}), name) for name in key)
    return "; ".join(f"without {name} {number(value)} ({100 * (value / users - 1):+.1f} %)" for value, name in left)


def _limit(point: Point) -> str:
    share = _ceiling_share(point)
    names = ", ".join(dict.fromkeys(LABELS[name] for name in binds(point))) or "no limit"
    return f"{names}, {100 * share:.0f} % of its prefill ceiling"


def _ceiling_share(point: Point) -> float:
    return float(point.state.service.sessions_per_gpu_s / point.state.service.ceiling_per_gpu_s)


def _never(tried: Tried) -> list[str]:
    """The pairs of dimensions of which no combination pays, by why that is."""
    named = [dimension for dimension in DIMENSIONS if any(method.dimension == dimension for method in tried.methods)]
    why: dict[str, list[str]] = {}
    paying = []
    for first, second in itertools.combinations(named, 2):
        keys = pairs(tried, first, second)
        best = max((key for key in keys if tried.pays(key)), key=tried.users, default=None)
        if best is not None:
            paying.append(f"{first} with {second} ({100 * (tried.gain(best) or 0):+.0f} %: {' + '.join(sorted(best))})")
        else:
            why.setdefault(_reason(tried, first, second, keys), []).append(f"{first} with {second}")
    found = [
        f"pairs that pay over the better of the two by more than {100 * PAYS:g} %, the best of each two dimensions: {'; '.join(paying) or 'none'}"
    ]
    found += [f"never pay together: {', '.join(several)}: {reason}" for reason, several in why.items()]
    if tried.searched.get(3) and not any(tried.pays(key) for key in tried.points if len(key) == 3):
        found.append(f"none of the {tried.searched[3]:,} triples tried pays over the best of its pairs")
    return found


def pairs(tried: Tried, first: str, second: str) -> list[Key]:
    """The combinations of one method of each of two dimensions that do not exclude each other."""
    of = {dimension: [method for method in tried.methods if method.dimension == dimension] for dimension in (first, second)}
    joined = (combinations.joined(members) for members in itertools.product(of[first], of[second]))
    return [combinations.key(chosen) for chosen in joined if chosen is not None]


def _reason(tried: Tried, first: str, second: str, keys: Sequence[Key]) -> str:
    """Why no pair of two dimensions pays, from the best method alone among their members."""
    if not keys:
        return "they exclude each other"
    alone = [key for pair in keys for name in pair if (key := frozenset([name])) in tried.points]
    if not alone:
        return "no ratio of either holds the limits"
    best = tried.points[max(alone, key=tried.users)]
    if PREFILL & set(binds(best)) or _ceiling_share(best) > NEAR_CEILING:
        return "the best of them alone already stands at a limit that prefill sets, and no KV ratio lifts the rate above the prefill ceiling"
    return "what the accuracy floor leaves is spent better on one of them"
