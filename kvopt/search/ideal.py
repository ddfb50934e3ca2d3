"""An ideal compression: a cache of which one share is kept, free of loss and of overhead, in the sums that one says. No method: what one would have to do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs.choice import FIELDS_OF, MethodChoice
from kvopt.search.lanes import FIELDS, Lane
from objectives.types import Cuts, replace

Along = Literal["token", "layer", "head"]
ALONG: tuple[Along, ...] = ("token", "layer", "head")
SUMS = ("stored", "read", "moved", "prefill")
CACHE = ("stored", "read", "moved")  # everything that a cache costs, but for the work of filling it


def ideal(lanes: Lane, along: Along = "token", sums: Collection[str] = CACHE) -> Lane:
    """Stacked lanes in which the share kept along one dimension cuts exactly these sums; the lanes have no method of that dimension."""
    count = len(lanes.low)
    shares: dict[str, Any] = {name: np.full(count, float(name in sums)) for name in (*SUMS, "late")}
    cuts = Cuts(**shares)
    return replace(lanes, effects=replace(lanes.effects, **{along: cuts}))


def column(along: Along = "token") -> int:
    """The place of that share in a vector of settings."""
    return FIELDS.index(FIELDS_OF[along][0])


def free(chosen: MethodChoice) -> Along:
    """A dimension that the methods in use leave alone: kept entries count the same along any of them. Raises `BadInput` where there is none."""
    left = [along for along in ALONG if getattr(chosen, along) is None]
    if not left:
        raise BadInput("methods", "+".join(method.id for method in chosen.methods), "compress tokens, layers and heads already: leave one out")
    return left[0]
