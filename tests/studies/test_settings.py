"""The YAML files of the studies: each installed study has one that says every option with the default that it has, and none is without a study.

Parameters that name files of this repository (`Path`, with such a default) may be left out, and those of `kvopt.study.OURS` are no options. A study that takes
fields of a scenario may set some. `NAME-full.yaml` is a longer run of the same study, which sets some of its options.
"""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import studies
from kvopt import study
from kvopt.inputs.scenario import Scenario
from studies.sweep import LISTS

FOLDER = Path(studies.__file__).parent / "settings"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FULL = [name for name in FILES if name.endswith("-full")]


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def options(name: str) -> tuple[dict[str, Any], bool]:
    """The defaults of a study's options, those left out that are files of this repository, and whether it takes fields of a scenario."""
    parameters = dict(inspect.signature(study.load(name).run).parameters)
    fields = [one for one in parameters if parameters[one].kind is inspect.Parameter.VAR_KEYWORD]
    shown = {one: parameter.default for one, parameter in parameters.items() if one not in (*study.OURS, *fields)}
    return {one: default for one, default in shown.items() if not isinstance(default, Path)}, bool(fields)


def plain(value: Any) -> Any:
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", sorted(study.names()))
def test_a_study_has_its_settings_with_its_defaults(name: str) -> None:
    written = read(name)
    assert written.pop("study") == name
    defaults, takes_fields = options(name)
    more = {LISTS.get(option, option) for option in written.keys() - defaults.keys()}
    assert more <= (Scenario.model_fields.keys() if takes_fields else set())
    assert {option: plain(written.get(option, "missing")) for option in defaults} == {option: plain(default) for option, default in defaults.items()}


@pytest.mark.parametrize("name", sorted(study.names()))
def test_the_command_is_told_and_examples_are_fields_of_a_scenario(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# kvopt study run studies/settings/{name}.yaml --out ")
    for field in re.findall(r"^# ([a-z_]+):", text, re.MULTILINE):
        assert field in Scenario.model_fields or field == "path", f"{field} is no field of a scenario"


@pytest.mark.parametrize("name", FULL)
def test_a_full_run_sets_options_of_its_study(name: str) -> None:
    written = read(name)
    assert written.pop("study") == name.removesuffix("-full")
    defaults, _ = options(name.removesuffix("-full"))
    assert written.keys() <= defaults.keys()
    assert all(plain(defaults[option]) != value for option, value in written.items())


@pytest.mark.parametrize("name", [*sorted(study.names()), *FULL])
def test_settings_are_read_by_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value is one that the study takes; nothing is run."""
    module = study.load(name.removesuffix("-full"))
    asked: dict[str, Any] = {}

    @functools.wraps(module.run)
    def run(**options: Any) -> str:
        asked.update(options)
        return "found"

    monkeypatch.setattr(module, "run", run)
    assert study.run(str(FOLDER / f"{name}.yaml")) == "found"
    assert {option: plain(asked[option]) for option in read(name).keys() - {"study"}} == {
        option: plain(value) for option, value in read(name).items() if option != "study"
    }


def test_no_settings_are_without_a_study() -> None:
    assert {name.removesuffix("-full") for name in FILES} <= study.names().keys()
