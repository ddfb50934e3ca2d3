"""At most one method per dimension, as the pytrees that the mathematics takes.

All leaves are NumPy float64 scalars and the trees of all choices have one structure, so that a search stacks choices into vmapped lanes:

    lanes = jax.tree.map(lambda *leaves: numpy.stack(leaves), *(choice.accuracy(Asked("longbench", 131072, question_hidden=True)) for choice in choices))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kvopt.accuracy import curves
from kvopt.accuracy.asked import Asked
from kvopt.accuracy.curves import Curve
from kvopt.errors import BadInput
from kvopt.inputs.evidence import Coverage, Frozen
from kvopt.inputs.method import DIMENSIONS, Dimension, MethodSpec
from objectives.accuracy.composition import Accuracy, Interactions
from objectives.accuracy.proxies import FULL_BITS, BitsLoss, KeepLoss
from objectives.types import Cuts, Effects, Plan, replace

SMALLEST_KEEP = 1 / 64
RANK_BITS = 0.5  # derived: K-only PCA x 4 bit, Qwen3-14B perplexity (SubRotQ), joint within .02 at 64, 96 and 112 of 128
EVICTION_LOW_BITS = 0.6  # published: QPruningKV, Llama-3-8B, 2 bit x eviction: scores x .44-.63, -ln .55 = .6
INTERACTION_LOG_SD = 0.9  # assumed: MiniKV loses 1.5-4.4 % where QPruningKV loses half
PAIR_LOG_SD = 0.2  # measured: ln of joint over summed losses, nine token x bits pairs losing over .5 % each; other pairs twice, more thrice (assumed)
MEASURED_PAIRS = frozenset({frozenset({"token", "bits"}), frozenset({"rank", "bits"}), frozenset({"head", "layer"})})
INTERACTIONS = Interactions(
    rank_bits=np.float64(RANK_BITS),
    eviction_low_bits=np.float64(EVICTION_LOW_BITS),
    log_sd=np.float64(INTERACTION_LOG_SD),
    composed_log_sd=np.float64(0.0),
)
FIELDS_OF: dict[Dimension, tuple[str, ...]] = {
    "layer": ("layer_keep",),
    "head": ("head_keep",),
    "token": ("token_keep",),
    "rank": ("key_rank", "value_rank"),
    "bits": ("key_bits", "value_bits"),
    "prefill": ("prefill_keep",),
}
"""Fields of a plan that a method of each dimension sets."""
NO_KEEP_LOSS = KeepLoss(
    **dict.fromkeys(("amplitude", "floor", "log_sd", "log_sd_growth"), np.float64(0)), weight=np.float64(0.5), slope=np.float64(1)
)
NO_BITS_LOSS = BitsLoss(**dict.fromkeys(("key_amplitude", "value_amplitude", "floor", "log_sd", "log_sd_growth"), np.float64(0)), rate=np.float64(1))
_ORDER: dict[Coverage, int] = {"interpolated": 0, "extrapolated": 1, "none": 2}


class MethodChoice(Frozen):
    """The methods in use, by dimension; a dimension without one stays uncompressed."""

    layer: MethodSpec | None = None
    head: MethodSpec | None = None
    token: MethodSpec | None = None
    rank: MethodSpec | None = None
    bits: MethodSpec | None = None
    prefill: MethodSpec | None = None

    @classmethod
    def of(cls, *methods: MethodSpec) -> MethodChoice:
        """The choice of these methods. Raises `BadInput` where two share a dimension or exclude each other."""
        chosen: dict[str, MethodSpec] = {}
        for method in methods:
            if method.dimension in chosen:
                raise BadInput("methods", method.id, f"{chosen[method.dimension].id} is a {method.dimension} method too; at most one per dimension")
            chosen[method.dimension] = method
        for method, other in itertools.permutations(methods, 2):
            if other.id in method.excludes or other.dimension in method.excludes:
                raise BadInput("methods", other.id, f"cannot be combined with {method.id}")
        return cls(**chosen)

    @property
    def methods(self) -> tuple[MethodSpec, ...]:
        """The methods in use, in the order of the dimensions."""
        return tuple(method for method in (getattr(self, dimension) for dimension in DIMENSIONS) if method is not None)

    def runs_on(self, engine: str) -> bool:
        """Whether the engine can run all of it today; true of no compression at all."""
        return all(method.runs_on(engine) for method in self.methods)

    def effects(self) -> Effects:
        """What the methods do with the plan's ratios; float64 scalars."""

        def number(name: str, neutral: float) -> list[float]:
            found = [getattr(method, name) for method in self.methods]
            return [entry.value for entry in found if entry is not None] or [neutral]

        return Effects(
            layer=_cuts(self.layer),
            head=_cuts(self.head),
            token=_cuts(self.token),
            rank=_cuts(self.rank),
            bits=_cuts(self.bits),
            streaming_tokens=np.float64(max(number("streaming_tokens", 0.0))),
            scale_bits_per_element=np.float64(sum(number("scale_bits_per_element", 0.0))),
            scale_bits_per_vector=np.float64(sum(number("scale_bits_per_vector", 0.0))),
            read_efficiency=np.float64(math.prod(number("read_efficiency", 1.0))),
            score_read=np.float64(sum(number("score_read", 0.0))),
            reconstruct=np.float64(any(method.reconstruct for method in self.methods)),
            extra_prefill=np.float64(sum(number("extra_prefill", 0.0))),
        )

    def bounds(self) -> tuple[Plan, Plan]:
        """The smallest and the largest plan that a search may try: 1 and 16 bits in dimensions without a method; float64 scalars."""
        low: dict[str, np.float64] = {}
        high: dict[str, np.float64] = {}
        for dimension in DIMENSIONS:
            method = getattr(self, dimension)
            for name in FIELDS_OF[dimension]:
                if dimension == "bits":
                    bits = [getattr(entry, name) for entry in method.formats] if method else [FULL_BITS]
                    low[name], high[name] = np.float64(min(bits)), np.float64(max(bits))
                else:
                    least, most = method.allowed.bounds if method and method.allowed else (1.0, 1.0)
                    low[name], high[name] = np.float64(max(least, SMALLEST_KEEP)), np.float64(most)
        return Plan(**low), Plan(**high)

    def accuracy(self, asked: Asked) -> Accuracy:
        """The accuracy proxies for one task family at one context; float64 scalars. Raises `BadInput` for a method without evidence: ask `evidence` first."""
        found = {d: _find(getattr(self, d), asked) for d in DIMENSIONS}
        parts: dict[str, Any] = {d: NO_KEEP_LOSS if curve is None else curve.keep_loss() for d, curve in found.items() if d != "bits"}
        parts["bits"] = NO_BITS_LOSS if found["bits"] is None else found["bits"].bits_loss()
        combined = composed_log_sd(frozenset(method.dimension for method in self.methods))
        return Accuracy(**parts, interactions=replace(INTERACTIONS, composed_log_sd=np.float64(combined)))

    def evidence(self, plan: Plan, asked: Asked) -> Coverage:
        """Whether the plan lies inside what was measured, the worst of its dimensions; dimensions that the plan leaves alone do not count.

        Two dimensions that nobody measured together, and any three, are extrapolated.
        """
        worst: Coverage = "interpolated"
        used = set()
        for method in self.methods:
            fields = [np.asarray(getattr(plan, name), float) for name in FIELDS_OF[method.dimension]]
            full = FULL_BITS if method.dimension == "bits" else 1.0
            values = np.ravel(sum(fields) / len(fields))
            if np.all(values == full):
                continue
            used.add(method.dimension)
            # Layers and heads are kept or not, one by one: their evidence is over the share kept. The others' is over each entry.
            tried = np.array([values.mean()]) if method.dimension in ("layer", "head") else values[values != full]
            curve = curves.find(method, asked)
            worst = max(worst, "none" if curve is None else curve.covers(tried, asked.context), key=_ORDER.__getitem__)
        if len(used) > 1 and frozenset(used) not in MEASURED_PAIRS:
            worst = max(worst, "extrapolated", key=_ORDER.__getitem__)
        return worst


