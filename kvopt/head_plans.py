"""Plans in which layers and heads are not alike: what each keeps, what an engine frees of it, and how accuracy weighs it.

From scores of the heads (`--head-scores FILE`) a head method keeps the heads that score highest, over all layers, and a token method gets a budget per head;
from a KVTuner file a bits method gets its precisions per layer. Matrices have the rows of `ModelSpec.architecture(per_layer=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs import head_profiles
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.head_scores import FIELD, Floats, HeadScores, stored_layers
from kvopt.inputs.layer_bits import LayerBits
from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem
from objectives.accuracy.composition import Accuracy, Shares
from objectives.accuracy.heads import Ranking, budgets, importance

LIBRARIES = ("hf",)  # caches of variable length, without pages: all that is dropped is freed
BUDGET_STEPS = 256  # budgets are whole numbers of so many parts of the context
SAFEGUARD = 0.2  # of the mean budget that every head has at least, as AdaKV has it
OWN_BUDGETS = ("pyramidkv",)  # token methods that choose budgets themselves, beside those that exclude head methods


@dataclass(frozen=True, eq=False)
class HeadPlan:
    """What every layer and KV head keeps. Matrices are `(rows, KV heads)`, or `(rows, 1)` for bits; rows without a cache of their own keep all."""

    source: HeadScores | LayerBits
    kept: Mapping[str, Any]  # by field of `objectives.types.Plan`: what accuracy is judged by
    freed: Mapping[str, Any]  # the same as the engine's memory has it
    stored: np.ndarray  # (rows,) which rows store a KV cache
    shares: Shares  # of layers and heads in the loss
    uniform: Mapping[str, float]  # the same bytes, every layer and head alike

    @property
    def field(self) -> str:
        """What differs: head_keep, token_keep or key_bits."""
        return next(iter(self.kept))

    def table(self, field: str) -> Floats:
        """What is kept of one field by the layers that store a KV cache: `(layers, KV heads)` or `(layers, 1)`."""
        return self.kept[field][self.stored]


def head_plan(problem: Problem, chosen: MethodChoice, fixed: Mapping[str, float]) -> HeadPlan | None:
    """The plan that the scenario's scores make of its methods and the shares they keep; none without scores. Raises `BadInput`."""
    source = problem.head_scores
    if source is None:
        return None
    stored = stored_layers(problem.model)
    if isinstance(source, LayerBits):
        tables = {"key_bits": source.key[:, None], "value_bits": source.value[:, None]}
        _check_bits(chosen.bits, source)
        return _plan(problem, source, stored, tables, Shares(layer=1.0, head=1.0, content=_rows(np.ones((stored.sum(), 1)), stored, 0.0)))
    head, token = _selected_by(chosen.head), _selected_by(chosen.token)
    if head is not None:
        return _head_selection(problem, source, stored, head, fixed["head_keep"])
    if token is not None:
        return _token_budgets(problem, source, stored, chosen, token, fixed["token_keep"])
    raise BadInput("head_scores", problem.scenario.head_scores, "needs a method that keeps heads or tokens, e.g. --methods duoattention:0.5")


def largest(table: Floats, groups: list[str]) -> Floats:
    """What a paged engine has of a table `(rows, heads)`: in every group of layers with one block table, what its least compressed layer and head keep."""
    found = np.array(table)
    for group in set(groups):
        rows = np.array([name == group for name in groups])
        found[rows] = table[rows].max()
    return found


def _head_selection(problem: Problem, source: HeadScores, stored: np.ndarray, method: MethodSpec, share: float) -> HeadPlan:
    """The heads with the highest scores of all layers keep the whole context, the others stream."""
    values = source.values
    count = round(share * values.size)
    if source.kind == "plan":
        keep = _plan_table(source, "head_keep", method, share)
    else:
        keep = np.zeros(values.size)
        keep[np.argsort(-values, axis=None, kind="stable")[:count]] = 1.0
        keep = keep.reshape(values.shape)
    alike = _rows(np.ones_like(values), stored, 0.0)
    ranking, scores = None, source.scored_by if source.kind == "plan" else source
    if scores is not None:
        ranking = Ranking(score=_rows(scores.values, stored, 0.0), heads=head_profiles.concentration(scores))
    return _plan(problem, source, stored, {"head_keep": keep}, Shares(layer=1.0, head=alike, content=1.0, ranking=ranking))


