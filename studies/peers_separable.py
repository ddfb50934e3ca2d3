"""What solves the separable part alone: the values of blocks by bytes held, for one multiplier or budget of loss after another, then the same schedules.

Both are exact where stored bytes are what counts, and blind to everything else: what is read, computed and moved has no price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from kvopt.search.blocks.front import BlockSearch
from kvopt.search.blocks.plan import lower_end
from kvopt.search.vector_blocks import BlockVector
from kvopt.search.vector_uniform import FLOOR
from objectives.serving.folded import Folded
from studies.peers_kvopt import keep
from studies.peers_runs import Recorder, spread

FIRST, MOST = 16, 128  # plans that are scheduled at a time
LEAST_LOSS = 1e-4  # of budgets
HALVINGS = 30
GAP = 1e-4  # relative, at which HiGHS stops
SOLVE_S = 10.0  # [s] after which it gives what it has: of hundreds of blocks it takes gigabytes to prove the last thousandth


def frontier(search: BlockSearch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values that no other one beats in log loss and stored bytes: (values, loss, bytes of one block). All layers are of one kind."""
    loss, cost = search.values.middle.sum(axis=1), search.values.parts[:, 0, Folded._fields.index("stored")]
    order = np.lexsort((cost, loss))
    kept = order[np.concatenate([[True], cost[order][1:] < np.minimum.accumulate(cost[order])[:-1]])]
    return kept, loss[kept], cost[kept]


def bisection(recorder: Recorder, seed: int) -> None:
    """The least bytes plus a multiplier times the loss, block by block; the smallest multiplier is the one that meets the floor, found by bisection."""
    search = _search(recorder)
    value, loss, cost = frontier(search)

    def picks(multiplier: float) -> np.ndarray:
        each = cost[None] / cost[0] + multiplier * search.blocks.share[:, None] * loss[None] * len(search.blocks.row)
        return np.asarray(value[each.argmin(axis=1)])

    low, high = math.log(1e-4), math.log(1e6)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _meets(search, picks(math.exp(middle))) else (middle, high)
    _scheduled(recorder, lambda share: picks(math.exp(high + (math.log(1e6) - high) * share)), FIRST)


def highs(recorder: Recorder, seed: int) -> None:
    """HiGHS on the multiple-choice knapsack: the least bytes within one budget of loss after another."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, kron

    search = _search(recorder)
    value, loss, cost = frontier(search)
    blocks, count = len(search.blocks.row), len(value)
    one = kron(csr_array(np.eye(blocks)), np.ones((1, count)))
    lost = (search.blocks.share[:, None] * loss[None]).ravel()
    most = -math.log(FLOOR)

    def picks(share: float) -> np.ndarray:
        recorder.check()
        budget = math.exp(math.log(LEAST_LOSS) + (math.log(most) - math.log(LEAST_LOSS)) * share)
        left = min(max(recorder.seconds - recorder.now, 0.1), SOLVE_S)
        found = milp(
            np.tile(cost / cost[0], blocks),
            integrality=np.ones(blocks * count),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(one, 1, 1), LinearConstraint(lost[None], -np.inf, budget)],
            options={"mip_rel_gap": GAP, "time_limit": left},
        )
        recorder.check()
        if found.x is None:
            return np.zeros(blocks, int)
        return np.asarray(value[found.x.reshape(blocks, count).argmax(axis=1)])

    _scheduled(recorder, picks, 1)


def _search(recorder: Recorder) -> BlockSearch:
    assert isinstance(recorder.problem, BlockVector)
    return recorder.problem.search


def _meets(search: BlockSearch, picks: np.ndarray) -> bool:
    share, found = search.blocks.share, search.values
    return float(lower_end(share @ found.middle[picks], share @ found.edge[picks])) <= -math.log(FLOOR) - float(search.retained.min())


def _scheduled(recorder: Recorder, picks: Callable[[float], np.ndarray], first: int) -> None:
    """The best schedule of one plan after another, more at a time as it goes on."""
    assert isinstance(recorder.problem, BlockVector)
    search, shares, count = recorder.problem.search, spread(), first
    while True:
        plans = np.stack([picks(share) for share in _next(shares, count)])
        keep(recorder, recorder.problem, search.scheduled(plans, np.zeros(count), np.arange(count)))
        count = min(2 * count, MOST)


def _next(shares: Iterator[float], count: int) -> list[float]:
    return sorted(next(shares) for _ in range(count))