def choices(methods: Iterable[MethodSpec], asked: Asked, engine: str | None = None) -> Iterator[MethodChoice]:
    """Every combination of methods that may be searched: with evidence, not excluding each other, and run by the engine where one is named.

    The first is no compression at all. Methods that need a trained checkpoint are left out: whether one exists is the user's to say.
    """
    usable = [method for method in methods if curves.find(method, asked) and method.where != "needs a trained checkpoint"]
    usable = [method for method in usable if engine is None or method.runs_on(engine)]
    for combination in itertools.product(*([None, *(method for method in usable if method.dimension == dimension)] for dimension in DIMENSIONS)):
        try:
            yield MethodChoice.of(*(method for method in combination if method is not None))
        except BadInput:
            continue


def _cuts(method: MethodSpec | None) -> Cuts:
    names = ("stored", "read", "moved", "prefill")
    cut = {name: np.float64(0.0 if method is None else getattr(method.cuts, name)) for name in names}
    return Cuts(**cut, late=np.float64(method is not None and method.full_until_prefilled))


def _find(method: MethodSpec | None, asked: Asked) -> Curve | None:
    """The curve of a method in use; None where none is. Raises `BadInput` where nothing was measured that speaks for it."""
    if method is None:
        return None
    curve = curves.find(method, asked)
    if curve is None:
        question = "hidden" if asked.question_hidden else "seen"
        raise BadInput(
            f"method {method.id}", asked.task, f"no evidence of its accuracy with the question {question}; measured ones go in by --accuracy-evidence"
        )
    return curve


def composed_log_sd(dimensions: frozenset[str]) -> float:
    """Spread of ln of the whole loss over the sum of its parts, by which dimensions are combined."""
    if len(dimensions) < 2:
        return 0.0
    if len(dimensions) > 2:
        return 3 * PAIR_LOG_SD
    return PAIR_LOG_SD if dimensions in MEASURED_PAIRS else 2 * PAIR_LOG_SD
