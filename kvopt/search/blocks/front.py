"""A front of plans by block: accuracy against throughput, one plan a level of loss, with the schedule searched over what the plans add up to."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np

from kvopt.problem import Problem
from kvopt.search.block_plan import Width
from kvopt.search.blocks.exchange import exchange
from kvopt.search.blocks.layout import Layout, layout
from kvopt.search.blocks.plan import by_block, lower_end
from kvopt.search.blocks.sequence import Prices, Sequence, sequence
from kvopt.search.blocks.values import INNER, PARTS, Values, values
from kvopt.search.evaluate import GOALS
from kvopt.search.lanes import FIELDS, Choice, stacked
from kvopt.search.pipeline import linked, steering
from kvopt.search.schedules import Plans, Schedules
from objectives.serving.folded import Folded
from objectives.types import replace

LEAST_LOSS = 3e-4  # of the levels
ROUNDS = 2  # of prices, each from the plans of the one before
ANCHORS = 9  # plans along the front whose prices are used for those near them
MOVED = 0.05  # relative move of a sum by which its price is measured
BYTES = ("stored", "filling", "moved", "read")


@dataclass(frozen=True)
class BlockPlans:
    """Plans by block with their schedules, one row a plan, by rising loss."""

    picks: np.ndarray  # (plans, blocks)
    lane: np.ndarray  # (plans,) which choice
    x: np.ndarray  # (plans, fields)
    logs: np.ndarray  # (plans, goals)
    broken: np.ndarray  # (plans, constraints)
    budget: np.ndarray  # (plans,) log loss that each was allowed

    def rows(self, index: np.ndarray) -> BlockPlans:
        """Some of the plans."""
        return BlockPlans(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class BlockSearch:
    """One problem, one choice of methods, every grouping: plans in which each layer or head has its own setting."""

    def __init__(
        self, problem: Problem, choices: Several[Choice], width: Width, goal: str = "sessions_per_gpu_hour", blocks: Layout | None = None
    ) -> None:
        self.problem, self.choices = problem, tuple(choices)
        self.methods = choices[0].methods
        self.blocks: Layout = layout(problem, width) if blocks is None else blocks
        self.values: Values = values(problem, self.methods, self.blocks)
        self.edges = self.methods.bits.edge_layers_16bit if self.methods.bits else 0
        own = steering(problem, ())
        self.given = own._replace(system=replace(own.system, architecture=self.blocks.folded))
        self.lanes = linked(stacked(problem, self.choices))
        self.schedules = Schedules(problem, self.given, self.lanes, list(GOALS).index(goal))
        self.retained = -np.log(np.array([choice.weights.retained for choice in self.choices]))

    def revalued(self, found: Values | None) -> BlockSearch:
        """The same with these values, as numbers alone: it can be pickled, and keeps neither the problem nor the choices that it was made from."""
        other = object.__new__(BlockSearch)
        other.__dict__.update({**self.__dict__, "problem": None, "choices": (), "methods": None, "values": found})
        return other

    def prices(self) -> Prices:
        """To begin with: every byte alike, wherever it is held, read or moved; the loss at the median."""
        whole = np.maximum(self.values.base.sum(axis=(0, 1)), 1e-300)
        parts = np.array([1 / whole[i] if name in BYTES else 0.0 for i, name in enumerate(Folded._fields)])
        ones, zeros = np.ones(len(PARTS)), np.zeros(len(PARTS))
        return Prices(np.broadcast_to(parts, (self.blocks.cells[0], len(parts))), np.ones(self.blocks.cells[1]), ones, zeros)

    def plans(self, picks: np.ndarray) -> Plans:
        """Plans ready to be scheduled: `(plans, blocks)` values, folded. Settings are the means over the blocks, for what reads them."""
        x = np.ones((len(picks), len(FIELDS)))
        mean = self.values.settings[picks].mean(axis=1)
        for i, name in enumerate(INNER):
            x[:, FIELDS.index(name)] = mean[:, i]
        return Plans(x, by_block(self.blocks, self.values, picks))

    def budget(self, floor: float) -> float:
        """The log loss at the lower end that the accuracy floor leaves, with the best of the checkpoints."""
        return float(-np.log(floor) - self.retained.min())

    def most_loss(self, floor: float, prices: Prices | None = None) -> float:
        """The log loss at the median at which the lower end meets the floor, along some prices: the first ones, unless given."""
        found = sequence(self.blocks, self.values, self.prices() if prices is None else prices, self.edges)
        meets = np.flatnonzero(lower_end(found.middle, found.edge) <= self.budget(floor))
        return float(found.loss[meets[-1]]) if len(meets) else 0.0

    def at(self, budgets: np.ndarray, prices: Several[Prices]) -> np.ndarray:
        """The plan of each budget of loss under its prices: `(budgets, blocks)`."""
        made: dict[int, Sequence] = {}
        picks = np.zeros((len(budgets), len(self.blocks.row)), int)
        for row, (budget, price) in enumerate(zip(budgets, prices, strict=True)):
            if id(price) not in made:
                made[id(price)] = sequence(self.blocks, self.values, price, self.edges)
            steps = made[id(price)]
            picks[row] = exchange(self.blocks, self.values, price, steps.picks(int(steps.within(budget))), budget, self.edges)
        return picks

    def front(self, count: int, floor: float) -> BlockPlans:
        """Plans at `count` levels of loss down to an accuracy of `floor` at the lower end."""
        most = self.most_loss(floor)
        budgets = levels(most, count, LEAST_LOSS)
        anchors = np.unique(np.linspace(0, count - 1, ANCHORS).astype(int))
        price = [self.prices()] * count
        found: BlockPlans | None = None
        for _ in range(ROUNDS):
            found = self.scheduled(self.at(budgets, price), budgets, anchors)
            at_anchor = self.marginal(found, anchors)
            near = np.abs(np.arange(count)[:, None] - anchors[None]).argmin(axis=1)
            price = [at_anchor[k] for k in near]
        assert found is not None
        last = self.scheduled(self.at(budgets, price), budgets, np.arange(count))
        return better(found, last, self.schedules.goal)

    def scheduled(self, picks: np.ndarray, budgets: np.ndarray, anchors: np.ndarray) -> BlockPlans:
        """Plans with their best schedules."""
        got = self.schedules.best(self.plans(picks), anchors)
        return BlockPlans(picks, got.lane, got.x, got.logs, got.broken, budgets)

    def marginal(self, found: BlockPlans, rows: np.ndarray) -> list[Prices]:
        """Prices at some plans: how much the goal falls when a sum grows by a little, per unit of the sum, the load solved again."""
        kinds, many = self.blocks.cells[0], len(Folded._fields)
        plans = self.plans(found.picks[rows])
        assert plans.by_block is not None
        moves = np.ones((kinds * many + 1, kinds, many))
        for place in range(kinds * many):
            moves[place, place // many, place % many] += MOVED
        count = len(moves)
        repeated = plans.rows(np.repeat(np.arange(len(rows)), count))
        assert repeated.by_block is not None
        factor = np.tile(moves, (len(rows), 1, 1))
        folded = Folded(*(leaf * factor[:, :, None, i] for i, leaf in enumerate(repeated.by_block.folded)))
        moved = Plans(repeated.x, replace(repeated.by_block, folded=folded))
        lane = np.repeat(found.lane[rows], count)
        points = self.schedules.measure(moved, np.arange(len(lane)), lane, np.repeat(found.x[rows], count, axis=0))
        goal = points.logs[:, self.schedules.goal].reshape(len(rows), count)
        sums = np.stack([np.asarray(leaf).sum(axis=-1) for leaf in plans.by_block.folded], axis=-1)
        rise = (goal[:, :-1] - goal[:, -1:]).reshape(len(rows), kinds, many) / MOVED
        per_unit = np.maximum(np.nan_to_num(rise), 0.0) / np.maximum(sums, 1e-300)
        first = self.prices()
        tiny = 1e-4 * first.parts * max(float((per_unit * sums).sum(axis=(1, 2)).max()), 1e-9)  # what is free is still not wasted
        return [Prices(line + tiny, first.heads, first.middle, first.edge) for line in per_unit]


def levels(most: float, count: int, least: float) -> np.ndarray:
    """Log losses up to `most`, none first, evenly spread on a log scale from `least`: where little is lost, a little more buys most."""
    return np.concatenate([[0.0], np.geomspace(min(least, most / 2), most, count - 1)])


def better(one: BlockPlans, other: BlockPlans, goal: int) -> BlockPlans:
    """Of two plans for each budget the one that serves more."""

    def score(found: BlockPlans) -> np.ndarray:
        worst = np.maximum(found.broken, 0).sum(axis=1)
        return np.where(worst > 0, 1e3 + worst, found.logs[:, goal])

    pick = score(other) < score(one)
    parts = [(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__]
    return BlockPlans(*(np.where(pick.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in parts))
