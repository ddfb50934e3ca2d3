"""A plan in which layers or KV heads differ, as a search finds it: its settings as tables, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from objectives.accuracy.composition import Losses
from objectives.serving.folded import Folded
from objectives.types import pytree

Width = Literal["layer", "head"]


@pytree
class ByBlock:
    """A plan of layers and heads added up (`objectives.serving.folded`), in the place of the compression settings."""

    folded: Folded
    middle: Losses  # at the median
    edge: Losses  # at the confidence asked for


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """What every layer, or every KV head, keeps."""

    width: Width
    tables: Mapping[str, np.ndarray]  # by field of `objectives.types.Plan`: (layers that store a cache, KV heads), or (layers, 1)
    by_block: ByBlock

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields in which blocks differ from no compression."""
        return tuple(name for name, table in self.tables.items() if np.any(table != (16.0 if name.endswith("bits") else 1.0)))
