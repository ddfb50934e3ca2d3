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
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.blocks.layout import layout
from kvopt.search.evaluate import Given, evaluate
from kvopt.search.gradients import total, value_and_gradient
from kvopt.search.lanes import FIELDS, PLAN_FIELDS, SCHEDULE_FIELDS, ByBlock, Lane, make_choices, stacked, take
from kvopt.search.pipeline import Progress, given
from objectives.accuracy.composition import Losses, losses
from objectives.goals import Targets
from objectives.limits import violations
from objectives.serving.folded import UNCOMPRESSED, Folded, contributions
from objectives.types import Architecture, replace
from studies.benchmark_plot import figure
from studies.result import StudyResult

QUESTION = "How many evaluations and gradients a second, and how long until a front, cold and with a warm compilation cache?"
UNIFORM, ATOMS, PER_LAYER = 65536, 2048, 4096  # points per batch
GRADIENTS = 16384  # of them at most, when gradients are taken: more leave the cache
REPEATS = 9
INNER = ("token_keep", "key_bits", "value_bits")  # what each layer sets
BOUNDS: dict[str, tuple[float, float]] = {
    "key_bits": (2, 16),
    "value_bits": (2, 16),
    "batch": (0.1, 64),
    "chunk": (256, 16384),
    "prefix_cache_tokens": (0, 0),
}
LAYERED = "llama-3.1-70b"  # 80 layers


class Rates(NamedTuple):
    """How fast one compiled program is."""

    values: float  # [1/s]
    gradients: float  # [1/s], each with its value
    compile_value_s: float
    compile_gradient_s: float


def run(out: Path | None = None, progress: Progress | None = None, front: bool = True) -> StudyResult:
    """Rates of one vmapped, compiled program in single precision; `front=False` leaves out the timed fronts. `out`: folder for the picture."""
    tell = progress or (lambda phase, share: None)
    problem, layered = resolve(Scenario.of()), resolve(Scenario.of(model=LAYERED))
    many = problem.workload.model_copy(update={"atoms": tuple(_spread(problem.workload.atoms[0], 32))})
    varied = Problem(problem.scenario, problem.model, problem.accelerator, problem.engine, many, problem.checkpoints)
    settings = len(INNER) * len(layout(layered, "layer").row)
    asked = {
        "one atom, uniform plan": (problem, False),
        "32 atoms, uniform plan": (varied, False),
        f"one atom, {LAYERED}, {settings} settings by layer": (layered, True),
    }
    cases = {}
    for place, (name, (of, per_layer)) in enumerate(asked.items()):
        tell(name, 0.2 * place)
        cases[name] = rates(of, per_layer=True) if per_layer else rates(of)
    rows: list[dict[str, Any]] = [
        {
            "what": name,
            "values per s": found.values,
            "gradients per s": found.gradients,
            "gradient / value": found.values / found.gradients,
            "compile value s": found.compile_value_s,
            "compile gradient s": found.compile_gradient_s,
        }
        for name, found in cases.items()
    ]
    if front:
        tell("kvopt pareto, cold and warm", 0.6)
        cold, warm = front_times()
        rows.append({"what": "kvopt pareto, cold", "seconds": cold})
        rows.append({"what": "kvopt pareto, warm compilation cache", "seconds": warm})
    rows.append({"what": "import kvopt", "seconds": import_time()})
    if out is not None:
        write_figure(figure(rows), out, "benchmark")
    notes = (
        f"{os.cpu_count()} cores, {platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}",
        f"single precision, as searches compile it, best of {REPEATS}",
        f"points a batch: {UNIFORM:,}, with 32 atoms {ATOMS:,}, by layer {PER_LAYER:,}; gradients {GRADIENTS:,} at most",
        "a value is the whole model: session rate, users, memory, latencies, accuracy with its bound, and all constraints",
        "a gradient comes with its value, and is in every setting; compiling includes tracing",
    )
    columns = ("what", "values per s", "gradients per s", "gradient / value", "compile value s", "compile gradient s", "seconds")
    return StudyResult(title=QUESTION, columns=columns, rows=tuple(rows), notes=notes, ok=True)


def _spread(atom: Any, count: int) -> list[Any]:
    """The same session at `count` prompt lengths from a tenth to the whole."""
    prompts = np.linspace(0.1, 1.0, count) * atom.prompt.value
    return [atom.model_copy(update={"prompt": atom.prompt.model_copy(update={"value": float(prompt)})}) for prompt in prompts]


