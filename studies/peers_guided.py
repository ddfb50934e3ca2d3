"""The optimizers of the study `peers` that follow gradients or a model of the objectives: SLSQP and BoTorch."""

from __future__ import annotations

import math
import os
import warnings

import numpy as np

from kvopt.search.vector_problem import Evaluated, VectorProblem
from studies.peers_runs import PENALTY, Recorder, spread

LEAST_LOSS = 1e-3  # the lowest of the levels of log loss, which are spread on a log scale up to the accuracy floor's
FIRST = 512  # Sobol points that gradient searches start from
ROUNDED = 64  # deployable plans tried around a relaxed optimum


def slsqp(recorder: Recorder, seed: int) -> None:
    """SciPy's SLSQP: the most sessions under one level of the loss after another, the load a variable, the categorical coordinates as in the start.

    It starts from the best point known within the level, and from the best known on another choice of categories. Its optima are rounded up and down.
    """
    from scipy.optimize import minimize
    from scipy.stats import qmc

    problem, rng = recorder.problem, np.random.default_rng(seed)
    problem.linearised(np.full(recorder.size + 1, 0.5))
    u = qmc.Sobol(recorder.size, rng=rng).random(FIRST)
    made = recorder.evaluate(u)
    known_u, known = problem.vector(problem.repair(u))[made.feasible], made.objectives[made.feasible]
    fixed = np.append(problem.categorical, False)
    for share in spread():
        level = math.exp(math.log(LEAST_LOSS) + (math.log(recorder.reference[1]) - math.log(LEAST_LOSS)) * share)
        for start in _starts(known_u, known, level, problem.categorical, rng):
            last: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

            def at(v: np.ndarray, last: dict[bytes, tuple[np.ndarray, np.ndarray]] = last) -> tuple[np.ndarray, np.ndarray]:
                recorder.check()
                if (key := v.tobytes()) not in last:
                    recorder.evaluated += 1
                    last.clear()
                    last[key] = problem.linearised(v)
                return last[key]

            limit = np.append(level, np.zeros(len(at(start)[0]) - 2))
            found = minimize(
                lambda v: at(v)[0][0],
                start,
                jac=lambda v: at(v)[1][0],
                bounds=[(value, value) if held else (0, 1) for value, held in zip(start, fixed, strict=True)],
                constraints={"type": "ineq", "fun": lambda v, limit=limit: limit - at(v)[0][1:], "jac": lambda v: -at(v)[1][1:]},
                method="SLSQP",
                options={"maxiter": 60, "ftol": 1e-6},
            )
            if not np.all(np.isfinite(found.x)):
                continue
            tried = rounded(problem, np.clip(found.x[:-1], 0, 1), ROUNDED, rng)
            made = recorder.evaluate(tried)
            known_u, known = np.concatenate([known_u, tried[made.feasible]]), np.concatenate([known, made.objectives[made.feasible]])


def _starts(known_u: np.ndarray, known: np.ndarray, level: float, categorical: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Where to start at a level of the loss, with half of the load: the best point within it, and the best of one other choice of categories."""
    if not len(known):
        return [np.append(rng.random(len(categorical)), 0.5)]
    order = np.lexsort((known[:, 0], known[:, 1] > level))
    _, first = np.unique(known_u[order][:, categorical], axis=0, return_index=True)
    ranked = order[np.sort(first)]
    picked = [ranked[0], *(rng.choice(ranked[1:], 1) if len(ranked) > 1 else [])]
    return [np.append(known_u[row], 0.5) for row in picked]


def rounded(problem: VectorProblem, u: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Deployable vectors `(count, size)` around `u`: the nearest, then every coordinate up or down at random, the likelier the nearer."""
    nearest = problem.repair(u[None])[0]
    found = np.repeat(nearest[None], count, axis=0)
    for place in np.flatnonzero(~problem.categorical):
        positions = problem.axes[problem.of[place]].positions
        low = int(np.clip(np.searchsorted(positions, u[place], side="right") - 1, 0, len(positions) - 2))
        share = (u[place] - positions[low]) / (positions[low + 1] - positions[low])
        found[1:, place] = low + (rng.random(count - 1) < share)
    return problem.vector(found)


def qlognehvi(recorder: Recorder, seed: int) -> None:
    """BoTorch's, as its tutorial on constrained problems has it; the categorical coordinates as continuous ones."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.outcome import Standardize
    from botorch.optim import optimize_acqf
    from botorch.sampling.normal import SobolQMCNormalSampler
    from gpytorch.mlls import SumMarginalLogLikelihood
    from scipy.stats import qmc

    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(seed)
    bounds = torch.tensor([[0.0] * recorder.size, [1.0] * recorder.size], dtype=torch.double)
    worst = torch.tensor(-recorder.reference, dtype=torch.double)
    u = qmc.Sobol(recorder.size, rng=np.random.default_rng(seed)).random(2 * (recorder.size + 1))
    x, y = torch.tensor(u), torch.tensor(_columns(recorder.evaluate(u)))
    while True:
        recorder.check()
        model = ModelListGP(*(SingleTaskGP(x, y[:, [column]], outcome_transform=Standardize(m=1)) for column in range(3)))
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        recorder.check()
        gain = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=worst,
            X_baseline=x,
            sampler=SobolQMCNormalSampler(sample_shape=torch.Size([128]), seed=seed),
            objective=IdentityMCMultiOutputObjective(outcomes=[0, 1]),
            constraints=[lambda values: values[..., 2]],
            prune_baseline=True,
        )
        best, _ = optimize_acqf(
            gain, bounds=bounds, q=4, num_restarts=10, raw_samples=512, options={"batch_limit": 5, "maxiter": 200}, sequential=True
        )
        made = recorder.evaluate(best.numpy())
        x, y = torch.cat([x, best]), torch.cat([y, torch.tensor(_columns(made))])


def _columns(made: Evaluated) -> np.ndarray:
    """What BoTorch models: both goals, maximised, and the violation."""
    return np.nan_to_num(np.column_stack([-made.objectives, made.violation]), nan=PENALTY, posinf=PENALTY, neginf=-PENALTY)
