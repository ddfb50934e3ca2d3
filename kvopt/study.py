"""Studies: named questions, found through the entry-point group `kvopt.studies`, where others add theirs; or a YAML file of one's own.

A study is a module with `QUESTION` (one line) and `run(**options)`, which returns an object with `print()`, `save(folder)`, `to_json()` and `ok`.
A study that draws has the parameter `out` as well, the folder for its pictures; one that says how far it is has `progress`, a callback of a phase and the
share done; one that shares its work over processes has the parameter `hosts`. Its options and their defaults stand in a YAML file of its own in `settings`.
One that says `RESUMES = NAME` goes on with a run that left a folder of that name in `out`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from kvopt.catalog import read_yaml
from kvopt.errors import BadInput, unknown
from kvopt.results import moved_aside, moved_back, writable
from kvopt.scale.hosts import ALONE, join, leave

GROUP = "kvopt.studies"
OURS = ("out", "hosts", "progress")  # parameters of a study that are no options of the question


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


def run(name: str, out: Path | None = None, distributed: bool = False, progress: Callable[[str, float], None] | None = None, **options: Any) -> Any:
    """Runs a study by name, or a YAML file with `study: NAME` and its options, and saves what it finds into the folder `out` where one is given.

    An earlier run in that folder is moved into a folder of its own there, unless the study resumes it. `distributed`: the study shares its work with the
    other processes of this job; the result is none in all but the one that leads them. `progress`: called with a phase and the share done, where the study
    says so.
    Options given here go before those of the file. Raises `BadInput` for a study, an option or a value that is not known.
    """
    if name.endswith((".yaml", ".yml")):
        written = {str(option).replace("-", "_"): value for option, value in read_yaml(Path(name), "study").items()}
        if "study" not in written:
            raise BadInput("study", name, f"must say which study it runs: study: {' | '.join(names())}")
        name, options = str(written.pop("study")), {**written, **options}
    module = load(name)
    study = module.run
    parameters = dict(inspect.signature(study).parameters)
    pictured = parameters.pop("out", None) is not None
    told = {"progress": progress} if parameters.pop("progress", None) is not None and progress is not None else {}
    shares = parameters.pop("hosts", None) is not None
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option in OURS or (option not in parameters and not takes_any):
            raise unknown("option", option, parameters) if parameters else BadInput("option", option, f"{name} takes none")
    if distributed and not shares:
        raise BadInput("distributed", name, "this study runs in one process")
    hosts = join() if distributed else ALONE
    resumed = getattr(module, "RESUMES", None)
    fresh = out is not None and hosts.leads and not (resumed and (out / resumed).is_dir())
    earlier = moved_aside(writable(out)) if fresh and out is not None else []
    try:
        result = validate_call(study)(**options, **({"out": out} if pictured else {}), **({"hosts": hosts} if shares else {}), **told)
    except BadInput:
        moved_back(earlier)  # nothing came in its place
        raise
    except ValidationError as error:
        moved_back(earlier)
        first = error.errors(include_url=False)[0]
        where, message = ".".join(["option", *map(str, first["loc"])]), first["msg"]
        raise BadInput(where, first["input"], f"{message[:1].lower()}{message[1:]}") from None
    if out is not None and hosts.leads:
        result.save(out)
    if distributed:
        leave()
    return result if hosts.leads else None
