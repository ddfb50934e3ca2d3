"""Data, one small YAML file per accelerator, model, workload, method, engine and profile, each number with its source.

Nothing here but reading files: what a file may say is laid down by the pydantic classes in `kvopt.inputs`.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kvopt.errors import BadInput, unknown

KINDS = ("accelerators", "models", "workloads", "methods", "engines", "profiles")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def ids(kind: str) -> tuple[str, ...]:
    """The ids of all catalog files of one kind, sorted; a file's name is its id."""
    folder = resources.files(__name__) / kind
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def read_yaml(path: Path | Any, field: str) -> dict[str, Any]:
    """One YAML mapping from a file. Raises `BadInput` (with the line, where YAML tells) when it is none."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field, path, f"cannot be read ({error.__class__.__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInput(field, path, f"not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(data, dict):
        raise BadInput(field, path, "must be a mapping of fields")
    return data


def read(kind: str, name: str) -> dict[str, Any]:
    """The catalog file of this id. Raises `BadInput` with the nearest ids when there is none."""
    if name not in ids(kind):
        raise unknown(kind.removesuffix("s"), name, ids(kind))
    return read_yaml(resources.files(__name__) / kind / f"{name}.yaml", kind.removesuffix("s"))
