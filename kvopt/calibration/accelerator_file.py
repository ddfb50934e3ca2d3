"""Writing an accelerator file: YAML with one sourced number a line, as the catalog's files are, that every verb takes as --accelerator FILE."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import yaml

from kvopt.errors import BadInput
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.results import write_atomically


class _Line(dict[str, Any]):
    """A mapping written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True))


def text_of(spec: AcceleratorSpec, source: str) -> str:
    """The file's text. The id stays, so that what the catalog knows of the accelerator still counts for what the file leaves out."""
    data = spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    heading = f"# Written by kvopt calibrate on {date.today()} from {source}.\n"
    return heading + yaml.dump(_lines(data), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _lines(data: dict[str, Any]) -> dict[str, Any]:
    """Sourced numbers as mappings on one line, whole numbers without a point."""
    return {name: _Line(_plain(value)) if isinstance(value, dict) and "source" in value else _nested(value) for name, value in data.items()}


def _nested(value: Any) -> Any:
    return _lines(value) if isinstance(value, dict) else value


def _plain(number: dict[str, Any]) -> dict[str, Any]:
    value = number["value"]
    return number | {"value": int(value)} if isinstance(value, float) and value.is_integer() else number


def free_path(out: str | None, default: str, force: bool) -> Path:
    """Where to write. Raises `BadInput` where a file is there already, or where nothing can be written."""
    path = Path(default if out is None else out)
    if not path.name or path.is_dir():
        raise BadInput("out", f"'{out or ''}'", "must name a file")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise BadInput("out", path, "must end in .yaml or .yml")
    if path.exists() and not force:
        raise BadInput("out", path, "is there already; give another --out, or --force to write over it")
    if not path.parent.is_dir():
        raise BadInput("out", path, "its folder does not exist")
    return path


def write(spec: AcceleratorSpec, source: str, path: Path) -> None:
    """Writes the file whole or not at all. Raises `BadInput` where it cannot be written."""
    try:
        write_atomically(path, text_of(spec, source))
    except OSError as error:
        raise BadInput("out", path, f"cannot be written ({error.strerror or error.__class__.__name__})") from None