def _token_budgets(problem: Problem, source: HeadScores, stored: np.ndarray, chosen: MethodChoice, method: MethodSpec, share: float) -> HeadPlan:
    """Every head has the budget that makes its marginal loss that of the others; the shares of the loss are the scores', as far as they are known to count."""
    if source.kind == "plan":
        keep = _plan_table(source, "token_keep", method, share)
        weights = np.ones_like(keep) if source.scored_by is None else _importance(source.scored_by)
    else:
        least = max(SAFEGUARD * share, method.allowed.bounds[0] if method.allowed else 0.0)
        with jax.enable_x64(True):
            weights = _importance(source)
            keep = np.asarray(budgets(jnp.asarray(weights.ravel()), share, min(least, share), _accuracy(problem, chosen).token)).reshape(
                weights.shape
            )
        keep = _rounded(keep, share)
    return _plan(problem, source, stored, {"token_keep": keep}, Shares(layer=1.0, head=1.0, content=_rows(weights, stored, 0.0)))


def _importance(scores: HeadScores) -> Floats:
    """Each head's share of the loss, mean 1: (layers, KV heads)."""
    with jax.enable_x64(True):
        return np.asarray(importance(jnp.asarray(scores.values), head_profiles.load().score_weight))


def _rounded(keep: Floats, mean: float) -> Floats:
    """Whole steps of the context, as many in all as the mean asks for: the largest remainders are rounded up."""
    steps = np.minimum(keep * BUDGET_STEPS, BUDGET_STEPS)
    whole = np.maximum(np.floor(steps + 1e-9), 1)
    left = round(mean * BUDGET_STEPS * keep.size) - int(whole.sum())
    room = np.argsort(-np.where(whole < BUDGET_STEPS, steps - whole, -np.inf), axis=None, kind="stable")
    whole.flat[room[: max(left, 0)]] += 1
    return np.minimum(whole, BUDGET_STEPS) / BUDGET_STEPS


def _plan_table(source: HeadScores, field: str, method: MethodSpec, share: float) -> Floats:
    """The table of a plan that was read back. Raises `BadInput` where it is another method's or keeps another share."""
    if source.keeps != field:
        raise BadInput(FIELD, Path(source.source).name, f"a plan of {source.keeps}: {method.id} needs one of {field}")
    mean = float(source.values.mean())
    if abs(mean - share) > 0.5 / source.values.size + 1e-9:
        raise BadInput("methods", f"{method.id}:{share:g}", f"the plan in {Path(source.source).name} keeps {mean:.6g}")
    return source.values


def _plan(problem: Problem, source: HeadScores | LayerBits, stored: np.ndarray, tables: Mapping[str, Floats], shares: Shares) -> HeadPlan:
    kept = {field: _rows(table, stored, 16.0 if field.endswith("bits") else 1.0) for field, table in tables.items()}
    kinds = [name for name, repeat in problem.model.order for _ in range(repeat) if problem.model.kinds[name].caches]
    groups = [f"{name} {has}" for name, has in zip(kinds, stored, strict=True)]
    by_layer = isinstance(source, LayerBits) and problem.engine.per_layer_precision.available
    all_freed = problem.engine.id in LIBRARIES or by_layer
    freed = kept if all_freed else {field: largest(table, groups) for field, table in kept.items()}
    return HeadPlan(source, kept, freed, stored, shares, {field: float(table.mean()) for field, table in tables.items()})


def _rows(table: Floats, stored: np.ndarray, fill: float) -> Any:
    """A table of the layers that store a KV cache, with a row for every other layer of the architecture."""
    found = np.full((len(stored), table.shape[1]), fill)
    found[stored] = table
    return found


def _selected_by(method: MethodSpec | None) -> MethodSpec | None:
    """The method, if scores can say what it keeps of each head. Raises `BadInput` where it says so itself: a gain counts once."""
    if method is None:
        return None
    if method.pool == "head-budgets" or (method.dimension == "token" and ("head" in method.excludes or method.id in OWN_BUDGETS)):
        raise BadInput("methods", method.id, "chooses its own budget for each head or layer, so head_scores cannot: a gain counts once")
    if method.pool == "fewer-kv-heads":
        raise BadInput("methods", method.id, "changes the model's heads: head_scores says which of the heads that are there to keep")
    return method


def _check_bits(method: MethodSpec | None, source: LayerBits) -> None:
    if method is None:
        raise BadInput("head_scores", Path(source.source).name, "bits per layer need a bits method, e.g. --methods kvtuner")
    pairs = {(pair.key_bits, pair.value_bits) for pair in method.formats}
    for layer, pair in enumerate(zip(source.key, source.value, strict=True)):
        if pair not in pairs and pair != (16.0, 16.0):
            known = ", ".join(f"k{key:g}v{value:g}" for key, value in sorted(pairs))
            raise BadInput(FIELD, f"{Path(source.source).name}: layer {layer}: k{pair[0]:g}v{pair[1]:g}", f"{method.id} has {known}")


def _accuracy(problem: Problem, chosen: MethodChoice) -> Accuracy:
    return chosen.accuracy(problem.asked)
