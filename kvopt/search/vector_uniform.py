"""Uniform plans as vectors: a grouping, the fate of idle caches, what each dimension of one choice of methods keeps, the chunk and what stays in HBM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.inputs.choice import MethodChoice
from kvopt.problem import Problem
from kvopt.search.blocks.front import BlockSearch
from kvopt.search.blocks.values import Combinations
from kvopt.search.deployments import Deployment, deployments
from kvopt.search.evaluate import State, evaluate, log_goal, saturated
from kvopt.search.grid import DIMENSIONS, RESIDENT_STEPS
from kvopt.search.lanes import BATCH, FIELDS, Choice, make_choices
from kvopt.search.pipeline import POLISHED, space, steering
from kvopt.search.vector_problem import OBJECTIVES, Axis, VectorProblem, precisely

CHOSEN = ("grouping", "fate")
BITS = (FIELDS.index("key_bits"), FIELDS.index("value_bits"))
FLOOR = 0.5  # accuracy that a front is drawn down to
FIELD_OF = {
    "layer": "layer_keep",
    "head": "head_keep",
    "token": "token_keep",
    "key_rank": "key_rank",
    "value_rank": "value_rank",
    "prefill": "prefill_keep",
    "chunk": "chunk",
    "resident": "idle_resident",
}
OUTCOMES = (RESIDENT_STEPS - 1) * 2**POLISHED + 1  # steps of what stays in HBM: the finest that kvopt's own search takes


class UniformVector(VectorProblem):
    """The plans of one choice of methods on every grouping without pipeline stages; for workloads without shared prefixes.

    `problem` and `space`, which it is made from, are not there in a copy that was pickled.
    """

    def __init__(self, problem: Problem, methods: MethodChoice) -> None:
        scenario = problem.scenario.model_copy(update={"accuracy_floor": min(FLOOR, problem.scenario.accuracy_floor)})
        self.problem = changed(problem, scenario=scenario)
        grouped = [found for found in deployments(problem) if found.pp == 1]
        self.space = space(self.problem, make_choices(self.problem, [methods], grouped))
        groupings = list(dict.fromkeys(changed(choice.deployment, park=True) for choice in self.space.choices))
        fates = list(dict.fromkeys(choice.deployment.park for choice in self.space.choices))
        self.lane_of = np.array([[self._lane(changed(grouping, park=park)) for park in fates] for grouping in groupings])
        named = {"grouping": Axis.bins("grouping", len(groupings)), "fate": Axis.bins("fate", len(fates))}
        self.values = self._values()
        for name, values in self.values.items():
            if name == "format":
                named[name] = Axis.bins(name, len(values))
            else:
                named[name] = Axis.spaced(name, values, logarithmic=name != "resident")
        axes = [axis for axis in named.values() if len(axis.positions) > 1]
        axes.sort(key=lambda axis: axis.name not in CHOSEN)
        super().__init__(axes, np.arange(len(axes)))
        self._place = {axis.name: place for place, axis in enumerate(axes)}
        self.given = steering(self.problem, OBJECTIVES)
        self.lanes, self.grid, self.targets = self.space.lanes, self.space.grid, self.problem.targets
        self.combinations = Combinations.of(self.problem, methods)
        self._unready: BlockSearch | None = None

    def search(self) -> BlockSearch:
        """The same plans as kvopt searches them, every value of a block enumerated now."""
        if self._unready is None:
            self._unready = BlockSearch(self.problem, self.space.choices, "layer")
        return self._unready.revalued(self.combinations.values(self._unready.blocks))

    def __getstate__(self) -> dict[str, Any]:
        """Numbers alone, the reference among them: what they were made from stays behind, and the values of blocks are left to be enumerated."""
        _ = self.reference
        whole = {name: value for name, value in self.__dict__.items() if name not in ("problem", "space", "_shared_single")}
        return {**whole, "_unready": self.search().revalued(None)}

    def _lane(self, deployment: Deployment) -> int:
        return next(place for place, choice in enumerate(self.space.choices) if choice.deployment == deployment)

    def _values(self) -> dict[str, np.ndarray]:
        """The deployable values of every dimension that has several; of formats the pairs of bits, fewest first."""
        found: dict[str, np.ndarray] = {}
        for place, name in enumerate(DIMENSIONS):
            count = int(self.space.grid.counts[0, place])
            if count < 2:
                continue
            values = self.space.grid.values[0, place, :count]
            if name == "format":
                pairs = self.space.grid.formats[0, :count]
                values = pairs[np.lexsort((pairs[:, 1], pairs.sum(axis=1)))]
            found[name] = np.linspace(0, 1, OUTCOMES) if name == "resident" else values
        return found

    def settings(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lane `(points,)` and the settings `(points, fields)` of deployable plans, at the least load."""
        at = {name: index[:, place] for name, place in self._place.items()}
        nothing = np.zeros(len(index), int)
        lane = self.lane_of[at.get("grouping", nothing), at.get("fate", nothing)]
        x = np.array(self.lanes.low[lane], float)
        for name, values in self.values.items():
            if name == "format":
                x[:, BITS] = values[at[name]]
            else:
                x[:, FIELDS.index(FIELD_OF[name])] = values[at[name]]
        return lane, x

    def index_of(self, lane: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The deployable plans `(points, size)` nearest to settings `(points, fields)` on these lanes."""
        index = np.zeros((len(x), self.size), np.int32)
        grouping, fate = (np.array([np.argwhere(self.lane_of == one)[0] for one in range(self.lane_of.size)])[lane]).T
        for name, place in self._place.items():
            if name in CHOSEN:
                index[:, place] = grouping if name == "grouping" else fate
            elif name == "format":
                bits = x[:, BITS]
                index[:, place] = np.abs(self.values[name][None] - bits[:, None]).sum(axis=2).argmin(axis=1)
            else:
                value, axis = x[:, FIELDS.index(FIELD_OF[name])], self.axes[place]
                low, high = self.values[name][[0, -1]]
                share = (value - low) / (high - low) if name == "resident" else np.log(value / low) / np.log(high / low)
                index[:, place] = np.searchsorted(axis.edges, share, side="right")
        return index

    @cached_property
    def reference(self) -> np.ndarray:
        """The sessions of the best uncompressed plan, and the accuracy floor."""
        bare = space(self.problem, [Choice(choice.deployment, choice.weights, MethodChoice()) for choice in self.space.choices])
        steps = [np.linspace(0, 1, RESIDENT_STEPS) if "resident" in self.values else np.zeros(1), self.values.get("chunk", bare.lanes.low[:1, 0])]
        share, chunk = (grid.ravel() for grid in np.meshgrid(*steps))
        lane = np.repeat(np.arange(len(bare.choices)), len(share))
        x = bare.lanes.low[lane]
        x[:, FIELDS.index("idle_resident")] = np.tile(share, len(bare.choices))
        if "chunk" in self.values:
            x[:, FIELDS.index("chunk")] = np.tile(chunk, len(bare.choices))
        given, _, targets = self.shared()
        objectives, violation = precisely(self.program, (given, bare.lanes, targets), (lane, x))
        best = objectives[violation <= 0, 0].min(initial=np.inf)
        return np.array([best if np.isfinite(best) else 0.0, -np.log(float(self.targets.accuracy_floor))])

    def shared(self) -> Any:
        """What all points are given: the system, all lanes, and the targets."""
        return self.given, self.lanes, self.targets

    def points(self, index: np.ndarray) -> tuple[Any, ...]:
        """The lane and the settings of each plan."""
        return self.settings(index)

    @property
    def program(self) -> Callable[..., Any]:
        """Saturated, then evaluated."""
        return _measured

    def relaxed(self, shared: Any, v: Any) -> Any:
        """Objectives and violations of a vector on the lane of its first coordinates, values between the deployable ones."""
        given, lanes, targets = shared
        categories = {
            name: jnp.searchsorted(jnp.asarray(self.axes[place].edges), v[place], side="right")
            for name, place in self._place.items()
            if name in CHOSEN
        }
        lane = jnp.asarray(self.lane_of)[categories.get("grouping", 0), categories.get("fate", 0)]
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf)[lane], lanes)
        x = own.low.at[BATCH].set(jnp.exp(jnp.log(own.low[BATCH]) + (jnp.log(own.high[BATCH]) - jnp.log(own.low[BATCH])) * v[-1]))
        for name, values in self.values.items():
            share = v[self._place[name]]
            if name == "format":
                for column, bits in zip(BITS, values.T, strict=True):
                    x = x.at[column].set(jnp.interp(share, jnp.asarray(self.axes[self._place[name]].positions), jnp.asarray(bits)))
            elif name == "resident":
                x = x.at[FIELDS.index(FIELD_OF[name])].set(share)
            else:
                low, high = np.log(values[[0, -1]])
                x = x.at[FIELDS.index(FIELD_OF[name])].set(jnp.exp(low + (high - low) * share))
        state = evaluate(given, own, targets, x)
        return jnp.concatenate([jnp.stack([log_goal(name, state) for name in OBJECTIVES]), given.active * state.broken])


def _measured(shared: Any, lane: Any, x: Any, halvings: int) -> tuple[Any, Any]:
    given, lanes, targets = shared

    def one(place: Any, settings: Any) -> tuple[Any, Any]:
        own = jax.tree.map(lambda leaf: leaf[place], lanes)
        return saturated(given, own, targets, settings, halvings, judged)[1]

    def judged(state: State) -> tuple[Any, Any]:
        return jnp.stack([log_goal(name, state) for name in OBJECTIVES]), jnp.max(given.active * state.broken)

    return jax.vmap(one)(lane, x)
