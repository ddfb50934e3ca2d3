"""At most one method per dimension, as the pytrees that the mathematics takes.

All leaves are NumPy float64 scalars and the trees of all choices have one structure, so that a search stacks choices into vmapped lanes:

    lanes = jax.tree.map(lambda *leaves: numpy.stack(leaves), *(choice.accuracy("longbench", 131072, question_hidden=True) for choice in choices))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs.evidence import REFERENCE_CONTEXT, BitsCurve, Coverage, Curve, Fit, Frozen, KeepCurve, Task, borrow
from kvopt.inputs.method import DIMENSIONS, Dimension, MethodSpec
from objectives.accuracy.composition import Accuracy, Interactions
from objectives.accuracy.proxies import FULL_BITS, BitsLoss, KeepLoss
from objectives.types import Cuts, Effects, Plan

SMALLEST_KEEP = 1 / 64
RANK_BITS = 0.3  # published: K-only PCA x 4 bit on Qwen3-14B, Palu x 2 bit: .15-.5
EVICTION_LOW_BITS = 0.6  # published: QPruningKV, Llama-3-8B, 2 bit x eviction: scores x .44-.63, -ln .55 = .6
INTERACTION_LOG_SD = 0.9  # assumed: MiniKV loses 1.5-4.4 % where QPruningKV loses half
KEY_OUTLIER_MODELS = {"qwen2.5-7b": 7.0, "qwen3-0.6b": 6.0}
"""Models whose keys collapse at 4 bits (effect on ln L of K): Qwen2.5-7B, GSM8K .78 -> .10 with KIVI-4 (KVTuner, arXiv 2502.04420) and perplexity
9.6 -> 235, while K8V4 keeps .995; Qwen3-0.6B, perplexity retained .28 with q4_0 (ik_llama)."""
_FIELDS: dict[Dimension, tuple[str, ...]] = {
    "layer": ("layer_keep",),
    "head": ("head_keep",),
    "token": ("token_keep",),
    "rank": ("key_rank", "value_rank"),
    "bits": ("key_bits", "value_bits"),
    "prefill": ("prefill_keep",),
}
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
            full_until_prefilled=np.float64(any(method.full_until_prefilled for method in self.methods)),
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
            for name in _FIELDS[dimension]:
                if dimension == "bits":
                    bits = [getattr(entry, name) for entry in method.formats] if method else [FULL_BITS]
                    low[name], high[name] = np.float64(min(bits)), np.float64(max(bits))
                else:
                    least, most = method.allowed.bounds if method and method.allowed else (1.0, 1.0)
                    low[name], high[name] = np.float64(max(least, SMALLEST_KEEP)), np.float64(most)
        return Plan(**low), Plan(**high)

    def accuracy(self, task: Task, context: float, question_hidden: bool, model: str | None = None) -> Accuracy:
        """The accuracy proxies for one task family at one context [tokens]; float64 scalars.

        `question_hidden`: more than one turn, or a shared prefix, so that the selection cannot see the question. `model`: catalog id, for the few
        models whose keys do not survive low bits. Raises `BadInput` for a method without evidence: ask `evidence` first.
        """
        parts: dict[str, Any] = {}
        for dimension in DIMENSIONS:
            method = getattr(self, dimension)
            found = None if method is None else _evidence(method, task, question_hidden)
            if method is not None and found is None:
                raise BadInput(
                    f"method {method.id}", task, f"no evidence of its accuracy there with the question {'hidden' if question_hidden else 'seen'}"
                )
            build = _bits_loss if dimension == "bits" else _keep_loss
            parts[dimension] = build(found, context, model)
        pairs = Interactions(rank_bits=np.float64(RANK_BITS), eviction_low_bits=np.float64(EVICTION_LOW_BITS), log_sd=np.float64(INTERACTION_LOG_SD))
        return Accuracy(**parts, interactions=pairs)

    def evidence(self, task: Task, plan: Plan, context: float, question_hidden: bool) -> Coverage:
        """Whether the plan lies inside what was measured, the worst of its dimensions; dimensions that the plan leaves alone do not count."""
        worst: Coverage = "interpolated"
        for method in self.methods:
            fields = [np.asarray(getattr(plan, name), float) for name in _FIELDS[method.dimension]]
            full = FULL_BITS if method.dimension == "bits" else 1.0
            values = np.ravel(sum(fields) / len(fields))
            if np.all(values == full):
                continue
            # Layers and heads are kept or not, one by one: their evidence is over the share kept. The others' is over each entry.
            tried = [float(values.mean())] if method.dimension in ("layer", "head") else [float(value) for value in values[values != full]]
            worst = max(worst, _coverage(method, task, tried, context, question_hidden), key=_ORDER.__getitem__)
        return worst


def choices(methods: Iterable[MethodSpec], task: Task, question_hidden: bool, engine: str | None = None) -> Iterator[MethodChoice]:
    """Every combination of methods that may be searched: with evidence, not excluding each other, and run by the engine where one is named.

    The first is no compression at all. Methods that need a trained checkpoint are left out: whether one exists is the user's to say.
    """
    usable = [method for method in methods if _evidence(method, task, question_hidden) and method.where != "needs a trained checkpoint"]
    usable = [method for method in usable if engine is None or method.runs_on(engine)]
    for combination in itertools.product(*([None, *(method for method in usable if method.dimension == dimension)] for dimension in DIMENSIONS)):
        try:
            yield MethodChoice.of(*(method for method in combination if method is not None))
        except BadInput:
            continue


def _cuts(method: MethodSpec | None) -> Cuts:
    names = ("stored", "read", "moved", "prefill")
    return Cuts(**{name: np.float64(0.0 if method is None else getattr(method.cuts, name)) for name in names})


def _evidence(method: MethodSpec, task: Task, question_hidden: bool) -> tuple[Curve, Fit] | None:
    """The curve and fit that speak for a method: measured on this task before borrowed, on this kind of question before another, most rows first."""
    wanted = ("any", "hidden" if question_hidden else "seen")
    found = [(curve, fit) for curve in method.curves if curve.applies(question_hidden) and (fit := borrow(curve, method.dimension, task)) is not None]
    return max(found, key=lambda pair: (task in pair[0].tasks, pair[0].question in wanted, pair[1].rows), default=None)


def _coverage(method: MethodSpec, task: Task, tried: list[float], context: float, question_hidden: bool) -> Coverage:
    found = _evidence(method, task, question_hidden)
    if found is None:
        return "none"
    curve, fit = found
    same_question = curve.question in ("any", "hidden" if question_hidden else "seen")
    inside = fit.keep is not None and all(
        value >= fit.keep[0] * 0.99 for value in tried
    )  # above the measured range lies no loss at all, which is known
    reached = fit.context is None or context <= 2 * fit.context[1]  # twice the longest measured is still taken as near it
    return "interpolated" if fit.rows > 0 and task in curve.tasks and same_question and inside and reached else "extrapolated"


def _amplitude(fit: Fit, context: float) -> float:
    return fit.log_amplitude + fit.context_exponent * math.log(context / REFERENCE_CONTEXT)


def _keep_loss(found: tuple[Curve, Fit] | None, context: float, model: str | None) -> KeepLoss:
    curve, fit = found or (None, None)
    amplitude, weight, slope, floor, log_sd = 0.0, 0.5, 1.0, 0.0, 0.0
    if isinstance(curve, KeepCurve) and fit is not None:
        amplitude, weight, slope, floor, log_sd = math.exp(_amplitude(fit, context)), curve.weight, curve.slope, fit.floor, fit.log_sd
    return KeepLoss(
        amplitude=np.float64(amplitude), weight=np.float64(weight), slope=np.float64(slope), floor=np.float64(floor), log_sd=np.float64(log_sd)
    )


def _bits_loss(found: tuple[Curve, Fit] | None, context: float, model: str | None) -> BitsLoss:
    curve, fit = found or (None, None)
    key, value, rate, floor, log_sd = 0.0, 0.0, 1.0, 0.0, 0.0
    if isinstance(curve, BitsCurve) and fit is not None:
        at_full = math.exp(_amplitude(fit, context) + curve.log_quantiser - FULL_BITS * curve.rate)
        outliers = max((effect for name, effect in KEY_OUTLIER_MODELS.items() if model and name in model.lower()), default=0.0)
        key, value = curve.key_share * at_full * math.exp(outliers), (1 - curve.key_share) * at_full
        rate, floor, log_sd = curve.rate, fit.floor, fit.log_sd
    return BitsLoss(
        key_amplitude=np.float64(key), value_amplitude=np.float64(value), rate=np.float64(rate), floor=np.float64(floor), log_sd=np.float64(log_sd)
    )
