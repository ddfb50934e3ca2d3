"""A bound on plans by block: corners that no plan within a loss lies below, and what the best schedule could make of them.

For each sum alone the Lagrangian relaxation gives the least that it can be within the loss, from the sequence of steps at the price of that sum alone. No plan
has less of any of them, and more of any never serves more: the corner of these least sums bounds all plans.
"""

from __future__ import annotations

import numpy as np

from kvopt.search.block_plan import ByBlock
from kvopt.search.blocks.layout import Layout
from kvopt.search.blocks.plan import as_losses
from kvopt.search.blocks.sequence import Prices, sequence
from kvopt.search.blocks.values import PARTS, Values
from objectives.serving.folded import Folded


def corners(blocks: Layout, found: Values, budgets: np.ndarray, middle: np.ndarray, edge: np.ndarray, edges: int = 0) -> np.ndarray:
    """The least of every sum within weighted log losses `budgets`: `(budgets, kinds, Folded)`. Weights `(PARTS,)` as in `Prices`."""
    kinds, heads = blocks.cells
    whole = found.base.sum(axis=1)
    least = np.empty((len(budgets), kinds, len(Folded._fields)))
    for kind in range(kinds):
        mine = blocks.kind == kind
        for place in range(len(Folded._fields)):
            unit = np.zeros((kinds, len(Folded._fields)))
            unit[kind, place] = 1.0
            steps = sequence(blocks, found, Prices(unit, np.ones(heads), middle, edge), edges)
            rest = whole[kind, place] - mine.sum() * found.parts[0, kind, place]  # of layers that are no blocks
            least[:, kind, place] = rest + steps.least_cost(budgets)
    return least


def as_plans(least: np.ndarray) -> ByBlock:
    """Corners as folded plans, all heads of a layer alike: no plan's fullest rank holds less than the mean of the ranks. Their loss is not theirs to say."""
    nothing = as_losses(np.zeros((len(least), len(PARTS))))
    return ByBlock(folded=Folded(*np.moveaxis(least[:, :, None, :], -1, 0)), middle=nothing, edge=nothing)