def rates(problem: Problem, per_layer: bool = False) -> Rates:
    """Rates over random settings on one lane."""
    made = by_layer(problem) if per_layer else uniform(problem)
    value, gradient = (programs.compiled(jax.vmap(function, in_axes=(-1, None))) for function in (made.whole, value_and_gradient(made.whole)))
    shared = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), made.shared)
    some = jax.tree.map(lambda leaf: leaf[..., :GRADIENTS], made.settings)
    calls = ((value, made.settings, shared), (gradient, some, shared))
    compile_s = [_once(*call) for call in calls]
    best = [np.inf, np.inf]
    for _ in range(REPEATS):  # in turn, so that what else the machine does falls on both
        best = [min(least, _once(*call)) for least, call in zip(best, calls, strict=True)]
    return Rates(made.points / best[0], min(made.points, GRADIENTS) / best[1], *compile_s)


class Case(NamedTuple):
    """A function of settings, and random points to take it at."""

    whole: Callable[[Any, Any], Any]  # of the settings of one point and of what is shared
    settings: Any
    shared: Any
    points: int  # their axis is the last one of all settings


def uniform(problem: Problem) -> Case:
    """Plans that treat all layers alike."""
    count = ATOMS if len(problem.sessions.weight) > 1 else UNIFORM
    rng = np.random.default_rng(0)
    return Case(_whole, tuple(_random(rng, name, (count,)) for name in FIELDS), (given(problem, ()), _lane(problem), problem.targets), count)


def by_layer(problem: Problem) -> Case:
    """Plans of which each layer has settings of its own. The points' axis is the last one, along which processors work on several at once."""
    blocks, rng = layout(problem, "layer"), np.random.default_rng(0)
    layers = len(blocks.fine.layer_count)
    inner = {name: _random(rng, name, (layers, PER_LAYER)) for name in INNER}
    outer = {name: _random(rng, name, (PER_LAYER,)) for name in SCHEDULE_FIELDS}
    shared = (given(problem, ()), _lane(problem), problem.targets, blocks.fine, blocks.kinds)
    return Case(_whole_by_layer, (inner, outer), shared, PER_LAYER)


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    low, high = BOUNDS.get(name, (0.25, 1.0))
    return jnp.asarray(rng.uniform(low, high, shape), jnp.float32)


def _lane(problem: Problem) -> Lane:
    """The uncompressed plan's first grouping."""
    lane: Lane = take(stacked(problem, make_choices(problem, [MethodChoice()])), np.array(0))
    return lane


def _whole(columns: tuple[Any, ...], shared: tuple[Given, Lane, Targets]) -> Any:
    state = evaluate(*shared, columns)  # by column, so that the gradient of each is an array of its own
    return sum(state.values.values()) + state.lower + jnp.sum(violations(state.found))


def _whole_by_layer(settings: tuple[dict[str, Array], dict[str, Array]], shared: tuple[Given, Lane, Targets, Architecture, Array]) -> Any:
    """The same for one setting of each of `INNER` a layer `(layers,)`, and the schedule's."""
    (inner, outer), (own, lane, targets, fine, kinds) = settings, shared
    by_row = {name: value[:, None, :] for name, value in vars(fine).items() if jnp.ndim(value) == 2}
    folded, middle, edge = total(_layer)((inner, by_row, kinds.T), (fine, lane, targets.z))
    layers = kinds.shape[1]
    folded = folded._replace(linear=folded.linear / layers, attention=folded.attention / jnp.sum(kinds, axis=1, keepdims=True))
    plan = ByBlock(folded=folded, middle=jax.tree.map(lambda loss: loss / layers, middle), edge=jax.tree.map(lambda loss: loss / layers, edge))
    untouched = {name: getattr(UNCOMPRESSED, name) for name in PLAN_FIELDS}
    return _whole(tuple({**untouched, **outer}[name] for name in FIELDS), (own, replace(lane, by_block=plan), targets))


def _layer(row: tuple[dict[str, Array], dict[str, Array], Array], shared: tuple[Architecture, Lane, Array]) -> tuple[Folded, Losses, Losses]:
    """What one layer adds to the sums of its kind, and to the losses at the median and at the confidence asked for."""
    (inner, of_row, kind), (fine, lane, z) = row, shared
    plan = replace(UNCOMPRESSED, **inner)
    adds = contributions(replace(fine, **of_row), plan, lane.effects)
    return jax.tree.map(lambda leaf: kind[:, None] * leaf, adds), losses(plan, lane.accuracy), losses(plan, lane.accuracy, z=z)


def _once(function: Callable[..., Any], *given: Any) -> float:
    """[s] of one call."""
    started = time.perf_counter()
    jax.block_until_ready(function(*given))
    return time.perf_counter() - started


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
