"""What README and CONTRIBUTING say runs, parses and exists."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvopt import arguments
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.engine import load as load_engine
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.profile import closest
from kvopt.inputs.scenario import Scenario
from kvopt.inputs.sourced import checked
from kvopt.search.evaluate import GOALS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
DOCUMENTS |= {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def block(text: str, mark: str) -> str:
    """The code block after a marking comment."""
    found = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found, mark
    return found[1]


def test_differentiating_through_the_objectives() -> None:
    done = subprocess.run([sys.executable, "-c", block(README, "tested")], capture_output=True, text=True, check=True)
    said = re.fullmatch(r"(\d+) sessions per GPU-hour, (-\d+) for one bit more\n", done.stdout)
    assert said, done.stdout
    assert int(said[1]) > 0


def test_every_flag_and_verb_exists() -> None:
    options = {option for verb in arguments.VERBS for option in options_of(verb)}
    for text in DOCUMENTS.values():
        commands = "\n".join(line for line in text.splitlines() if not any(other in line for other in ("pip ", "ruff", "vllm bench", "srun ")))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", commands):
            assert flag in options, flag
        for verb in re.findall(r"^kvopt (\w+)|`kvopt (\w+)", text, re.MULTILINE):
            assert "".join(verb) in arguments.VERBS, verb
    assert all(f"| `{verb}` |" in README for verb in arguments.VERBS)


def options_of(verb: str) -> set[str]:
    """The options of a verb."""
    parser = arguments.parser()
    verbs: Any = next(action for action in parser._actions if action.dest == "verb")
    return {option for action in verbs.choices[verb]._actions for option in action.option_strings}


def test_every_field_of_a_question_and_every_objective_is_named() -> None:
    for field in Scenario.model_fields:
        assert f"--{field.replace('_', '-')}" in README, field
    for goal in GOALS:
        assert f"`{goal}`" in README, goal


def test_config_example_is_a_question() -> None:
    found = re.search(r"A file for `--config`:\n\n```yaml\n(.*?)```", README, re.DOTALL)
    assert found
    assert Scenario.of(**yaml.safe_load(found[1])).gpus == 8


def test_engines_and_example_models_exist() -> None:
    for engine in ("vllm", "sglang", "trtllm", "lmdeploy", "hf"):
        assert load_engine(engine).id == engine
    for model in ("llama-3.1-70b", "llama-3.1-8b", "qwen2.5-72b", "meta-llama/Llama-3.1-70B-Instruct"):
        assert read_model(model).parameters.total


def test_skeletons_of_data_files_are_valid(tmp_path: Path) -> None:
    (tmp_path / "my-card.yaml").write_text(block(CONTRIBUTING, "accelerator"), encoding="utf-8")
    assert read_accelerator(str(tmp_path / "my-card.yaml")).id == "my-card"
    assert checked(MethodSpec, yaml.safe_load(block(CONTRIBUTING, "method")), "method", "the skeleton").dimension == "token"
    (tmp_path / "my-card.yaml").write_text(block(CONTRIBUTING, "accelerator") + block(CONTRIBUTING, "efficiency"), encoding="utf-8")
    found = closest(read_accelerator(str(tmp_path / "my-card.yaml")), "vllm", "fp8")
    assert (found.id, found.figures["mfu"].value) == ("measured: my-card", 0.55)
    assert found.figures["decode_layer_s"].value == pytest.approx(30e-6)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_files_that_are_named_exist(name: str) -> None:
    text = DOCUMENTS[name]
    for path in re.findall(r"`((?:kvopt|objectives|studies|tests)/[\w./-]+\.(?:py|yaml))`|pytest ((?:tests/[\w./]+ ?)+)", text):
        for one in "".join(path).split():
            assert (ROOT / one).exists() or Path(one).stem.startswith("my-"), one
    for module in re.findall(r"^(?:from|import) (kvopt[\w.]*|objectives[\w.]*)", text, re.MULTILINE):
        import_module(module)


def test_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    assert text.rstrip().endswith("limitations under the License.")


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install -e '.[test]' && pytest" in README
    assert script.rstrip().endswith("pip install -e '.[test]' && pytest")
    assert "set -euo pipefail" in script
    assert "pip install -e . && kvopt pareto" in README
