"""A plan by block: the value of every block, what it adds up to, and what it is as tables of layers and heads."""

from __future__ import annotations

import numpy as np

from kvopt.search.blocks.layout import Layout
from kvopt.search.blocks.values import INNER, PARTS, Values
from kvopt.search.lanes import ByBlock
from objectives.accuracy.composition import CORRELATION, Losses
from objectives.serving.folded import Folded

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
    named = dict(zip(PARTS, np.moveaxis(parts, -1, 0), strict=True))
    return Losses(**named, **dict.fromkeys(OTHERS, np.zeros(parts.shape[:-1])))


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
    """The settings of a plan `(blocks,)` by field: `(layers, heads)` over the rows of `blocks.fine`, uncompressed where there is no block."""
    shape = blocks.fine.head_count.shape
    made = {name: np.full(shape, 16.0 if name.endswith("bits") else 1.0) for name in INNER}
    for i, name in enumerate(INNER):
        made[name][blocks.row, blocks.head] = found.settings[picks, i]
    return made
