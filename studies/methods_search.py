"""The best plan of every method alone, of every pair and of every triple: what the study `methods` ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.plans import pruned
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.deployments import Deployment
from kvopt.search.lanes import make_choices
from kvopt.search.pipeline import Progress
from studies import combinations
from studies.best_of_each import Best, Each, exactly

OBJECTIVE = "users_per_gpu"
GROUPINGS = 4  # on which pairs and triples are searched: those that come out best for no compression and for single methods
MOST_TRIPLES = 3000  # of more, those are tried whose pairs all pay, and after them those whose pairs serve most
PAYS = 0.01  # relative: a combination that serves this much more than the best of its parts pays

Key = frozenset[str]


@dataclass
class Tried:
    """What the search has come across: the best plan of each combination, by the ids of its methods; the empty one is no compression."""

    methods: list[MethodSpec]
    groupings: list[Deployment]
    points: dict[Key, Point] = field(default_factory=dict)  # feasible, all methods in use
    possible: dict[int, int] = field(default_factory=dict)  # combinations of one method a dimension that do not exclude each other, by size
    searched: dict[int, int] = field(default_factory=dict)
    unused: dict[int, int] = field(default_factory=dict)  # best with a member left out, and so not another combination
    infeasible: dict[int, int] = field(default_factory=dict)
    evaluations: int = 0

    def users(self, key: Key) -> float:
        """Users per GPU of a combination; of one that is best with a member left out, what the best of its parts serves; 0 where none is feasible."""
        if key in self.points:
            return float(self.points[key].state.values[OBJECTIVE])
        return max((self.users(key - {name}) for name in key), default=0.0)

    def gain(self, key: Key) -> float | None:
        """Relative gain over the best of its parts; none where no part serves anyone."""
        best = max((self.users(key - {name}) for name in key), default=0.0)
        return self.users(key) / best - 1 if best else None

    def pays(self, key: Key) -> bool:
        """Whether a combination serves more than the best of its parts by more than `PAYS`."""
        gain = self.gain(key)
        return key in self.points and (gain is None or gain > PAYS)


def search(problem: Problem, trained: bool = False, progress: Progress | None = None) -> Tried | None:
    """Singles on every grouping, pairs and triples on the best of them; none where no grouping holds the weights."""
    tell = progress or (lambda phase, share: None)
    tell("single methods", 0.0)
    methods = combinations.singles(problem, trained)
    sets = [MethodChoice(), *(MethodChoice.of(method) for method in methods)]
    choices = make_choices(problem, sets)
    if not choices:
        return None
    each = Each(problem, choices, OBJECTIVE)
    best = each.run()
    tried = Tried(methods, _groupings(each, best))
    starts: dict[Key, list[np.ndarray]] = {}
    _keep(problem, tried, each, best, starts)
    tried.possible[1] = tried.searched[1] = len(methods)
    for size, word, before in ((2, "pairs", 0.2), (3, "triples", 0.5)):
        tell(word, before)
        sets = combinations.together(methods, size)
        tried.possible[size] = len(sets)
        some = sets if len(sets) <= MOST_TRIPLES else _promising(tried, sets)
        tried.searched[size] = len(some)
        if some:
            each = Each(problem, make_choices(problem, some, tried.groupings), OBJECTIVE)
            known = {place: found for place, choice in enumerate(each.space.choices) if (found := _known(choice.methods, starts)) is not None}
            _keep(problem, tried, each, each.run(known), starts)
    return tried


def _groupings(each: Each, best: Best) -> list[Deployment]:
    """The groupings on which no compression and the single methods come out best, that of the most users first."""
    order = np.argsort(best.score, kind="stable")
    first: dict[Key, Deployment] = {}
    for place in order:
        choice = each.space.choices[place]
        if best.feasible[place] or not first:
            first.setdefault(combinations.key(choice.methods), choice.deployment)
    found = list(dict.fromkeys(first.values()))
    bare = first.get(frozenset())
    kept = found[:GROUPINGS]
    return kept if bare is None or bare in kept else [*kept[:-1], bare]


def _keep(problem: Problem, tried: Tried, each: Each, best: Best, starts: dict[Key, list[np.ndarray]]) -> None:
    """Adds the best plan of each combination over its groupings and checkpoints, in double precision; `starts`: the settings that larger ones begin at."""
    tried.evaluations += each.search.tally.evaluations
    x = each.settings(best)
    place: dict[Key, int] = {}
    for row, choice in enumerate(each.space.choices):
        key = combinations.key(choice.methods)
        starts.setdefault(key, []).append(x[row])
        if key not in place or best.score[row] < best.score[place[key]]:
            place[key] = row
    some = [row for row in place.values() if best.feasible[row]]
    points = {row: point for row, point in zip(some, exactly(problem, [each.space.choices[row] for row in some], x[some]), strict=True)}
    for key, row in place.items():
        if row not in points or not points[row].feasible:
            tried.infeasible[len(key)] = tried.infeasible.get(len(key), 0) + 1
        elif combinations.key(pruned(points[row].choice, points[row].x).methods) != key:
            tried.unused[len(key)] = tried.unused.get(len(key), 0) + 1
        else:
            tried.points[key] = points[row]


def _known(chosen: MethodChoice, starts: Mapping[Key, Sequence[np.ndarray]]) -> np.ndarray | None:
    """The best settings of a combination's parts `(points, fields)`: a dimension that a part lacks is left uncompressed there."""
    found = [x for part in combinations.parts(chosen) for x in starts.get(part, [])]
    return np.array(found) if found else None


def _promising(tried: Tried, sets: Sequence[MethodChoice]) -> list[MethodChoice]:
    """`MOST_TRIPLES` of the combinations: first those whose parts all pay, then those whose parts serve most."""

    def rank(chosen: MethodChoice) -> tuple[bool, float, list[str]]:
        parts = combinations.parts(chosen)
        return not all(tried.pays(part) for part in parts), -sum(tried.users(part) for part in parts), sorted(combinations.key(chosen))

    return sorted(sets, key=rank)[:MOST_TRIPLES]
