"""Compiled programs kept on disk whole, so that a later process neither traces, lowers nor compiles them.

JAX's own cache of compiled programs saves the compiling alone: before it can look anything up, a process traces and lowers the program again, which for the
programs of a search takes longer than running them. Here a program is found by what was written (the sources), by what it is given (shapes and types) and by
what it was compiled with and for. `keep_in` turns it on: the command line's choice; without it, nothing is read or written and programs are `jax.jit`'s.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, cached_property, update_wrapper
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from kvopt.results import write_atomically

TRACED = ("jax", "jaxlib", "numpy", "optax")  # packages whose versions a program depends on, beside our own sources
AHEAD = 8  # programs at most that are read before they are asked for
UNUSED_S = 30 * 86400.0  # [s] after which an entry that nobody has read is removed, when another one is written
ENDING = ".program"
Options = dict[str, Any] | None

_folder: Path | None = None
_marks: Path | None = None  # a folder with an empty file for every program that was used for the same purpose
_ahead: dict[str, Future[Any]] = {}


def keep_in(folder: Path | None) -> None:
    """From now on, compiled programs are kept in this folder, which is made when needed; None: no longer."""
    global _folder
    _folder = folder


@contextmanager
def reading_ahead(purpose: str) -> Iterator[None]:
    """While in it, the kept programs that the same purpose used last are read by a thread of their own, so that they are there when they are asked for."""
    global _marks
    if _folder is None:
        yield
        return
    _marks, reader = _folder / purpose, ThreadPoolExecutor(1)
    with suppress(OSError):
        last = sorted(_marks.glob(f"*{ENDING}"), key=lambda mark: mark.stat().st_mtime_ns)[-AHEAD:]
        _ahead.update({mark.name: reader.submit(_current, _folder / mark.name) for mark in last})
    try:
        yield
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        _ahead.clear()
        _marks = None


class Program:
    """A function compiled as by `jax.jit`, kept on disk where `keep_in` says so.

    Called with pytrees of arrays and numbers; keyword arguments are static. Within another program, on several devices, and where the function is no module's
    own, it goes through `jax.jit` itself. Answers are the same to the bit either way.
    """

    def __init__(self, function: Callable[..., Any], static: tuple[str, ...] = (), options: Callable[[], Options] = lambda: None) -> None:
        self._function, self._static, self._options = function, static, options
        self._ready: dict[Any, tuple[Callable[..., Any], Any]] = {}
        update_wrapper(self, function)

    @cached_property
    def jitted(self) -> Callable[..., Any]:
        """The function through `jax.jit`."""
        return jax.jit(self._function, static_argnames=self._static, compiler_options=self._options())

    def __call__(self, *inputs: Any, **static: Any) -> Any:
        """The function of these inputs."""
        if _folder is None or not _single_device():
            return self.jitted(*inputs, **static)
        leaves, tree = jax.tree.flatten(inputs)
        types = tuple(_type(leaf) for leaf in leaves)
        if not self._of_a_module or None in types:
            return self.jitted(*inputs, **static)
        signature = (tree, types, tuple(sorted(static.items())), _set("jax_enable_x64"))
        if signature not in self._ready:
            return self._first(_folder, signature, leaves, static)
        executable, skeleton = self._ready[signature]
        return jax.tree.unflatten(skeleton, executable(*leaves))

    def _first(self, folder: Path, signature: Any, leaves: list[Any], static: Mapping[str, Any]) -> Any:
        """The first call of a signature in this process: a kept program that does not run is made again as one that cannot be read is."""
        found = self._found(folder, signature)
        if found is not None:
            with suppress(jax.errors.JaxRuntimeError):
                answer = jax.block_until_ready(found[0](*leaves))
                self._ready[signature] = found
                return jax.tree.unflatten(found[1], answer)
        executable, skeleton = self._ready[signature] = self._made(folder, signature, leaves, static)
        return jax.tree.unflatten(skeleton, executable(*leaves))

    @cached_property
    def _of_a_module(self) -> bool:
        """Whether a name says which function it is."""
        return "<" not in getattr(self._function, "__qualname__", "<") and self._function.__module__ != "__main__"

    def _path(self, folder: Path, signature: Any) -> Path:
        tree, types, static, double = signature
        name, options = f"{self._function.__module__}.{self._function.__qualname__}", sorted((self._options() or {}).items())
        key = repr((name, str(tree), types, static, double, options))
        return folder / f"{self._function.__name__.strip('_')}-{_digest(key)}-{made_with(name.partition('.')[0])}{ENDING}"

    def _found(self, folder: Path, signature: Any) -> tuple[Callable[..., Any], Any] | None:
        """The program as it was kept; None where there is none, or none that can be read."""
        path = self._path(folder, signature)
        begun = _ahead.pop(path.name, None)
        found = begun.result() if begun is not None else _read(path)
        if found is not None:
            _used(path)
        return found

    def _made(self, folder: Path, signature: Any, leaves: list[Any], static: Mapping[str, Any]) -> tuple[Callable[..., Any], Any]:
        """The program traced and compiled now, and kept."""
        skeletons: list[Any] = []

        def flat(*values: Any) -> tuple[Any, ...]:
            made, tree = jax.tree.flatten(self._function(*jax.tree.unflatten(signature[0], values), **static))
            skeletons.append(tree)
            return tuple(made)

        lowered = jax.jit(flat, compiler_options=self._options()).lower(*leaves)
        with _without_xla_cache():  # an executable that comes from there cannot be written again: XLA leaves its functions out
            compiled = lowered.compile()
        with suppress(Exception):  # not every backend can write its executables; the answer does not depend on it
            skeleton = jax.tree.unflatten(skeletons[0], range(skeletons[0].num_leaves))
            body = pickle.dumps((serialize_executable.serialize(compiled)[0], len(leaves), skeleton, signature[-1]))
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(folder, signature), hashlib.sha256(body).digest() + body)
            _used(self._path(folder, signature))
            _forget(folder, time.time() - UNUSED_S)
        return compiled, skeletons[0]


def _read(path: Path) -> tuple[Callable[..., Any], Any] | None:
    """An entry as a function of arrays and the structure of what it returns; None where there is none, or it cannot be read."""
    try:
        content = path.read_bytes()
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        executable, inputs, skeleton, double = pickle.loads(body)
        given, returned = jax.tree.structure(((0,) * inputs, {})), jax.tree.structure((0,) * len(jax.tree.leaves(skeleton)))
        with jax.enable_x64(double):
            return serialize_executable.deserialize_and_load(executable, given, returned), jax.tree.structure(skeleton)
    except Exception:  # whatever is wrong with an entry, the program can be made again
        return None


def _current(path: Path) -> tuple[Callable[..., Any], Any] | None:
    """The same, unless other sources, versions or machines made it: nothing of theirs is loaded."""
    return _read(path) if path.name.endswith(f"-{made_with()}{ENDING}") else None


def _used(path: Path) -> None:
    """Notes that an entry was used now, and what for."""
    with suppress(OSError):
        os.utime(path)
        if _marks is not None:
            _marks.mkdir(parents=True, exist_ok=True)
            (_marks / path.name).touch()


@cache
def made_with(package: str = "kvopt") -> str:
    """A hash of what a program depends on beside its inputs: sources, versions, the device and its compiler, and how JAX is set."""
    device = jax.devices()[0]
    return _digest(
        repr(
            (
                _sources(("kvopt", "objectives", package)),
                [(name, version(name)) for name in TRACED],
                platform.python_version(),
                (device.platform, device.device_kind, device.client.platform_version, _processor()),
                (os.environ.get("XLA_FLAGS", ""), *(str(_set(name)) for name in ("jax_default_matmul_precision", "jax_numpy_dtype_promotion"))),
            )
        )
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _set(name: str) -> Any:
    """How JAX is set at this moment."""
    return getattr(jax.config, name)


def _sources(packages: tuple[str, ...]) -> str:
    """A hash of all Python files of these packages."""
    total = hashlib.sha256()
    for name in sorted(set(packages)):
        spec = find_spec(name)
        for place in sorted(spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(place).rglob("*.py")):
                total.update(f"{name}/{path.relative_to(place)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


@cache
def _processor() -> str:
    """What the processor can do: a program compiled for one with more instructions does not run on one with fewer."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
    return f"{platform.machine()} {platform.processor()}"


@cache
def _single_device() -> bool:
    return jax.process_count() == 1 and jax.local_device_count() == 1


def _type(leaf: Any) -> tuple[Any, ...] | None:
    """Shape and type of an input; None of a tracer, and of anything that is neither an array nor a number."""
    if isinstance(leaf, jax.core.Tracer):
        return None
    if isinstance(leaf, (np.ndarray, np.generic, jax.Array)):
        return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)
    return ("number", type(leaf).__name__) if isinstance(leaf, (bool, int, float)) else None


@contextmanager
def _without_xla_cache() -> Iterator[None]:
    """JAX's own cache of compiled programs neither read nor written."""
    before = _set("jax_enable_compilation_cache")
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _forget(folder: Path, before: float) -> None:
    """Removes what nobody has read for long: programs of other versions."""
    for path in folder.rglob(f"*{ENDING}"):
        with suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
