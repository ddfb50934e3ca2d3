"""Studies: named questions, found through the entry-point group `kvopt.studies`, where others add theirs; or a YAML file of one's own.

A study is a module with `QUESTION` (one line) and `run(out=None, **options)`, which returns an object with `print()`, `save(folder)` and `ok`.
"""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kvopt.catalog import read_yaml
from kvopt.errors import BadInput, unknown

GROUP = "kvopt.studies"


def names() -> dict[str, Any]:
    """The entry points of all installed studies by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def load(name: str) -> Any:
    """The module of a study. Raises `BadInput` with the nearest names for an unknown one."""
    found = names()
    if name not in found:
        raise unknown("study", name, found)
    return found[name].load()


def question(name: str) -> str:
    """The one line that a study answers."""
    return str(load(name).QUESTION)


def run(name: str, out: Path | None = None, **options: Any) -> Any:
    """Runs a study by name, or a YAML file with `study: NAME` and its options. Options given here go before those of the file."""
    if name.endswith((".yaml", ".yml")):
        written = read_yaml(Path(name), "study")
        if "study" not in written:
            raise BadInput("study", name, f"must say which study it runs: study: {' | '.join(names())}")
        name, options = str(written.pop("study")), {**written, **options}
    module = load(name)
    parameters = inspect.signature(module.run).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            raise unknown("option", option, [entry for entry in parameters if entry != "out"])
    return module.run(out=out, **options)
