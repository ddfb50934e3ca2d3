"""The study `benchmark`: how fast the model is evaluated, differentiated and searched on this machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.evaluate import Given, evaluate
from kvopt.search.lanes import FIELDS, PLAN_FIELDS, Lane, make_choices, stacked, take
from kvopt.search.pipeline import given
from objectives.goals import Targets
from objectives.limits import violations
from objectives.types import replace
from studies.result import StudyResult

QUESTION = "How many evaluations and gradients a second, and how long until a front, cold and with a warm compilation cache?"
VALUES, GRADIENTS, PER_LAYER = 65536, 16384, 2048  # points per batch
REPEATS = 9


def run(front: bool = True) -> StudyResult:
    """Rates of one vmapped, compiled program in single precision; `front=False` leaves out the timed fronts, which take minutes."""
    problem = resolve(Scenario.of())
    many = problem.workload.model_copy(update={"atoms": tuple(_spread(problem.workload.atoms[0], 32))})
    cases = {
        "one atom, uniform plan": (problem, False),
        "32 atoms, uniform plan": (Problem(problem.scenario, problem.model, problem.accelerator, problem.engine, many, problem.checkpoints), False),
        "one atom, plan per layer": (problem, True),
    }
    rows: list[dict[str, Any]] = []
    for name, (case, per_layer) in cases.items():
        value, gradient, compiled = rates(case, per_layer)
        rows.append({"what": name, "values per s": value, "gradients per s": gradient, "gradient / value": value / gradient, "compile s": compiled})
    if front:
        cold, warm = front_times()
        rows.append({"what": "kvopt pareto, cold", "seconds": cold})
        rows.append({"what": "kvopt pareto, warm compilation cache", "seconds": warm})
    rows.append({"what": "import kvopt", "seconds": import_time()})
    notes = (
        f"{os.cpu_count()} cores, {platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}",
        f"single precision, as searches compile it, best of {REPEATS}; {VALUES:,} values, {GRADIENTS:,} gradients a batch, with atoms or layers {PER_LAYER:,}",
        "a value is the whole model: session rate, users, memory, latencies, accuracy with its bound, and all constraints",
    )
    columns = ("what", "values per s", "gradients per s", "gradient / value", "compile s", "seconds")
    return StudyResult(title=QUESTION, columns=columns, rows=tuple(rows), notes=notes, ok=True)


def _spread(atom: Any, count: int) -> list[Any]:
    """The same session at `count` prompt lengths from a tenth to the whole."""
    prompts = np.linspace(0.1, 1.0, count) * atom.prompt.value
    return [atom.model_copy(update={"prompt": atom.prompt.model_copy(update={"value": float(prompt)})}) for prompt in prompts]


def rates(problem: Problem, per_layer: bool = False) -> tuple[float, float, float]:
    """(values per second, gradients per second, seconds to compile both), vmapped over random settings on one lane."""
    lane, own, layers = _lane(problem, per_layer)
    rng = np.random.default_rng(0)
    count = PER_LAYER if per_layer or len(problem.sessions.weight) > 1 else VALUES
    low, high = np.full(len(FIELDS), 0.25), np.ones(len(FIELDS))
    for name, bounds in {
        "key_bits": (2, 16),
        "value_bits": (2, 16),
        "batch": (0.1, 64),
        "chunk": (256, 16384),
        "prefix_cache_tokens": (0, 0),
    }.items():
        low[FIELDS.index(name)], high[FIELDS.index(name)] = bounds
    x = rng.uniform(low, high, (count, len(FIELDS))).astype(np.float32)
    columns = tuple(
        jnp.asarray(np.broadcast_to(x[:, i, None, None], (count, layers, 1)) if per_layer and name in PLAN_FIELDS else x[:, i])
        for i, name in enumerate(FIELDS)
    )
    shared = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (own, lane, problem.targets))
    value, gradient = (programs.compiled(jax.vmap(function, in_axes=(0, None))) for function in (_whole, jax.value_and_grad(_whole)))
    some = tuple(column[:GRADIENTS] for column in columns)
    fewer = min(count, GRADIENTS)
    compile_started = time.perf_counter()
    jax.block_until_ready((value(columns, shared), gradient(some, shared)))
    compiled = time.perf_counter() - compile_started
    return count / _best(value, columns, shared), fewer / _best(gradient, some, shared), compiled


def _lane(problem: Problem, per_layer: bool) -> tuple[Lane, Given, int]:
    """The uncompressed plan's first grouping, what is given, and how many layers the plan tells apart."""
    choices = make_choices(problem, [MethodChoice()])
    lane = take(stacked(problem, choices), np.array(0))
    own = given(problem, ())
    if per_layer:
        own = own._replace(system=replace(own.system, architecture=problem.model.architecture(per_layer=True)))
    return lane, own, int(own.system.architecture.layer_count.shape[0])


def _whole(columns: tuple[Any, ...], shared: tuple[Given, Lane, Targets]) -> Any:
    state = evaluate(*shared, columns)  # by column, so that the gradient of each is an array of its own
    return sum(state.values.values()) + state.lower + jnp.sum(violations(state.found))


def _best(function: Callable[..., Any], *given: Any) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(function(*given))
        times.append(time.perf_counter() - started)
    return min(times)


def front_times() -> tuple[float, float]:
    """[s] wall time of `kvopt pareto --json` as a process of its own: with an empty compilation cache, then with the one it left."""
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(2):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "kvopt.cli", "pareto", "--json"],
                capture_output=True,
                text=True,
                env={**os.environ, "KVOPT_CACHE": folder},
                check=True,
            )
            times.append(time.perf_counter() - started)
            json.loads(done.stdout)
    return times[0], times[1]


def import_time() -> float:
    """[s] of `import kvopt` in a new interpreter, the interpreter's own start not counted."""
    code = "import time; t = time.perf_counter(); import kvopt; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
