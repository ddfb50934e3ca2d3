"""The settings that can be deployed: for every choice of methods, the values that each dimension can take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem
from kvopt.search.lanes import FIELDS, Choice, chunk_sizes

DIMENSIONS = ("layer", "head", "token", "key_rank", "value_rank", "format", "prefill", "chunk", "resident", "prefix")
STEPS = {"head": 64, "token": 64, "key_rank": 16, "value_rank": 16, "prefill": 16}
"""Steps of a kept share: heads and tokens in parts of 64, ranks in parts of 16 (8 of a width of 128); layers are whole."""
RESIDENT_STEPS, PREFIX_STEPS = 41, 17  # what stays in HBM is an outcome that an engine's pool decides, not a flag: fine steps stand for any share
WIDEST = 65


@dataclass(frozen=True)
class Grid:
    """Deployable values of the methods in use: `(methods, dimensions, values)`, rising, and how many of them there are."""

    of: np.ndarray  # (choices,) which row of the others
    values: np.ndarray  # (methods, dimensions, WIDEST); of formats the index
    counts: np.ndarray  # (methods, dimensions)
    formats: np.ndarray  # (methods, WIDEST, 2) key and value bits

    def settings(self, choice: np.ndarray, index: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Settings `(points, fields)` at indices `(points, dimensions)` of the choices `(points,)`, with these decodes in flight."""
        row = self.of[choice]
        found = self.values[row[:, None], np.arange(len(DIMENSIONS)), index]
        by_name = dict(zip(DIMENSIONS, found.T, strict=True))
        bits = self.formats[row, index[:, DIMENSIONS.index("format")]]
        columns = {
            "layer_keep": by_name["layer"],
            "head_keep": by_name["head"],
            "token_keep": by_name["token"],
            "key_rank": by_name["key_rank"],
            "value_rank": by_name["value_rank"],
            "key_bits": bits[:, 0],
            "value_bits": bits[:, 1],
            "prefill_keep": by_name["prefill"],
            "batch": batch,
            "chunk": by_name["chunk"],
            "idle_resident": by_name["resident"],
            "prefix_cache_tokens": by_name["prefix"],
        }
        return np.stack([columns[name] for name in FIELDS], axis=1)

    def nearest(self, choice: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Indices `(points, dimensions)` of the deployable values nearest to settings `(points, fields)`, ratios compared by their logarithm."""
        row = self.of[choice]
        column = {name: x[:, FIELDS.index(name)] for name in FIELDS}
        names = (
            "layer_keep",
            "head_keep",
            "token_keep",
            "key_rank",
            "value_rank",
            None,
            "prefill_keep",
            "chunk",
            "idle_resident",
            "prefix_cache_tokens",
        )
        index = np.zeros((len(x), len(DIMENSIONS)), int)
        for d, name in enumerate(names):
            values = self.values[row, d]
            if name is None:
                bits = np.stack([column["key_bits"], column["value_bits"]], axis=1)
                distance = np.abs(self.formats[row] - bits[:, None, :]).sum(axis=2)
            elif name in ("idle_resident", "prefix_cache_tokens"):
                distance = np.abs(values - column[name][:, None])
            else:
                distance = np.abs(np.log(np.maximum(values, 1e-12)) - np.log(np.maximum(column[name], 1e-12))[:, None])
            distance = np.where(np.arange(WIDEST) < self.counts[row, d][:, None], distance, np.inf)
            index[:, d] = distance.argmin(axis=1)
        return index


def shares(method: MethodSpec | None, whole: int) -> np.ndarray:
    """The kept shares of a method that can be deployed, in parts of `whole`, rising to 1."""
    if method is None or method.allowed is None:
        return np.ones(1)
    if method.allowed.values:
        return np.unique([*method.allowed.values, 1.0])
    low, high = method.allowed.bounds
    parts = np.arange(1, whole + 1) / whole
    return np.unique([*parts[(parts >= low - 1e-9) & (parts <= high + 1e-9)], 1.0])


def grid(problem: Problem, chosen: list[Choice]) -> Grid:
    """The deployable values of every choice."""
    arch = problem.architecture
    layers = int(min(np.sum(arch.layer_count * arch.stores * (arch.head_count.sum(-1, keepdims=True) > 0)), WIDEST - 1))
    chunks = chunk_sizes(problem)
    resident = np.linspace(0, 1, RESIDENT_STEPS) if problem.keeps_idle_caches else np.zeros(1)
    prefix = np.linspace(0, float(problem.sessions.reuse_tokens[-1]), PREFIX_STEPS) if problem.keeps_prefixes else np.zeros(1)
    made: dict[int, tuple[int, np.ndarray, np.ndarray, np.ndarray]] = {}
    for choice in chosen:
        m = choice.methods
        if id(m) in made:
            continue
        pairs = np.array([[entry.key_bits, entry.value_bits] for entry in m.bits.formats]) if m.bits else np.array([[16.0, 16.0]])
        axes = [
            shares(m.layer, max(layers, 1)),
            shares(m.head, STEPS["head"]),
            shares(m.token, STEPS["token"]),
            shares(m.rank, STEPS["key_rank"]),
            shares(m.rank, STEPS["value_rank"]),
            np.arange(len(pairs), dtype=float),
            shares(m.prefill, STEPS["prefill"]),
            chunks,
            resident,
            prefix,
        ]
        values = np.stack([np.concatenate([axis, np.full(WIDEST - len(axis), axis[-1])]) for axis in axes])
        formats = np.concatenate([pairs, np.repeat(pairs[-1:], WIDEST - len(pairs), axis=0)])
        made[id(m)] = (len(made), values, np.array([len(axis) for axis in axes]), formats)
    of = np.array([made[id(choice.methods)][0] for choice in chosen])
    return Grid(of, *(np.stack([part[i] for part in made.values()]) for i in (1, 2, 3)))
