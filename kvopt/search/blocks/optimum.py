"""The plan by block that serves most above an accuracy floor, and bounds on plans by block."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from kvopt.search.blocks.bound import as_plans, corners
from kvopt.search.blocks.exchange import exchange
from kvopt.search.blocks.front import BlockPlans, BlockSearch, better
from kvopt.search.blocks.plan import lower_end, tangent
from kvopt.search.blocks.sequence import Prices, sequence
from kvopt.search.blocks.values import PARTS
from kvopt.search.boxes import Covered, bound, cover
from kvopt.search.pipeline import given, known
from kvopt.search.schedules import Plans

ROUNDS = 3  # of prices and tangents
SHRUNK = (1.0, 0.999, 0.995, 0.98, 0.95, 0.9)  # of the budget, until the exchange keeps the floor: its loss is the tangent's, below the true one


@dataclass(frozen=True)
class Optimum:
    """The best plan by block of one choice of methods."""

    plans: BlockPlans  # one row
    relaxed_log: float  # the goal where a block may mix two values, at the plan's own schedule: what the plan is the repair of
    bound_log: float  # the least log goal that any plan of these methods and groupings can have


def at_floor(search: BlockSearch, floor: float) -> Optimum | None:
    """The best plan whose lower end meets the floor; none where no plan of these methods does, or none meets the targets."""
    budget = search.budget(floor)
    prices, found = search.prices(), None
    for _ in range(ROUNDS):
        made = _within(search, prices, budget)
        if made is None:
            return None
        picks, prices = made
        now = search.scheduled(picks[None], np.array([budget]), np.zeros(1, int))
        found = now if found is None else better(found, now, search.schedules.goal)
        marginal = search.marginal(found, np.zeros(1, int))[0]
        prices = Prices(marginal.parts, marginal.heads, prices.middle, prices.edge)
    assert found is not None
    if np.any(found.broken[0, :-1] > 0):
        return None
    middle, edge = _parts(search, found.picks[0])
    weights = tangent(middle, edge)
    incumbent = found.logs[:, search.schedules.goal]
    log = bounds(search, np.array([budget]), *weights, incumbent)
    return Optimum(found, float(_relaxed(search, found, prices, budget, weights)), float(log[0]))


def _within(search: BlockSearch, prices: Prices, budget: float) -> tuple[np.ndarray, Prices] | None:
    """A plan at the prices that keeps within the budget at the lower end, and the prices with the tangent of the loss there."""
    for _ in range(2):
        steps = sequence(search.blocks, search.values, prices, search.edges)
        meets = np.flatnonzero(lower_end(steps.middle, steps.edge) <= budget + 1e-12)
        if not len(meets):
            return None
        last = int(meets[-1])
        prices = Prices(prices.parts, prices.heads, *tangent(steps.middle[last], steps.edge[last]))
    start = steps.picks(last)
    for share in SHRUNK:
        picks = exchange(search.blocks, search.values, prices, start, share * budget, search.edges)
        if lower_end(*_parts(search, picks)) <= budget:
            return picks, prices
    return start, prices


def _relaxed(search: BlockSearch, found: BlockPlans, prices: Prices, budget: float, weights: tuple[np.ndarray, np.ndarray]) -> float:
    """The goal of the Lagrangian relaxation at the plan's schedule: the sums between the two prefixes of the sequence on either side of the budget."""
    steps = sequence(search.blocks, search.values, Prices(prices.parts, prices.heads, *weights), search.edges)
    after = min(int(np.searchsorted(steps.loss, budget, side="right")), len(steps.loss) - 1)
    ends = search.plans(np.array([steps.picks(max(after - 1, 0)), steps.picks(after)])).by_block
    assert ends is not None
    span = steps.loss[after] - steps.loss[after - 1] if after else 0.0
    part = np.clip((budget - steps.loss[after - 1]) / span, 0.0, 1.0) if span > 0 else 0.0
    mixed = jax.tree.map(lambda leaf: leaf[:1] * (1 - part) + leaf[1:] * part, ends)
    points = search.schedules.measure(Plans(search.plans(found.picks).x, mixed), np.zeros(1, int), found.lane, found.x)
    return float(points.logs[0, search.schedules.goal])


def _parts(search: BlockSearch, picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = search.blocks.share
    return share @ search.values.middle[picks], share @ search.values.edge[picks]


def losses(search: BlockSearch, picks: np.ndarray) -> np.ndarray:
    """Log loss at the median of plans `(plans, blocks)`."""
    return np.array([float(_parts(search, row)[0].sum()) for row in picks])


def bounds(search: BlockSearch, budgets: np.ndarray, middle: np.ndarray, edge: np.ndarray, incumbent: np.ndarray) -> np.ndarray:
    """For each budget of weighted log loss the least log goal of any plan by block on any grouping: never above `incumbent`, what is known."""
    least = corners(search.blocks, search.values, budgets, middle, edge, search.edges)
    x = np.repeat(search.plans(np.zeros((1, len(search.blocks.row)), int)).x, len(budgets), axis=0)
    covered = Covered(known(given(search.problem, ())), search.lanes, search.problem.targets, Plans(x, as_plans(least)), search.schedules.goal)
    rows = np.arange(len(budgets))
    boxes = cover(rows, search.lanes, np.ones((len(rows), len(search.lanes.low)), bool), search.schedules.chunks)
    found = bound(covered, boxes, incumbent, rows)
    search.schedules.evaluations += covered.evaluations
    return found


def front_bounds(search: BlockSearch, found: BlockPlans) -> np.ndarray:
    """The bound at every point of a front: the least log goal of any plan that keeps at least as much accuracy as the point does."""
    ones, zeros = np.ones(len(PARTS)), np.zeros(len(PARTS))
    return bounds(search, losses(search, found.picks), ones, zeros, found.logs[:, search.schedules.goal])
