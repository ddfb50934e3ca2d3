"""The optimizers of the study `peers`, each on the same recorder: they ask it to evaluate vectors until it says that the time is over.

Their own defaults hold but for what `about` says. An infeasible point costs what its worst constraint is broken by: as a constraint where the optimizer has
any, as a penalty where it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from studies.peers_guided import qlognehvi, slsqp
from studies.peers_kvopt import kvopt
from studies.peers_runs import PENALTY, Recorder, spread
from studies.peers_separable import bisection, highs

SEPARABLE = ("per-layer", "per-head")
DRAWN = 4096  # points a call of what draws without looking


@dataclass(frozen=True)
class Method:
    """One optimizer: `run(recorder, seed)` searches until the recorder raises `TimeUp`, or it has nothing left to try."""

    run: Callable[[Recorder, int], None]
    about: str
    package: str | None = None  # that must be installed
    on: tuple[str, ...] | None = None  # problems that it can take; all unless said otherwise

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        return self.package is None or find_spec(self.package) is not None


def random(recorder: Recorder, seed: int) -> None:
    """Uniform random vectors."""
    rng = np.random.default_rng(seed)
    while True:
        recorder.evaluate(rng.random((DRAWN, recorder.size)))


def sobol(recorder: Recorder, seed: int) -> None:
    """A scrambled Sobol sequence."""
    from scipy.stats import qmc

    drawn = qmc.Sobol(recorder.size, rng=np.random.default_rng(seed))
    while True:
        recorder.evaluate(drawn.random(DRAWN))


def alike(recorder: Recorder, rng: np.random.Generator, count: int) -> np.ndarray:
    """Random vectors of which all coordinates on one axis are alike: `(count, size)`."""
    found: np.ndarray = rng.random((count, len(recorder.problem.axes)))[:, recorder.problem.of]
    return found


def _pymoo(algorithm: Callable[..., Any], start_alike: bool = False) -> Callable[[Recorder, int], None]:
    def run(recorder: Recorder, seed: int) -> None:
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.optimize import minimize

        class Vector(Problem):
            def __init__(self) -> None:
                super().__init__(n_var=recorder.size, n_obj=2, n_ieq_constr=1, xl=0.0, xu=1.0)

            def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
                made = recorder.evaluate(x)
                out["F"], out["G"] = np.nan_to_num(made.objectives, nan=PENALTY), np.nan_to_num(made.violation, nan=PENALTY)[:, None]

        start = {"sampling": alike(recorder, np.random.default_rng(seed), 100)} if start_alike else {}
        minimize(Vector(), algorithm(**start), NoTermination(), seed=seed, verbose=False, copy_algorithm=False)

    return run


def _nsga2(population: int, **start: Any) -> Any:
    from pymoo.algorithms.moo.nsga2 import NSGA2

    return NSGA2(pop_size=population, **start)


def _nsga3(directions: int) -> Any:
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.util.ref_dirs import get_reference_directions

    return NSGA3(ref_dirs=get_reference_directions("das-dennis", 2, n_partitions=directions - 1), pop_size=directions)


def _optuna(sampler: Callable[[int], Any], batch: int) -> Callable[[Recorder, int], None]:
    def run(recorder: Recorder, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(seed))
        levels, categorical = recorder.problem.levels, recorder.problem.categorical

        def drawn(trial: Any) -> list[float]:
            return [
                (trial.suggest_categorical(f"u{i}", list(range(levels[i]))) + 0.5) / levels[i]
                if categorical[i]
                else trial.suggest_float(f"u{i}", 0, 1)
                for i in range(recorder.size)
            ]

        while True:
            trials = [study.ask() for _ in range(batch)]
            made = recorder.evaluate(np.array([drawn(trial) for trial in trials]))
            for trial, goals, violation in zip(trials, made.objectives, made.violation, strict=True):
                trial.set_constraint("broken", float(np.nan_to_num(violation, nan=PENALTY)))
                study.tell(trial, [float(goal) for goal in np.nan_to_num(goals, nan=PENALTY)])

    return run


def _tpe(seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _optuna_nsga2(seed: int) -> Any:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=100, seed=seed)


def differential_evolution(recorder: Recorder, seed: int) -> None:
    """SciPy's, a population at a call, on one Tchebycheff scalarisation after another, of goals scaled by what a first draw spans."""
    from scipy.optimize import differential_evolution as minimised
    from scipy.stats import qmc

    recorder.evaluate(qmc.Sobol(recorder.size, rng=np.random.default_rng(seed)).random(512))
    for number, share in enumerate(spread()):
        ideal = recorder.front.min(axis=0, initial=np.inf, where=np.isfinite(recorder.front)) if len(recorder.front) else recorder.reference - 1
        weight = np.array([10 ** (2 * share - 1), 10 ** (1 - 2 * share)]) / np.maximum(recorder.reference - ideal, 1e-6)

        def goal(x: np.ndarray, ideal: np.ndarray = ideal, weight: np.ndarray = weight) -> np.ndarray:
            made = recorder.evaluate(x.T)
            gap = (weight * (made.objectives - ideal)).max(axis=1)
            return np.where(made.feasible, gap, PENALTY * (10 + np.nan_to_num(made.violation, nan=PENALTY)))

        minimised(goal, [(0.0, 1.0)] * recorder.size, rng=np.random.default_rng([seed, number]), vectorized=True, updating="deferred", polish=False)


METHODS: dict[str, Method] = {
    "random": Method(random, f"NumPy, {DRAWN} a call"),
    "Sobol": Method(sobol, f"SciPy, scrambled, {DRAWN} a call"),
    "pymoo NSGA-II 100": Method(_pymoo(lambda: _nsga2(100)), "population 100", "pymoo"),
    "pymoo NSGA-II 100, alike": Method(
        _pymoo(lambda **start: _nsga2(100, **start), start_alike=True), "population 100, all blocks alike to begin with", "pymoo", on=SEPARABLE
    ),
    "pymoo NSGA-II 400": Method(_pymoo(lambda: _nsga2(400)), "population 400", "pymoo"),
    "pymoo NSGA-III": Method(_pymoo(lambda: _nsga3(100)), "100 reference directions", "pymoo"),
    "Optuna TPE": Method(_optuna(_tpe, 1), "one trial at a time, categorical axes as such", "optuna"),
    "Optuna NSGA-II": Method(_optuna(_optuna_nsga2, 100), "population 100, a generation at a call", "optuna"),
    "SciPy DE": Method(differential_evolution, "one weight after another, population 15 times the variables"),
    "SciPy SLSQP": Method(slsqp, "one level of the loss after another, from the best point known, JAX Jacobian, double precision"),
    "BoTorch qLogNEHVI": Method(qlognehvi, "q = 4, 2 (variables + 1) Sobol starts, a Gaussian process each for goals and violation", "botorch"),
    "bisection": Method(
        bisection, "on the multiplier of the loss, stored bytes as cost, over enumerated blocks; then kvopt's schedules", on=SEPARABLE
    ),
    "HiGHS": Method(highs, "SciPy's milp, multiple-choice knapsack of stored bytes, relative gap 1e-4; then kvopt's schedules", on=SEPARABLE),
    "kvopt": Method(kvopt, "its own search by values; it draws nothing, every seed is the same"),
}
