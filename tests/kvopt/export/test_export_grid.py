"""Every exporter over a grid of plans: only settings that the engine has, only values that it takes, text that its reader can read."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import kvopt.export as exports
from kvopt.errors import BadInput
from kvopt.export import ENGINES, Exported, export_point

TABLE = yaml.safe_load((Path(exports.__file__).parent / "flags.yaml").read_text(encoding="utf-8"))
WITH_FLAGS = ("vllm", "vllm-bench", "sglang", "trtllm", "lmcache")
Case = tuple[dict[str, Any], dict[str, Any]]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a script: continued lines joined, comments and shell settings left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] not in ("set", ":", "wait"):
            yield words[:-1] if words[-1] == "&" else words


def told(words: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(flags with their values, variables) of one command."""
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    flags: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            flags[name] = True
        elif name:
            flags[name] = word if flags[name] is True else f"{flags[name]} {word}"
    return flags, variables


def flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def settings_of(made: Exported) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """(engine of the table, settings, variables) of everything an export writes."""
    for name, text in made.files.items():
        if name.endswith(".sh"):
            for words in commands(text):
                flags, variables = told(words)
                if words[:4] == ["vllm", "bench", "sweep", "serve"]:
                    yield "vllm-bench", flags, variables
                    yield "vllm-bench", told(shlex.split(flags["bench-cmd"]))[0], {}
                elif "disaggregated" not in words:
                    yield (
                        "vllm" if made.engine == "lmcache" else made.engine,
                        flags,
                        {k: v for k, v in variables.items() if not k.startswith("LMCACHE")},
                    )
        elif name.endswith(".json"):
            engine = "vllm" if "serve" in name else "vllm-bench"
            for entry in json.loads(text).values():
                yield engine, {key.replace("_", "-"): value for key, value in entry.items()}, {}
        elif name.endswith(".yaml") and name != "trtllm-disagg.yaml":
            content = yaml.safe_load(text)
            content = {key: value for key, value in content.items() if key != "model"} if made.engine == "vllm" else content
            yield made.engine, content if made.engine == "vllm" else flat(content), {}


def exported(engine: str, case: Case) -> Exported:
    """An export; the test is skipped where a sweep rightly refuses the plan."""
    refused = case[1]["plan"]["prefill_groups"] > 0 or "blocks" in case[1]["plan"]
    if engine == "vllm-bench" and refused:
        with pytest.raises(BadInput, match="vllm-bench"):
            export_point(engine, *case)
        pytest.skip("refused, as it must be")
    return export_point(engine, *case)


@pytest.mark.parametrize("engine", WITH_FLAGS)
def test_only_flags_and_values_that_the_engine_has(engine: str, case: Case) -> None:
    seen = 0
    for owner, flags, variables in settings_of(exported(engine, case)):
        known = TABLE[owner]
        for given, one in flags.items():
            off = given.startswith("no-")
            name, value = (given.removeprefix("no-"), False) if off else (given, one)
            assert name in known["flags"], f"{owner} has no {name}"
            entry = known["flags"][name]
            if "values" in entry:
                assert value in entry["values"], f"{owner}: {name} takes no {value}"
            if entry.get("unit", "").startswith(("tokens", "bytes", "ranks", "stages", "GiB", "GB", "requests", "engines")):
                assert float(value) > 0 or (name, owner) == ("max_local_cpu_size", "lmcache")
            if "keys" in entry:
                check_transfer(json.loads(value) if isinstance(value, str) else value, entry["keys"])
            seen += 1
        assert set(variables) <= set(known.get("variables", {}))
    assert seen >= 3 or engine == "vllm-bench"


def check_transfer(value: dict[str, Any], keys: dict[str, list[str]]) -> None:
    for name, inner in value.items():
        assert name in keys
        if name == "kv_connector_extra_config":
            assert set(inner) <= set(keys[name])
            for one in inner.get("connectors", []):
                check_transfer(one, keys)
        else:
            assert inner in keys[name]


@pytest.mark.parametrize("engine", ENGINES)
def test_text_that_can_be_read(engine: str, case: Case) -> None:
    made = exported(engine, case)
    assert made.engine == engine
    assert made.text == next(iter(made.files.values()))
    for name, text in made.files.items():
        assert text.endswith("\n")
        if name.endswith((".yaml", ".yml")):
            yaml.safe_load(text)
        elif name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith(".sh"):
            checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
            assert not checked.stderr
            assert list(commands(text))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_told_is_in_the_file_too(engine: str, case: Case) -> None:
    made = exported(engine, case)
    said = " ".join(line.lstrip("# ") for line in made.text.splitlines())
    for line in made.cannot:
        assert " ".join(line.split()) in said


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_again(engine: str, case: Case) -> None:
    assert exported(engine, case) == export_point(engine, *json.loads(json.dumps(case)))


def test_every_flag_has_a_source() -> None:
    for engine, known in TABLE.items():
        assert known["version"]
        for name, entry in known["flags"].items():
            assert entry["source"], f"{engine}: {name}"
            assert ("values" in entry) != ("unit" in entry), f"{engine}: {name}"


@pytest.mark.parametrize("engine", WITH_FLAGS)
def test_no_flag_that_is_gone_and_no_share_of_another_base(engine: str, case: Case) -> None:
    text = "".join(exported(engine, case).files.values())
    assert "swap-space" not in text
    for share in ("--gpu-memory-utilization ", "--mem-fraction-static ", "free_gpu_memory_fraction:"):
        assert share not in "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
