"""What measurements save of a pick's regret: the few that `kvopt next` would name against random ones, both taken from what was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvopt.accuracy import response
from kvopt.accuracy.joint import Joint, joint
from kvopt.accuracy.reading import Reading
from kvopt.accuracy.value import belief, best_measurements
from studies.method_cells import Cell, LeftIn, hidden

NAMED, RANDOM, DRAWS = 5, 10, 5  # measurements that are named, random ones, and how often those are drawn


@dataclass(frozen=True)
class Revealed:
    """Regret of the pick in one cell, in points: without the pool, with what was named, with random ones (mean over draws), with all of the pool."""

    pool: int
    before: float
    named: float
    drawn: float
    everything: float


class Pool:
    """Every left-out reading of a model on a benchmark, or of a model on any, and what the evidence says of all of them once some are known."""

    def __init__(self, left_in: LeftIn, cell: Cell, whole_model: bool) -> None:
        mine = {name: [one for one in model.readings if hidden(one, cell, whole_model)] for name, model in left_in.models.items()}
        self.elsewhere = {one.selection for model in left_in.of(cell, whole_model).values() for one in model.readings}
        self.parts = [joint(model, mine[name]) for name, model in left_in.of(cell, whole_model).items() if mine[name]]
        self.readings = [reading for part in self.parts for reading in part.readings]
        self.place = {id(reading): i for i, reading in enumerate(self.readings)}
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def kept(self, which: Sequence[int]) -> np.ndarray:
        """What every reading should have retained, `(readings,)`, once those at these places are measured."""
        key = tuple(sorted(int(i) for i in which))
        if key not in self._known:
            self._known[key] = np.concatenate([np.exp(-response.loss(part.readings, part.eta)) for part in self._seen(key)])
        return self._known[key]

    def _seen(self, which: Sequence[int]) -> list[Joint]:
        made, first = [], 0
        for part in self.parts:
            mine = [i - first for i in which if first <= i < first + len(part.readings)]
            made.append(part.seen(mine, [_measured(part.readings[i]) for i in mine]))
            first += len(part.readings)
        return made


def revealed(pool: Pool, cell: Cell) -> Revealed:
    """What measurements from the pool, the cell's own readings among them, save of the cell's regret."""
    own = [pool.place[id(reading)] for reading in cell.readings]
    options = [own[[reading.selection for reading in cell.readings].index(name)] for name in cell.methods]
    count = len(pool.readings)
    chosen = [i for i, _ in best_measurements(belief(pool.parts), options, range(count), NAMED)]

    def regret(which: Sequence[int]) -> float:
        known = pool.elsewhere | {pool.readings[i].selection for i in which}
        kept = np.where([name in known for name in cell.methods], cell.by_method(pool.kept(which)[own]), -np.inf)
        return cell.regret(int(kept.argmax()))

    drawn = [regret(np.random.default_rng(seed).choice(count, min(RANDOM, count), replace=False).tolist()) for seed in range(DRAWS)]
    return Revealed(count, regret([]), regret(chosen), float(np.mean(drawn)), regret(range(count)))


def pools(left_in: LeftIn, cells: Sequence[Cell], whole_model: bool) -> list[Pool]:
    """The pool of every cell; cells of one pool share it."""
    made: dict[tuple[str, ...], Pool] = {}
    found = []
    for cell in cells:
        key = (cell.family, cell.model, "" if whole_model else cell.benchmark)
        if key not in made:
            made[key] = Pool(left_in, cell, whole_model)
        found.append(made[key])
    return found


def _measured(reading: Reading) -> float:
    assert reading.retained is not None  # only measured readings are fitted
    return reading.retained
