"""What a block can be set to under a choice of methods, and what each value holds, reads and loses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kvopt.inputs.choice import MethodChoice
from kvopt.kept_programs import Program
from kvopt.problem import Problem
from kvopt.search.blocks.layout import Layout
from kvopt.search.grid import STEPS, shares
from objectives.accuracy.composition import Accuracy, losses
from objectives.serving.folded import UNCOMPRESSED, Folded, contributions, fold
from objectives.types import Effects, Plan, replace

INNER = ("token_keep", "key_rank", "value_rank", "key_bits", "value_bits")  # what a block sets
PARTS = ("token", "rank", "bits", "interactions")  # of the loss that blocks decide
BATCH = 4096  # values per compiled call


@dataclass(frozen=True)
class Values:
    """The values of a block, the first uncompressed."""

    settings: np.ndarray  # (values, INNER)
    parts: np.ndarray  # (values, kinds, Folded) what one block of a kind adds
    middle: np.ndarray  # (values, PARTS) log loss if all blocks were so, at the median
    edge: np.ndarray  # the same at the confidence asked for
    bits_of: np.ndarray  # (values,) whether it is below 16 bits: not in layers that the method leaves alone
    base: np.ndarray  # (kinds, head columns, Folded) of the uncompressed model


def values(problem: Problem, chosen: MethodChoice, blocks: Layout) -> Values:
    """Every deployable value of a block under the methods."""
    return Combinations.of(problem, chosen).values(blocks)


@dataclass(frozen=True)
class Combinations:
    """The settings that a block can have, and what they are judged by: all that values are made from, as numbers."""

    axes: tuple[np.ndarray, ...]  # shares of tokens, key and value rank, falling
    formats: np.ndarray  # (formats, 2) key and value bits, 16 first
    effects: Effects
    accuracy: Accuracy
    z: Any

    @classmethod
    def of(cls, problem: Problem, chosen: MethodChoice) -> Combinations:
        """Those of a choice of methods."""
        pairs = [(entry.key_bits, entry.value_bits) for entry in chosen.bits.formats] if chosen.bits else []
        axes = (shares(chosen.token, STEPS["token"]), shares(chosen.rank, STEPS["key_rank"]), shares(chosen.rank, STEPS["value_rank"]))
        formats = np.array(list(dict.fromkeys([(16.0, 16.0), *pairs])))
        return cls(tuple(np.asarray(axis)[::-1] for axis in axes), formats, chosen.effects(), chosen.accuracy(problem.asked), problem.targets.z)

    def values(self, blocks: Layout) -> Values:
        """What each of them holds, reads and loses."""
        found = np.array([(*kept, *pair) for kept in itertools.product(*self.axes) for pair in self.formats])
        count = len(found)
        padded = np.concatenate([found, np.repeat(found[:1], -count % BATCH, axis=0)])
        single = replace(blocks.folded, layer_count=np.ones_like(blocks.folded.layer_count))
        with jax.enable_x64(True):
            made = [_tables(single, self.effects, self.accuracy, part, self.z) for part in padded.reshape(-1, BATCH, len(INNER))]
            base = _base(blocks.fine, self.effects, blocks.kinds)
        parts, middle, edge = (np.concatenate([np.asarray(one[i]) for one in made])[:count] for i in range(3))
        parts[..., Folded._fields.index("linear")] *= len(single.layer_count) / len(blocks.fine.layer_count)
        parts[..., Folded._fields.index("attention")] /= blocks.kinds.sum(axis=1)
        return Values(found, parts, middle, edge, found[:, 3:].min(axis=1) < 16, np.stack([np.asarray(leaf) for leaf in base], axis=-1))


@Program
def _base(fine: Any, effects: Effects, kinds: Array) -> Folded:
    return fold(contributions(fine, UNCOMPRESSED, effects), kinds)


@Program
def _tables(single: object, effects: Effects, accuracy: Accuracy, settings: Array, z: Array) -> tuple[Array, Array, Array]:
    def one(setting: Array) -> tuple[Array, Array, Array]:
        plan = replace(UNCOMPRESSED, **{name: setting[i] for i, name in enumerate(INNER)})
        adds = contributions(single, _arrays(plan), effects)  # type: ignore[arg-type]
        found = [losses(plan, accuracy, z=level) for level in (0.0, z)]
        middle, edge = (jnp.stack([getattr(loss, name) for name in PARTS]) for loss in found)
        return jnp.stack([leaf[:, 0] for leaf in adds], axis=-1), middle, edge

    return jax.vmap(one)(settings)


def _arrays(plan: Plan) -> Plan:
    return jax.tree.map(jnp.asarray, plan)
