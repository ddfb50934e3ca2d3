"""The blocks of a model: which layer and KV head each is, and how much of the accuracy rests on it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs import head_profiles
from kvopt.inputs.head_scores import FIELD, HeadScores, stored_layers
from kvopt.problem import Problem, by_head
from kvopt.search.block_plan import Width
from objectives.accuracy.heads import importance
from objectives.types import Architecture, replace


@dataclass(frozen=True)
class Layout:
    """The blocks `(blocks,)` of one model, and the architectures that their sums are over."""

    width: Width
    row: np.ndarray  # (blocks,) row of `fine`
    head: np.ndarray  # (blocks,) column of `fine`; 0 where a block is a whole layer
    kind: np.ndarray  # (blocks,) row of `folded`
    share: np.ndarray  # (blocks,) of the loss of tokens, rank and bits; sums to 1
    edge: np.ndarray  # (blocks,) how far the layer is from the nearer end of the model: 0 in the first and the last
    kinds: np.ndarray  # (kinds, layers) 1 where a layer is of a kind
    fine: Architecture  # one row a layer; one column a head, or one for all of them
    folded: Architecture  # one row a kind

    @property
    def cells(self) -> tuple[int, int]:
        """(kinds, head columns) of a folded plan."""
        kinds, heads = self.folded.head_count.shape
        return kinds, heads

    @property
    def content(self) -> np.ndarray:
        """`share` as a table of `fine` `(layers, heads)`, 0 where there is no block."""
        found = np.zeros(self.fine.head_count.shape)
        found[self.row, self.head] = self.share
        return found

    @property
    def cell(self) -> np.ndarray:
        """Where each block adds to a folded plan that is laid out flat `(blocks,)`."""
        return self.kind * self.cells[1] + self.head


def layout(problem: Problem, width: Width) -> Layout:
    """The layers, or the KV heads, as blocks. Raises `BadInput` where the model's layers cannot be set apart."""
    model = problem.model
    fine, folded = model.architecture(per_layer=True), model.architecture()
    _check(problem, fine, width)
    if width == "layer":
        fine = replace(fine, head_count=fine.head_count.sum(axis=-1, keepdims=True))
    else:
        folded = by_head(folded)
    names = [name for name, repeat in model.order for _ in range(repeat) if model.kinds[name].caches]
    of_kind = [name for name, kind in model.kinds.items() if kind.caches]
    kinds = np.array([[float(name == kind) for name in names] for kind in of_kind])
    stored = stored_layers(model)
    row, head = np.nonzero((fine.head_count > 0) & stored[:, None])
    order = np.flatnonzero(stored)
    place = np.searchsorted(order, row)
    share = _importance(problem, width, np.asarray(fine.head_count)[stored])[place, head]
    return Layout(
        width=width,
        row=row,
        head=head,
        kind=kinds.argmax(axis=0)[row],
        share=share / share.sum(),
        edge=np.minimum(place, len(order) - 1 - place),
        kinds=kinds,
        fine=fine,
        folded=folded,
    )


def _check(problem: Problem, fine: Architecture, width: Width) -> None:
    if np.any((fine.stores == 0) & (fine.head_count.sum(axis=-1, keepdims=True) > 0)):
        raise BadInput("per", width, f"some layers of {problem.model.id} read the cache of another one: they cannot be set apart")
    if np.any(np.isfinite(fine.select)):
        raise BadInput("per", width, f"{problem.model.id} chooses itself which tokens it reads: its layers cannot be set apart")
    if width == "head" and fine.head_count.shape[-1] == 1:
        raise BadInput(
            "per", width, f"{problem.model.id} keeps one latent or one KV head a layer: there are no heads to set apart; per layer there are"
        )


def _importance(problem: Problem, width: Width, count: np.ndarray) -> np.ndarray:
    """Weight of each block in the loss, `(layers that store, heads or 1)`: the heads it stands for, as much more as their scores say."""
    source = problem.head_scores
    if source is None:
        return count
    scores = source.scored_by if isinstance(source, HeadScores) and source.kind == "plan" else source
    if not isinstance(scores, HeadScores):
        raise BadInput(FIELD, problem.scenario.head_scores, "a search needs scores of the heads: a plan has none to choose by")
    with jax.enable_x64(True):
        weights = np.asarray(importance(jnp.asarray(scores.values), head_profiles.load().score_weight))
    return weights if width == "head" else weights.sum(axis=1, keepdims=True)
