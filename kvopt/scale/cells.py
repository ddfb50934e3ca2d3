"""The cells of a sweep: one scenario each, on every combination of the values of some of its fields."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kvopt import api
from kvopt.errors import BadInput, unknown
from kvopt.inputs.scenario import Scenario
from kvopt.results import Result
from kvopt.scale.checkpoint import Answer, digest, program

FEASIBLE, INFEASIBLE, BAD = "feasible", "infeasible", "bad input"
TIMED = ("seconds", "compile_seconds")  # of a search: no two runs take the same time

VERBS: dict[str, Callable[..., Result]] = {"analyze": api.analyze, "optimize": api.optimize, "pareto": api.pareto}


@dataclass(frozen=True)
class Cell:
    """One scenario of a sweep, as it is written: its fields need not make a scenario that is possible."""

    at: Mapping[str, Any]  # the swept fields and their values here
    fields: Mapping[str, Any]  # all fields of the scenario that are not left to their defaults, without the seed
    verb: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the verb
    sweep_seed: int = 0

    @cached_property
    def seed(self) -> int:
        """The seed of this cell's search: another one for each scenario, the same wherever and beside whatever it is computed."""
        return int(digest([self.sweep_seed, dict(self.fields)])[:8], 16) % 2**31

    @cached_property
    def _asked(self) -> dict[str, Any]:
        return {"verb": self.verb, "options": dict(self.options), "fields": dict(self.fields), "seed": self.seed}

    @cached_property
    def name(self) -> str:
        """What a person tells the cell by, and a digest of its question."""
        words = [re.sub(r"[^a-z0-9.]+", "-", Path(str(value)).name.lower()).strip("-.") for value in self.at.values()]
        return "-".join([*words, digest(self._asked)[:12]])[-120:].lstrip("-.")

    @cached_property
    def key(self) -> str:
        """Changes with the question, with the files that it names and with kvopt itself."""
        return digest({**self._asked, "files": _files(self.fields), "program": program()})


def cells(fields: Mapping[str, Any], verb: str, options: Mapping[str, Any], seed: int = 0) -> list[Cell]:
    """One cell for every combination of the values of the fields that have a list of them; the last such field changes fastest.

    Raises `BadInput` for a verb or a field that is not known, and for an empty list.
    """
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    for name, value in fields.items():
        if name not in Scenario.model_fields:
            raise unknown("option", name, Scenario.model_fields)
        if isinstance(value, list | tuple) and not value:
            raise BadInput(name, "[]", "must list at least one value")
    swept = {name: value for name, value in fields.items() if isinstance(value, list | tuple)}
    combined = (dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values()))
    return [Cell(at, {**fields, **at}, verb, options, seed) for at in combined]


def solve(cell: Cell) -> Answer:
    """What a cell's verb answers, without anything that differs from run to run.

    What cannot be met and what cannot be read are answers as well: `status` says which, `reason` why.
    """
    try:
        scenario = Scenario.of(**{"seed": cell.seed, **cell.fields})
        result = VERBS[cell.verb](scenario, **cell.options)
    except BadInput as error:
        return {"status": BAD, "reason": str(error), "warnings": [], "result": None}
    reason = None if result.feasible else _reason(result.data)
    status = FEASIBLE if result.feasible else INFEASIBLE
    return {"status": status, "reason": reason, "warnings": list(result.warnings), "result": _lasting(result.data)}


def _reason(data: Mapping[str, Any]) -> str:
    """Why nothing serves: which limit cannot be met, and the least change."""
    why = data.get("infeasible") or data.get("answer", {}).get("infeasible") or {}
    return "; least change: ".join(str(why[name]) for name in ("reason", "change") if why.get(name)) or str(data.get("bottleneck", INFEASIBLE))


def _lasting(tree: Any, name: str = "") -> Any:
    """The same without the times that a search took."""
    if isinstance(tree, Mapping):
        return {key: _lasting(value, key) for key, value in tree.items() if not (name == "search" and key in TIMED)}
    return [_lasting(value, name) for value in tree] if isinstance(tree, list | tuple) else tree


def _files(fields: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the files that the fields name."""
    found = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for value in _texts(fields.values()) for path in _named(value)}
    return dict(sorted(found.items()))


def _texts(values: Any) -> Iterator[str]:
    return (part for value in values if isinstance(value, str) for part in (value, value.partition(":")[2]) if part)


def _named(value: str) -> Sequence[Path]:
    """The file that a text is the name of, or the files of the folder."""
    path = Path(value)
    try:
        return [path] if path.is_file() else sorted(path.glob("*.json")) if path.is_dir() else []
    except OSError:  # too long for a name, for one
        return []
