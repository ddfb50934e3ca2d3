"""Settings as text: a shell command, a YAML file, and the comments that go before both."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

Flags = Mapping[str, Any]
"""Settings of a command by name without dashes: True is a bare flag, False its `--no-` form, a list several words, a mapping JSON."""
WIDTH = 150


def words(name: str, value: Any) -> list[str]:
    """One setting as the words of a command line."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *(str(entry) for entry in value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, Mapping) else number(value)]


def number(value: Any) -> str:
    """A value as engines read it: whole numbers without a point."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def command(start: Sequence[str], flags: Flags, before: str = "", after: str = "") -> str:
    """A command over several lines, every word quoted; `before` is put in front of it as it is (variables), `after` behind it (an ampersand)."""
    lines = [" ".join([*([before] if before else []), *(word if word.startswith('"$') else shlex.quote(word) for word in start)])]
    lines += [" ".join(shlex.quote(word) for word in words(name, value)) for name, value in flags.items()]
    return " \\\n  ".join(lines) + (f" {after}" if after else "") + "\n"


def script(about: Iterable[str], body: str) -> str:
    """A bash script with its comments."""
    return f"#!/usr/bin/env bash\n{comments(about)}set -euo pipefail\n\n{body}"


def comments(lines: Iterable[str]) -> str:
    """Lines as comments of shell, YAML and Python, wrapped."""
    wrapped = [piece for line in lines for piece in (textwrap.wrap(" ".join(line.split()), WIDTH - 2) or [""])]
    return "".join(f"# {piece}".rstrip() + "\n" for piece in wrapped)


def yaml_file(about: Iterable[str], content: Mapping[str, Any]) -> str:
    """A YAML file with its comments."""
    return comments(about) + yaml.safe_dump(dict(content), sort_keys=False, width=WIDTH)
