"""Plans by layer or KV head as vectors: a grouping, the fate of idle caches, the chunk, what stays in HBM, and the settings of every block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.inputs import head_profiles
from kvopt.inputs.choice import MethodChoice
from kvopt.problem import Problem
from kvopt.search.block_plan import ByBlock, Width
from kvopt.search.blocks.front import BlockSearch
from kvopt.search.blocks.layout import Layout, layout
from kvopt.search.blocks.plan import as_losses
from kvopt.search.blocks.values import INNER
from kvopt.search.deployments import deployments
from kvopt.search.evaluate import State, evaluate, log_goal, saturated
from kvopt.search.lanes import BATCH, make_choices
from kvopt.search.schedules import CHUNK, HALVINGS, RESIDENT, SHARES
from kvopt.search.vector_problem import OBJECTIVES, Axis, VectorProblem
from kvopt.search.vector_uniform import CHOSEN, FLOOR
from objectives.accuracy.composition import Shares, losses
from objectives.accuracy.heads import Concentration, importance, score_held
from objectives.serving.folded import UNCOMPRESSED, Folded, contributions, fold
from objectives.types import replace

SETTINGS = ("token", "key_rank", "value_rank", "format")  # of a block, in the order in which `blocks.values` has their combinations
OUTCOMES = round(2**HALVINGS / SHARES[1]) + 1  # steps of what stays in HBM: the finest that kvopt's own search takes
SUMS = len(Folded._fields)


def uneven(problem: Problem, width: Width, seed: int) -> Layout:
    """The blocks of a model of which some matter more: as concentrated as measured scores of heads are (`kvopt.inputs.head_profiles`), their order drawn.

    A layer has what its heads have together.
    """
    blocks = layout(problem, width)
    heads = np.asarray(problem.model.architecture(per_layer=True).head_count)[blocks.row].sum(axis=1).astype(int)
    count = len(blocks.row) if width == "head" else int(heads.sum())
    profile = head_profiles.load().gates
    with jax.enable_x64(True):
        curve = Concentration(scale=profile.scale, bend=profile.bend, headroom=profile.headroom)
        ranked = np.diff(np.asarray(score_held(jnp.arange(count + 1) / count, curve)))
        weights = np.asarray(importance(jnp.asarray(np.random.default_rng(seed).permutation(ranked)), head_profiles.load().score_weight))
    share = weights if width == "head" else np.add.reduceat(weights, np.cumsum(heads) - heads)
    return changed(blocks, share=share / share.sum())


class BlockVector(VectorProblem):
    """The plans by layer or KV head of one choice of methods, on every grouping without pipeline stages; for workloads without shared prefixes.

    `search`: the same as kvopt searches it; in a copy that was pickled, without the problem that it was made from. `seed`: of which blocks matter most.
    """

    def __init__(self, problem: Problem, methods: MethodChoice, width: Width, seed: int = 0) -> None:
        scenario = problem.scenario.model_copy(update={"accuracy_floor": min(FLOOR, problem.scenario.accuracy_floor)})
        own = changed(problem, scenario=scenario)
        choices = make_choices(own, [methods], [found for found in deployments(own) if found.pp == 1])
        self.search = BlockSearch(own, choices, width, blocks=uneven(own, width, seed))
        self.effects, self.accuracy, self.targets = methods.effects(), methods.accuracy(own.asked), own.targets
        groupings = list(dict.fromkeys(changed(choice.deployment, park=True) for choice in choices))
        fates = list(dict.fromkeys(choice.deployment.park for choice in choices))
        placed = {choice.deployment: place for place, choice in enumerate(choices)}
        self.lane_of = np.array([[placed[changed(grouping, park=park)] for park in fates] for grouping in groupings])
        self.steps = self._steps()
        named = {"grouping": Axis.bins("grouping", len(groupings)), "fate": Axis.bins("fate", len(fates))}
        if len(self.search.schedules.chunks) > 1:
            named["chunk"] = Axis.spaced("chunk", self.search.schedules.chunks, logarithmic=True)
        if self.search.lanes.high[:, RESIDENT].max() > 0:
            named["resident"] = Axis.spaced("resident", np.linspace(0, 1, OUTCOMES), logarithmic=False)
        schedule = [axis for axis in named.values() if len(axis.positions) > 1]
        inner = []
        for name, steps in self.steps.items():
            if name == "format":
                inner.append(Axis(name, Axis.bins(name, len(steps)).positions))  # by rising bits: a number like the others
            else:
                inner.append(Axis.spaced(name, steps, logarithmic=True))
        blocks = len(self.search.blocks.row)
        super().__init__([*schedule, *inner], np.concatenate([np.arange(len(schedule)), np.repeat(len(schedule) + np.arange(len(inner)), blocks)]))
        self._place = {axis.name: place for place, axis in enumerate(schedule)}
        self._first = {axis.name: len(schedule) + k * blocks for k, axis in enumerate(inner)}

    def __getstate__(self) -> dict[str, Any]:
        """Numbers alone, the reference among them: what they were made from stays behind."""
        _ = self.reference
        whole = {name: value for name, value in self.__dict__.items() if name not in ("_ready", "_shared_single")}
        return {**whole, "search": self.search.revalued(self.search.values)}

    def _steps(self) -> dict[str, np.ndarray]:
        """The values of every setting that has several, rising; of formats the pairs of bits, fewest first."""
        settings = self.search.values.settings
        found = {name: np.unique(settings[:, place]) for place, name in enumerate(SETTINGS[:3])}
        pairs = np.unique(settings[:, 3:], axis=0)
        found["format"] = pairs[np.lexsort((pairs[:, 1], pairs.sum(axis=1)))]
        return {name: steps for name, steps in found.items() if len(steps) > 1}

    @cached_property
    def _combined(self) -> np.ndarray:
        """Which value of a block a combination of steps is, `(steps of each setting, ...)`, and -1 nowhere."""
        keys = self._steps_of
        combined = np.full([len(steps) for steps in self.steps.values()], -1, np.int32)
        combined[tuple(keys.T)] = np.arange(len(keys))
        return combined

    @cached_property
    def _steps_of(self) -> np.ndarray:
        """The steps of each value `(values, settings that have several)`."""
        settings = self.search.values.settings
        columns = []
        for name, steps in self.steps.items():
            if name == "format":
                code = steps @ [100.0, 1.0]
                order = np.argsort(code)
                columns.append(order[np.searchsorted(code[order], settings[:, 3:] @ [100.0, 1.0])])
            else:
                columns.append(np.searchsorted(steps, settings[:, SETTINGS.index(name)]))
        return np.stack(columns, axis=1)

    def picks(self, index: np.ndarray) -> np.ndarray:
        """The value of every block of deployable plans: `(points, blocks)`. Layers that the method leaves alone stay in 16 bits."""
        blocks = self.search.blocks
        steps = [index[:, first : first + len(blocks.row)] for first in self._first.values()]
        found: np.ndarray = self._combined[tuple(steps)]
        if self.search.edges:
            steps[list(self.steps).index("format")] = np.full_like(steps[0], len(self.steps["format"]) - 1)
            found = np.where(blocks.edge < self.search.edges, self._combined[tuple(steps)], found)
        return found

    def settings(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lane `(points,)` and the settings of the schedule `(points, fields)` of deployable plans, at the least load."""
        nothing = np.zeros(len(index), int)
        at = {name: index[:, place] for name, place in self._place.items()}
        lane = self.lane_of[at.get("grouping", nothing), at.get("fate", nothing)]
        x = np.array(self.search.lanes.low[lane], float)
        x[:, CHUNK] = self.search.schedules.chunks[at.get("chunk", nothing)]
        x[:, RESIDENT] = at.get("resident", nothing) / (OUTCOMES - 1)
        return lane, x

    def index_of(self, lane: np.ndarray, x: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """The deployable plans `(points, size)` of values of blocks `(points, blocks)` with these schedules."""
        index = np.zeros((len(x), self.size), np.int32)
        grouping, fate = (np.array([np.argwhere(self.lane_of == one)[0] for one in range(self.lane_of.size)])[lane]).T
        found = {
            "grouping": grouping,
            "fate": fate,
            "chunk": np.searchsorted(self.search.schedules.chunks, x[:, CHUNK]),
            "resident": np.round(x[:, RESIDENT] * (OUTCOMES - 1)),
        }
        for name, place in self._place.items():
            index[:, place] = found[name]
        steps = self._steps_of[picks]
        for k, first in enumerate(self._first.values()):
            index[:, first : first + picks.shape[1]] = steps[:, :, k]
        return index

    @cached_property
    def reference(self) -> np.ndarray:
        """The sessions of the best uncompressed plan, and the accuracy floor."""
        search = self.search
        with jax.enable_x64(True):
            got = search.schedules.best(search.plans(np.zeros((1, len(search.blocks.row)), int)))
        index = self.index_of(got.lane, got.x, np.zeros((1, len(search.blocks.row)), int))
        made = self.exact(index)
        return np.array([made.objectives[0, 0] if made.feasible[0] else 0.0, -np.log(float(self.targets.accuracy_floor))])

    def shared(self) -> Any:
        """What all points are given: the system, all lanes, the targets, and what the values of blocks hold, read and lose."""
        return self._ready

    @cached_property
    def _ready(self) -> Any:
        search = self.search
        found, blocks = search.values, search.blocks
        adds = np.moveaxis(found.parts - found.parts[:1], 1, 0)  # (kinds, values, sums)
        lost = np.broadcast_to(np.concatenate([found.middle, found.edge], axis=1), (len(adds), *found.middle.shape[:1], 2 * found.middle.shape[1]))
        cells = np.eye(blocks.cells[0] * blocks.cells[1])[:, blocks.cell]
        table = np.concatenate([adds, lost], axis=2)
        start = (blocks.kind * len(found.settings)).astype(np.int32)
        return search.given, search.lanes, self.targets, (table.reshape(-1, table.shape[2]), start, cells, blocks.share, found.base)

    def points(self, index: np.ndarray) -> tuple[Any, ...]:
        """The lane, the settings of the schedule and the values of the blocks of each plan."""
        return (*self.settings(index), self.picks(index))

    @property
    def program(self) -> Callable[..., Any]:
        """Added up, saturated, then evaluated."""
        return _measured

    def relaxed(self, shared: Any, v: Any) -> Any:
        """Objectives and violations of a vector on the lane of its first coordinates, values between the deployable ones."""
        given, lanes, targets, _ = shared
        search = self.search
        places = {name: jnp.searchsorted(jnp.asarray(self.axes[at].edges), v[at], side="right") for name, at in self._place.items() if name in CHOSEN}
        lane = jnp.asarray(self.lane_of)[places.get("grouping", 0), places.get("fate", 0)]
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf)[lane], lanes)
        chunks = np.log(search.schedules.chunks)
        x = own.low.at[BATCH].set(jnp.exp(jnp.log(own.low[BATCH]) + (jnp.log(own.high[BATCH]) - jnp.log(own.low[BATCH])) * v[-1]))
        x = x.at[CHUNK].set(jnp.exp(chunks[0] + (chunks[-1] - chunks[0]) * (v[self._place["chunk"]] if "chunk" in self._place else 0.0)))
        x = x.at[RESIDENT].set(v[self._place["resident"]] if "resident" in self._place else 0.0)
        state = evaluate(given, replace(own, by_block=self._folded(v, targets.z)), targets, x)
        return jnp.concatenate([jnp.stack([log_goal(name, state) for name in OBJECTIVES]), given.active * state.broken])

    def _folded(self, v: Any, z: Any) -> ByBlock:
        """What the blocks add up to, setting by setting."""
        blocks = self.search.blocks
        shape = blocks.fine.head_count.shape
        plan, count = UNCOMPRESSED, len(blocks.row)
        for name, steps in self.steps.items():
            u = v[self._first[name] : self._first[name] + count]
            if name == "format":
                positions = jnp.asarray(self.axes[self.of[self._first[name]]].positions)
                found = {field: jnp.interp(u, positions, jnp.asarray(bits)) for field, bits in zip(INNER[3:], steps.T, strict=True)}
                if self.search.edges:
                    found = {field: jnp.where(blocks.edge < self.search.edges, 16.0, bits) for field, bits in found.items()}
            else:
                low, high = np.log(steps[[0, -1]])
                found = {INNER[SETTINGS.index(name)]: jnp.exp(low + (high - low) * u)}
            tables = {field: jnp.full(shape, getattr(UNCOMPRESSED, field)).at[blocks.row, blocks.head].set(values) for field, values in found.items()}
            plan = replace(plan, **tables)
        shares = Shares(layer=1.0, head=1.0, content=jnp.asarray(blocks.content))
        folded = fold(contributions(blocks.fine, jax.tree.map(jnp.asarray, plan), self.effects), jnp.asarray(blocks.kinds))
        return ByBlock(folded=folded, middle=losses(plan, self.accuracy, shares), edge=losses(plan, self.accuracy, shares, z))


def _measured(shared: Any, lane: Any, x: Any, picks: Any, halvings: int) -> tuple[Any, Any]:
    given, lanes, targets, (table, start, cells, share, base) = shared

    def one(place: Any, settings: Any, picked: Any) -> tuple[Any, Any]:
        rows = table[start + picked]
        folded = base + (cells @ rows[:, :SUMS]).reshape(base.shape)
        lost = (share @ rows[:, SUMS:]).reshape(2, -1)
        by_block = ByBlock(folded=Folded(*jnp.moveaxis(folded, -1, 0)), middle=as_losses(lost[0]), edge=as_losses(lost[1]))
        own = replace(jax.tree.map(lambda leaf: leaf[place], lanes), by_block=by_block)
        return saturated(given, own, targets, settings, halvings, judged)[1]

    def judged(state: State) -> tuple[Any, Any]:
        return jnp.stack([log_goal(name, state) for name in OBJECTIVES]), jnp.max(given.active * state.broken)

    return jax.vmap(one)(lane, x, picks)
