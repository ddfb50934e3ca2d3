"""Benchmarks by the names that tables give them: the task family each speaks for, and whether it is an average."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import cast

from pydantic import Field

from kvopt import catalog
from kvopt.inputs.evidence import Frozen, Task
from kvopt.inputs.sourced import checked


class Benchmark(Frozen):
    """All benchmarks whose names begin alike."""

    begins: str = Field(min_length=2)
    task: Task
    suite: str = Field(description="collection of benchmarks that are run alike")
    average: bool = Field(False, description="mean over many tasks or samples: a repeated run differs little")


class Benchmarks(Frozen):
    """The catalog's file of benchmarks."""

    source: str
    benchmarks: tuple[Benchmark, ...]
    plan_benchmark: dict[Task, str] = Field(description="benchmark that stands for a task family where a plan is judged")


@cache
def load() -> Benchmarks:
    """The catalog's benchmarks."""
    path = resources.files(catalog) / "benchmarks.yaml"
    return checked(Benchmarks, catalog.read_yaml(path, "benchmarks"), "benchmarks", "the catalog's benchmarks")


@cache
def find(name: str) -> Benchmark | None:
    """The entry of a benchmark, by the longest beginning that its name has; None where there is none."""
    lowered = name.strip().lower()
    fitting = [entry for entry in load().benchmarks if lowered.startswith(entry.begins.lower())]
    return max(fitting, key=lambda entry: len(entry.begins)) if fitting else None


def full_name(name: str) -> str:
    """The benchmark that a name stands for: a collection named without its tasks is its average."""
    averages = {entry.suite: entry.begins for entry in load().benchmarks if entry.begins.lower() == f"{entry.suite}-avg"}
    return averages.get(name.strip().lower(), name)


def plan_benchmark(task: Task) -> str:
    """The benchmark by which a plan is judged on a task family."""
    return load().plan_benchmark[cast(Task, task)]
