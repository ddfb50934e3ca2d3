"""Where a search starts: plans that spend an accuracy budget, each on random shares of the dimensions that its methods compress.

A point drawn at random from the box is nearly always far inside or far outside the accuracy floor. Spending a given loss puts every start on a floor.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.kept_programs import Program
from kvopt.problem import Problem
from kvopt.search.grid import DIMENSIONS, Grid
from kvopt.search.lanes import FIELDS, LOGARITHMIC, Lane, take
from kvopt.search.programs import MEASURED, rows
from objectives.accuracy.composition import Accuracy
from objectives.accuracy.proxies import bits_loss, keep_loss

SPENT = ("layer", "head", "token", "key_rank", "value_rank", "format", "prefill")
SPARSE = 0.5  # of the Dirichlet shares: most of a budget goes to one or two dimensions
LEAST_LOSS, MOST_LOSS = 1e-3, math.log(2)  # of the budgets of a front


@Program
def _tables(accuracy: Accuracy, values: Array, formats: Array, z: Array) -> Array:
    accuracy = jax.tree.map(lambda leaf: leaf[:, None], accuracy)
    together = jnp.exp(z * accuracy.interactions.composed_log_sd)
    value = {name: values[:, DIMENSIONS.index(name)] for name in SPENT}
    curves = {
        "layer": keep_loss(value["layer"], accuracy.layer, z),
        "head": keep_loss(value["head"], accuracy.head, z),
        "token": keep_loss(value["token"], accuracy.token, z),
        "key_rank": keep_loss(value["key_rank"], accuracy.rank, z) / 2,
        "value_rank": keep_loss(value["value_rank"], accuracy.rank, z) / 2,
        "format": bits_loss(formats[:, :, 0], formats[:, :, 1], accuracy.bits, z),
        "prefill": keep_loss(value["prefill"], accuracy.prefill, z),
    }
    return jnp.stack([curves[name] * together for name in SPENT], axis=1)


def loss_tables(grid: Grid, lanes: Lane, z: float) -> np.ndarray:
    """Log loss at z standard deviations of every deployable value alone: `(methods, SPENT, values)`."""
    _, first = np.unique(grid.of, return_index=True)
    rest = (take(lanes.accuracy, first), grid.values, grid.formats)
    batches = range(0, len(first), MEASURED)
    made = [np.asarray(_tables(*rows(rest, start, len(first), MEASURED), z), float)[: len(first) - start] for start in batches]
    return np.concatenate(made)


def sample(problem: Problem, lanes: Lane, grid: Grid, count: int, front: bool, rng: np.random.Generator) -> np.ndarray:
    """Settings `(lanes, count, fields)`; the first of each lane is uncompressed.

    The budget is the accuracy floor's, or, for a front over accuracy, anything from a thousandth to half of the accuracy.
    """
    targets = problem.targets
    tables = loss_tables(grid, lanes, float(targets.z))
    many = len(lanes.low)
    budget = np.full((many, count), -math.log(float(targets.accuracy_floor)))
    if front:
        budget = np.exp(rng.uniform(math.log(LEAST_LOSS), math.log(MOST_LOSS), (many, count)))
    able = (grid.counts[grid.of][:, : len(SPENT)] > 1) | (tables[grid.of, :, 0] > 0)
    weights = rng.gamma(SPARSE, size=(many, count, len(SPENT))) * able[:, None]
    share = weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-12) * budget[:, :, None]
    share[:, 0] = 0.0
    index = np.zeros((many, count, len(DIMENSIONS)), int)
    for d in range(len(SPENT)):
        table = np.where(np.arange(tables.shape[2]) < grid.counts[:, d][:, None], tables[:, d], np.inf)[grid.of]
        allowed = table[:, None, :] <= share[:, :, d, None] + 1e-12
        least = table.argmin(axis=1)[:, None]  # where nothing is allowed, what loses least
        if SPENT[d] == "format":  # the most compressed pair that is allowed
            bits = grid.formats.sum(axis=2)[grid.of][:, None, :]
            chosen = np.where(allowed, bits, np.inf).argmin(axis=2)
        else:  # values rise: the first that is allowed is the smallest
            chosen = allowed.argmax(axis=2)
        index[:, :, d] = np.where(allowed.any(axis=2), chosen, least)
    choice = np.repeat(np.arange(many), count)
    settings = grid.settings(choice, index.reshape(-1, len(DIMENSIONS)), np.ones(many * count)).reshape(many, count, len(FIELDS))
    return _scheduled(settings, lanes, rng)


def _scheduled(settings: np.ndarray, lanes: Lane, rng: np.random.Generator) -> np.ndarray:
    """The same plans with random schedules in the lanes' boxes."""
    low, high = lanes.low[:, None], lanes.high[:, None]
    share = rng.uniform(size=settings.shape)
    logarithmic = np.exp(np.log(np.maximum(low, 1e-12)) * (1 - share) + np.log(np.maximum(high, 1e-12)) * share)
    drawn = np.where(LOGARITHMIC, logarithmic, low + (high - low) * share)
    scheduled = np.isin(FIELDS, ("batch", "chunk", "idle_resident", "prefix_cache_tokens"))
    return np.clip(np.where(scheduled, drawn, settings), low, high)
