"""Studies: named questions, found through the entry-point group `kvopt.studies`, where others add theirs; or a YAML file of one's own.

A study is a module with `QUESTION` (one line) and `run(**options)`, which returns an object with `print()`, `save(folder)`, `to_json()` and `ok`.
A study that draws has the parameter `out` as well, the folder for its pictures.
"""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from kvopt.catalog import read_yaml
from kvopt.errors import BadInput, unknown
from kvopt.results import kept_runs, writable

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
    """Runs a study by name, or a YAML file with `study: NAME` and its options, and saves what it finds into the folder `out` where one is given.

    An earlier run in that folder is moved into a folder of its own there.
    Options given here go before those of the file. Raises `BadInput` for a study, an option or a value that is not known.
    """
    if name.endswith((".yaml", ".yml")):
        written = {str(option).replace("-", "_"): value for option, value in read_yaml(Path(name), "study").items()}
        if "study" not in written:
            raise BadInput("study", name, f"must say which study it runs: study: {' | '.join(names())}")
        name, options = str(written.pop("study")), {**written, **options}
    study = load(name).run
    parameters = dict(inspect.signature(study).parameters)
    pictured = parameters.pop("out", None) is not None
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option == "out" or (option not in parameters and not takes_any):
            raise unknown("option", option, parameters) if parameters else BadInput("option", option, f"{name} takes none")
    if out is not None:
        kept_runs(writable(out))
    try:
        result = validate_call(study)(**options, **({"out": out} if pictured else {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, message = ".".join(["option", *map(str, first["loc"])]), first["msg"]
        raise BadInput(where, first["input"], f"{message[:1].lower()}{message[1:]}") from None
    if out is not None:
        result.save(out)
    return result
