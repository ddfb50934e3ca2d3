"""A plan by block: the value of every block, what it adds up to, and what it is as tables of layers and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs.choice import MethodChoice
from kvopt.problem import Problem
from kvopt.search.block_plan import BlockPlan, ByBlock, Width
from kvopt.search.blocks.layout import Layout, layout
from kvopt.search.blocks.values import INNER, PARTS, Values
from objectives.accuracy.composition import CORRELATION, Losses, Shares, losses
from objectives.serving.folded import UNCOMPRESSED, Folded, contributions, fold
from objectives.types import replace

OTHERS = ("layer", "head", "prefill")  # parts of the loss that no block decides


def by_block(blocks: Layout, found: Values, picks: np.ndarray) -> ByBlock:
    """What plans `(plans, blocks)` add up to, stacked on a leading axis."""
    count, (kinds, heads) = len(picks), blocks.cells
    adds = found.parts[picks, blocks.kind] - found.parts[0, blocks.kind]
    summed = np.zeros((count, kinds * heads, len(Folded._fields)))
    for cell in np.unique(blocks.cell):
        summed[:, cell] = adds[:, blocks.cell == cell].sum(axis=1)
    whole = found.base[None] + summed.reshape(count, kinds, heads, -1)
    middle, edge = (np.einsum("b,pbl->pl", blocks.share, part[picks]) for part in (found.middle, found.edge))
    return ByBlock(folded=Folded(*np.moveaxis(whole, -1, 0)), middle=as_losses(middle), edge=as_losses(edge))


def as_losses(parts: np.ndarray) -> Losses:
    """The parts `(plans, PARTS)` as the mathematics takes them."""
    named: dict[str, Any] = dict(zip(PARTS, np.moveaxis(parts, -1, 0), strict=True))
    return Losses(**{**named, **dict.fromkeys(OTHERS, np.zeros(parts.shape[:-1]))})


def lower_end(middle: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Log loss at the confidence of parts `(..., PARTS)`: `objectives.accuracy.composition.retained_at`, in NumPy."""
    beyond = edge - middle
    whole, squares = beyond.sum(axis=-1), (beyond**2).sum(axis=-1)
    return np.asarray(middle.sum(axis=-1) + np.sign(whole) * np.sqrt((1 - CORRELATION) * squares + CORRELATION * whole**2))


def tangent(middle: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the parts at the median and at the confidence whose sum is the log loss at the confidence here, and never more elsewhere.

    What parts lose beyond their medians adds up as a norm, which lies above each of its tangents.
    """
    beyond = edge - middle
    whole, squares = beyond.sum(), (beyond**2).sum()
    joint = np.sqrt((1 - CORRELATION) * squares + CORRELATION * whole**2)
    slope = ((1 - CORRELATION) * beyond + CORRELATION * whole) / joint if joint > 0 else np.zeros_like(beyond)
    return 1 - slope, slope


def tables(blocks: Layout, found: Values, picks: np.ndarray) -> dict[str, np.ndarray]:
    """The settings of a plan `(blocks,)` by field, of the layers that store a cache: `(layers, KV heads)`, or `(layers, 1)`."""
    shape = blocks.fine.head_count.shape
    made = {name: np.full(shape, 16.0 if name.endswith("bits") else 1.0) for name in INNER}
    for i, name in enumerate(INNER):
        made[name][blocks.row, blocks.head] = found.settings[picks, i]
    return {name: table[np.unique(blocks.row)] for name, table in made.items()}


def block_plan(problem: Problem, chosen: MethodChoice, width: Width, found: Mapping[str, np.ndarray]) -> BlockPlan:
    """The plan of such tables, evaluated setting by setting in double precision. Raises `BadInput` where they do not fit the model."""
    blocks = layout(problem, width)
    rows = np.unique(blocks.row)
    shape = (len(rows), blocks.fine.head_count.shape[1])
    content = blocks.content
    whole = {}
    for name in INNER:
        table = np.asarray(found.get(name, np.full(shape, 16.0 if name.endswith("bits") else 1.0)), np.float64)
        if table.shape != shape:
            raise BadInput("plan", f"blocks.{name}: {' x '.join(map(str, table.shape))}", f"needs {shape[0]} layers of {shape[1]}")
        whole[name] = np.full(content.shape, 16.0 if name.endswith("bits") else 1.0)
        whole[name][rows] = table
    with jax.enable_x64(True):
        plan = replace(UNCOMPRESSED, **{name: jnp.asarray(table) for name, table in whole.items()})
        folded = fold(contributions(blocks.fine, plan, chosen.effects()), jnp.asarray(blocks.kinds))
        accuracy, shares = chosen.accuracy(problem.asked), Shares(layer=1.0, head=1.0, content=jnp.asarray(content))
        middle, edge = (jax.tree.map(np.float64, losses(plan, accuracy, shares, z)) for z in (0.0, problem.targets.z))
    made = ByBlock(folded=jax.tree.map(np.asarray, folded), middle=middle, edge=edge)
    return BlockPlan(width, {name: table[rows] for name, table in whole.items()}, made)
