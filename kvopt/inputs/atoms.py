"""Thousands of sessions, reduced to some tens of weighted atoms with the same totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvopt.errors import BadInput
from objectives.types import Workload, replace

if TYPE_CHECKING:
    from jax import Array

_ROUNDS = 25
_QUADRATIC_TOKENS = 50_000  # about where attention has become half of the prompt work of a dense model


def reduce_atoms(sessions: Workload, atoms: int = 32, seed: int = 0) -> Workload:
    """At most `atoms` atoms for `sessions`, by weighted k-means; numpy leaves in and out.

    Means of prompt, turns, turns * question, turns * answer, (turns - 1) * think time and shared prefix are kept exactly: an atom is the mean of
    its cell, per turn where the quantity is per turn. Second moments, which queueing rests on, shrink by the spread inside the cells; the clustering
    is in units in which just that is smallest, and 32 atoms keep 98 % of the prompt work's in the public traces.
    """
    if atoms < 1:
        raise BadInput("atoms", atoms, "must be 1 or more")
    if len(sessions.weight) <= atoms:
        return sessions
    weight = np.asarray(sessions.weight)
    cell = _clusters(_features(sessions), weight, atoms, seed)
    cell = np.unique(cell, return_inverse=True)[1]  # leave out empty cells

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=weight * values)

    def mean(values: Array, per: np.ndarray) -> np.ndarray:
        over = total(per)
        return np.divide(total(np.asarray(values) * per), over, out=np.zeros_like(over), where=over > 0)

    turns, one = np.asarray(sessions.turns), np.ones_like(weight)
    return replace(
        sessions,
        weight=total(one),
        prompt=mean(sessions.prompt, one),
        turns=mean(sessions.turns, one),
        question=mean(sessions.question, turns),
        answer=mean(sessions.answer, turns),
        think_s=mean(sessions.think_s, turns - 1),
        shared_prefix=mean(sessions.shared_prefix, one),
    )


def _features(sessions: Workload) -> np.ndarray:
    """Coordinates of shape (sessions, 5) in which the spread inside a cell is the share of the second moments that averaging it loses."""
    prompt, prefix, turns, answer = (np.asarray(x) for x in (sessions.prompt, sessions.shared_prefix, sessions.turns, sessions.answer))

    def unit(values: np.ndarray) -> np.ndarray:
        return values / max(float(np.sqrt(np.asarray(sessions.weight) @ values**2)), 1e-300)

    def work(tokens: np.ndarray) -> np.ndarray:
        return tokens * (1 + tokens / _QUADRATIC_TOKENS)

    # Prompt work counts most; the logarithm keeps short prompts apart from each other, which matter little to the moments.
    return np.stack([unit(work(prompt)), unit(work(prompt - prefix)), 0.5 * unit(turns * answer), 0.3 * unit(turns), 0.2 * np.log(prompt)], axis=1)


def _clusters(features: np.ndarray, weight: np.ndarray, atoms: int, seed: int) -> np.ndarray:
    """The cell of each session: Lloyd's rounds from a k-means++ start."""
    rng = np.random.default_rng(seed)
    centres = features[[rng.choice(len(features), p=weight / weight.sum())]]
    nearest = np.full(len(features), np.inf)
    for _ in range(atoms - 1):
        nearest = np.minimum(nearest, ((features - centres[-1]) ** 2).sum(axis=1))
        chance = weight * nearest
        if chance.sum() == 0:  # fewer distinct sessions than atoms
            break
        centres = np.concatenate([centres, features[[rng.choice(len(features), p=chance / chance.sum())]]])
    for _ in range(_ROUNDS):
        cell = _nearest(features, centres)
        mass = np.bincount(cell, weights=weight, minlength=len(centres))
        sums = np.stack([np.bincount(cell, weights=weight * column, minlength=len(centres)) for column in features.T], axis=1)
        moved = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1e-300)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return _nearest(features, centres)


def _nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre; the square of the feature itself is the same for all centres and left out."""
    return np.argmin((centres**2).sum(axis=1) - 2 * features @ centres.T, axis=1)
