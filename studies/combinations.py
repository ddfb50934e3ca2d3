"""Which methods are tried together: every one alone, every pair and every triple of one per dimension that do not exclude each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from kvopt.errors import BadInput
from kvopt.inputs import method as methods
from kvopt.inputs.choice import MethodChoice, choices
from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem
from kvopt.search.offers import applicable, offered

TRAINED = "needs a trained checkpoint"
WHERE = ("engine-ready", "research library", TRAINED)  # from what runs today to what must be made first
LABELS = dict(zip(WHERE, ("engine", "research", "trained"), strict=True))  # the same in a narrow column


def singles(problem: Problem, trained: bool = False) -> list[MethodSpec]:
    """The methods with evidence for the task and the question that may be searched, or those that the scenario names, in the catalog's order.

    `trained`: also those that need a trained checkpoint. No search offers them, because whether one exists is the user's to say: here they carry another
    label, and `where` says what they need.
    """
    found = {chosen.methods[0].id: chosen.methods[0] for chosen in offered(problem, research=True) if len(chosen.methods) == 1}
    if trained:
        more = [method.model_copy(update={"where": "research library"}) for method in methods.load_all() if method.where == TRAINED]
        able = [method for method in more if applicable(problem, method)]
        alone = [chosen for method in able for chosen in choices([method], problem.asked) if chosen.methods]
        found |= {chosen.methods[0].id: chosen.methods[0] for chosen in alone}
    return [found[name] for name in sorted(found)]


def joined(members: Iterable[MethodSpec]) -> MethodChoice | None:
    """The methods together; none where two share a dimension or exclude each other."""
    try:
        return MethodChoice.of(*members)
    except BadInput:
        return None


def together(offered_methods: Sequence[MethodSpec], size: int) -> list[MethodChoice]:
    """Every combination of so many of the methods that can be joined."""
    return [chosen for members in itertools.combinations(offered_methods, size) if (chosen := joined(members)) is not None]


def key(chosen: MethodChoice) -> frozenset[str]:
    """What tells a combination from others: the ids of its methods."""
    return frozenset(method.id for method in chosen.methods)


def parts(chosen: MethodChoice) -> list[frozenset[str]]:
    """The keys of the combination without each of its methods, in the order of the dimensions."""
    return [key(chosen) - {method.id} for method in chosen.methods]


def where(names: Iterable[str]) -> str:
    """What the least ready of some methods needs."""
    return max((methods.load(name).where for name in names), key=WHERE.index, default=WHERE[0])
