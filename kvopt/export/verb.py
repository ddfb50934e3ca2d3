"""`kvopt export ENGINE RUN_FOLDER`: the main file goes to stdout, what a person must know to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kvopt.export import Exported, export
from kvopt.results import load, write_files


def run(asked: Any) -> int:
    """Writes or prints one export: `asked` has engine, folder, point, out and json. 0; 1 where the engine cannot be told all of the plan. Raises `BadInput`."""
    made = export(asked.engine, load(asked.folder), asked.point)
    if asked.out is not None:
        written = [str(path) for path in write_files(Path(asked.out), made.files)]
        if not asked.json:
            print("\n".join(written))
    if asked.json:
        print(as_json(made))
    elif asked.out is None:
        print(made.text, end="")
    if not asked.json:
        for line in made.notes:
            print(f"note: {line}", file=sys.stderr)
        for line in made.cannot:
            print(f"cannot be told: {line}", file=sys.stderr)
    return 1 if made.cannot else 0


def as_json(made: Exported) -> str:
    """One JSON object: engine, files by name, notes, cannot."""
    return json.dumps({"engine": made.engine, "files": made.files, "notes": made.notes, "cannot": made.cannot}, indent=2)
