"""Every module's examples run, and every public name says what it is."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kvopt
import kvopt.plots

PACKAGES = ("objectives", "kvopt", "studies")
EXTRAS = {
    "botorch",
    "hqq",
    "kvpress",
    "optuna",
    "pandas",
    "plotly",
    "pymoo",
    "torch",
    "transformers",
}  # packages of the extras: no core module needs them
WITH_EXAMPLES = ("kvopt", "kvopt.results", "kvopt.wording", "objectives.goals", "objectives.serving", "objectives.serving.kv_cache")
FEWEST = 8  # examples in these: a finder that finds none would pass
ROOT = Path(__file__).parents[2]
EVERYWHERE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def names() -> Iterator[str]:
    """Every module of the three packages."""
    for package in PACKAGES:
        yield package
        found = importlib.import_module(package).__path__
        yield from (module.name for module in pkgutil.walk_packages(found, f"{package}.") if not module.name.endswith("__main__"))


MODULES = sorted(names())


def imported(name: str) -> ModuleType:
    """The module; skips the test where what it needs beyond the core is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRAS:
            pytest.skip(f"{name} needs {error.name}, which an extra installs")
        raise


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    found = doctest.testmod(imported(name), optionflags=EVERYWHERE)
    assert found.failed == 0, f"{found.failed} of {found.attempted} lines fail; python -m doctest prints them"


def test_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in (*WITH_EXAMPLES, "kvopt.inputs.scenario") for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= FEWEST, [test.name for test in found]


def test_no_example_is_skipped() -> None:
    sources = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert len(sources) > len(PACKAGES)
    assert [file.name for file in sources if "doctest: +SKIP" in file.read_text(encoding="utf-8")] == []


def test_an_example_that_is_wrong_fails() -> None:
    module = ModuleType("wrong", ">>> 1 + 1\n3\n")
    assert doctest.testmod(module, report=False, verbose=None, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).failed == 1


@pytest.mark.parametrize("package", [kvopt, kvopt.plots], ids=["kvopt", "kvopt.plots"])
def test_every_name_that_is_offered_says_what_it_is(package: ModuleType) -> None:
    for name in package.__all__:
        offered = getattr(package, name)
        if callable(offered):
            assert described(name, offered), f"{package.__name__}.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_and_class_says_what_it_is(name: str) -> None:
    module = imported(name)
    assert module.__doc__, name
    assert [f"{name}.{own}" for own, value in public(module) if not described(own, value)] == []


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions and classes that a module defines under a public name of its own."""
    for own, value in vars(module).items():
        defined = (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__
        if defined and not own.startswith("_") and value.__name__ == own and own.isidentifier():
            yield own, value


def described(name: str, value: Any) -> bool:
    """Whether it has a docstring of its own: a dataclass without one gets its signature."""
    said = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return bool(said) and not said.startswith(f"{name}(")
