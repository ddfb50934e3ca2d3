"""Programs kept on disk: found again without tracing, never when stale, and only where it was chosen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kvopt import kept_programs
from kvopt.kept_programs import ENDING, Program, keep_in

TRACES: list[str] = []


def scaled(_: None, tree: dict[str, Any], factor: Any, squared: bool = False) -> dict[str, Any]:
    TRACES.append("scaled")
    done = {name: jnp.exp(-leaf) * factor for name, leaf in tree.items()}
    return {"out": [done, {name: leaf**2 for name, leaf in done.items()} if squared else None]}


GIVEN = (None, {"a": np.linspace(0, 1, 7, dtype=np.float32), "b": np.arange(3, dtype=np.int32)}, np.float32(1.7))
FAST = {"xla_cpu_enable_fast_math": True}


def program(function: Any = scaled, **how: Any) -> Program:
    return Program(function, ("squared",), **how)


def same(one: Any, other: Any) -> bool:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if jax.local_device_count() > 1:
        pytest.skip("programs over several devices are not kept")
    keep_in(tmp_path / "programs")
    TRACES.clear()
    yield tmp_path / "programs"
    keep_in(None)


@pytest.fixture
def compiles() -> Iterator[list[str]]:
    events: list[str] = []

    def count(event: str, _: float, **__: Any) -> None:
        if event in ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_trace_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    yield events
    jax.monitoring.unregister_event_duration_listener(count)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{ENDING}"))


def test_found_again_without_tracing_or_compiling(folder, compiles):
    first = program()(*GIVEN, squared=True)
    assert TRACES == ["scaled"]
    assert len(kept(folder)) == 1
    compiles.clear()
    again = program()(*GIVEN, squared=True)  # another process would have no more than the files
    assert not compiles
    assert TRACES == ["scaled"]
    assert same(first, again)
    assert same(again, jax.jit(scaled, static_argnames="squared")(*GIVEN, squared=True))


def test_the_second_call_of_a_shape_compiles_nothing(folder, compiles):
    one = program()
    one(*GIVEN)
    compiles.clear()
    one(None, {"a": GIVEN[1]["a"] + 1, "b": GIVEN[1]["b"]}, np.float32(2))
    assert not compiles
    one(None, {"a": GIVEN[1]["a"][:5], "b": GIVEN[1]["b"]}, np.float32(2))
    assert compiles
    assert len(kept(folder)) == 2


def test_nothing_is_written_unless_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVOPT_CACHE", str(tmp_path / "cache"))
    assert same(program()(*GIVEN), jax.jit(scaled)(*GIVEN))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["static", "structure", "double", "options", "number", "sources"])
def test_another_program_has_another_entry(folder, monkeypatch, other):
    program()(*GIVEN)
    if other == "static":
        program()(*GIVEN, squared=True)
    elif other == "structure":
        program()(None, {"a": GIVEN[1]["a"], "c": GIVEN[1]["b"]}, GIVEN[2])
    elif other == "double":
        with jax.enable_x64(True):
            program()(*GIVEN)
    elif other == "options":
        program(options=lambda: FAST)(*GIVEN)
    elif other == "number":
        program()(None, GIVEN[1], 1.7)
    else:
        monkeypatch.setattr(kept_programs, "made_with", lambda package="kvopt": "a changed source")
        program()(*GIVEN)
    assert TRACES == ["scaled"] * 2
    assert len(kept(folder)) == 2


@pytest.mark.parametrize("change", [lambda content: b"", lambda content: content[:-9], lambda content: content[:40] + b"!" + content[41:]])
def test_a_damaged_entry_is_made_again(folder, change):
    first = program()(*GIVEN)
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert same(program()(*GIVEN), first)
    assert TRACES == ["scaled"] * 2
    program()(*GIVEN)
    assert TRACES == ["scaled"] * 2


def test_an_entry_that_does_not_run_is_made_again(folder, monkeypatch):
    first = program()(*GIVEN)

    def broken(*_: Any) -> Any:
        raise jax.errors.JaxRuntimeError("NOT_FOUND: Function fusion.1 not found")

    monkeypatch.setattr(Program, "_found", lambda *_: (broken, None))
    one = program()
    assert same(one(*GIVEN), first)
    assert TRACES == ["scaled"] * 2
    assert same(one(*GIVEN), first)
    assert TRACES == ["scaled"] * 2


def test_double_precision(folder):
    given = (None, {"a": np.linspace(0, 1, 5)}, np.float64(1 / 3))
    with jax.enable_x64(True):
        program()(*given)
        found = program()(*given)
        assert same(found, jax.jit(scaled)(*given))
    assert found["out"][0]["a"].dtype == np.float64
    assert TRACES == ["scaled"] * 2  # the second by jax.jit


def test_inputs_are_rounded_as_jax_rounds_them(folder):
    given = (None, {"a": np.linspace(0, 1, 5)}, 1 / 3)  # double precision, outside of it
    program()(*given)
    assert same(program()(*given), jax.jit(scaled)(*given))


def test_within_other_programs(folder):
    one = program()
    found = jax.vmap(lambda factor: one(None, GIVEN[1], factor)["out"][0]["a"])(np.arange(3, dtype=np.float32))
    assert found.shape == (3, 7)
    assert not kept(folder)


def test_functions_without_a_name_are_not_kept(folder):
    assert float(Program(lambda x: x + 1)(np.float32(1))) == 2
    assert not kept(folder)


def test_compile_options_are_kept(folder):
    one = program(options=lambda: FAST)
    one(*GIVEN)
    assert same(program(options=lambda: FAST)(*GIVEN), one.jitted(*GIVEN))


def test_what_nobody_reads_is_forgotten(folder):
    program()(*GIVEN)
    (old,) = kept(folder)
    long_ago = time.time() - 2 * kept_programs.UNUSED_S
    os.utime(old, (long_ago, long_ago))
    program()(*GIVEN, squared=True)
    assert old not in kept(folder)
    assert len(kept(folder)) == 1


def test_jax_keeps_what_it_compiles_all_the_same(folder, tmp_path):
    before = jax.config.jax_enable_compilation_cache
    program()(*GIVEN)
    assert jax.config.jax_enable_compilation_cache == before


def test_what_was_used_last_is_read_ahead(folder, monkeypatch):
    monkeypatch.setattr(kept_programs, "made_with", lambda package="kvopt": "these sources")
    with kept_programs.reading_ahead("optimize"):
        first = program()(*GIVEN)
    program()(*GIVEN, squared=True)  # used for something else
    read: list[str] = []
    found = kept_programs._read
    monkeypatch.setattr(kept_programs, "_read", lambda path: read.append(path.name) or found(path))
    with kept_programs.reading_ahead("optimize"):
        for begun in list(kept_programs._ahead.values()):
            begun.result()
        assert len(read) == 1
        assert same(program()(*GIVEN), first)
    assert len(read) == 1
    assert TRACES == ["scaled"] * 2
    with kept_programs.reading_ahead("pareto"):
        assert not kept_programs._ahead


def test_what_others_made_is_not_loaded(folder, monkeypatch):
    monkeypatch.setattr(kept_programs, "made_with", lambda package="kvopt": "these sources")
    with kept_programs.reading_ahead("optimize"):
        program()(*GIVEN)
    monkeypatch.setattr(kept_programs, "made_with", lambda package="kvopt": "another")
    with kept_programs.reading_ahead("optimize"):
        assert [begun.result() for begun in kept_programs._ahead.values()] == [None]
        program()(*GIVEN)
    assert TRACES == ["scaled"] * 2


def test_sources_are_hashed(tmp_path, monkeypatch):
    package = tmp_path / "made_up_package"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    first = kept_programs._sources(("made_up_package",))
    assert first == kept_programs._sources(("made_up_package",))
    (package / "__init__.py").write_text("a = 2\n")
    assert first != kept_programs._sources(("made_up_package",))
