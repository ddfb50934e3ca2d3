"""Answers that survive the run: each in a file of its own, written whole or not at all, and read again only where it answers the very same question.

A piece of work has a name, its file's, and a key, which changes with everything that its answer depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kvopt.results import run_record, writable, write_atomically
from kvopt.scale.hosts import ALONE, Hosts

POLL_S = 0.2  # between two looks at what other processes have written
SOURCES = (".py", ".yaml", ".csv")


class Work(Protocol):
    """What is answered once."""

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""

    @property
    def key(self) -> str:
        """Changes with everything that the answer depends on."""


Task = TypeVar("Task", bound=Work)
Answer = dict[str, Any]


def digest(content: Any) -> str:
    """SHA-256 of something that JSON can say, whatever the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def program() -> str:
    """Changes with kvopt's code and catalog and with the versions of the libraries beneath it."""
    found = hashlib.sha256(json.dumps(run_record()["versions"], sort_keys=True).encode())
    for package in ("kvopt", "objectives"):
        spec = find_spec(package)
        for folder in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
            for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCES):
                found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def read(folder: Path, work: Work) -> Answer | None:
    """The answer kept for a piece of work; none where there is none, or one to another question or of another version."""
    try:
        kept = json.loads(_file(folder, work).read_text(encoding="utf-8"))
        return dict(kept["answer"]) if kept["key"] == work.key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, work: Work, answer: Answer) -> None:
    """Keeps an answer."""
    write_whole(_file(folder, work), json.dumps({"key": work.key, "answer": answer}, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, content: str) -> None:
    """Writes a file that no other process writes, whole or not at all, and removes what a killed run was in the middle of writing there."""
    sweep_up(path)
    write_atomically(path, content)


def sweep_up(path: Path) -> None:
    """Removes what a killed run was in the middle of writing to a file."""
    for half in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):
            half.unlink()


def answers(
    works: Sequence[Task],
    solve: Callable[[Task], Answer],
    folder: Path | None = None,
    hosts: Hosts = ALONE,
    told: Callable[[int, Task, bool], None] = lambda place, work, kept: None,
) -> list[Answer]:
    """The answers to all works, in order, in every process: kept ones are read, this process solves its share of the rest and waits for the others'.

    `solve` must give the same answer to the same work wherever it runs. `folder` is one that all processes see; without it nothing is kept, and the process
    must be alone. `told` is called before each work of this process with its place and whether its answer was kept.
    """
    if folder is None:
        return [_solved(solve, work, told, place) for place, work in enumerate(works)]
    writable(folder)
    for place, work in hosts.share(list(enumerate(works))):
        if read(folder, work) is None:
            write(folder, work, _solved(solve, work, told, place))
        else:
            told(place, work, True)
    return _gathered(works, folder)


def _solved(solve: Callable[[Task], Answer], work: Task, told: Callable[[int, Task, bool], None], place: int) -> Answer:
    told(place, work, False)
    return solve(work)


def _gathered(works: Sequence[Task], folder: Path) -> list[Answer]:
    """All answers, waiting for those that are not there yet."""
    found: dict[int, Answer] = {}
    while len(found) < len(works):
        for place, work in enumerate(works):
            if place not in found and (answer := read(folder, work)) is not None:
                found[place] = answer
        if len(found) < len(works):
            time.sleep(POLL_S)
    return [found[place] for place in range(len(works))]


def _file(folder: Path, work: Work) -> Path:
    return folder / f"{work.name}.json"
