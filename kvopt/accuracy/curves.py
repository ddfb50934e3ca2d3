"""The pooled model as the curves that a plan is judged by: one per method, for a task family, a context, a model and what is known of the question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kvopt.accuracy import benchmarks, posterior, response
from kvopt.accuracy.asked import Asked
from kvopt.accuracy.levels import Part
from kvopt.accuracy.pooled import Pooled, updated
from kvopt.accuracy.reading import SCORED, Question, Reading, model_key
from kvopt.inputs import method as methods
from kvopt.inputs.evidence import Coverage
from kvopt.inputs.method import Dimension, MethodSpec
from objectives.accuracy.proxies import FULL_BITS, BitsLoss, KeepLoss

KEEPS = (0.9, 0.7, 0.5, 0.35, 0.25, 0.12, 0.06, 0.03)  # shares at which the spread is looked at
CHOSEN = (0.6, 1.5)  # -ln k of the shares that plans choose: .55 to .22
FLOOR_LOG_SD = 0.7  # of the floor: what near-lossless methods are measured to lose lies between .001 and .009 (derived)
REACHED = 0.9  # of the spread at the shares that plans choose
NEAR = 2.0  # a context of twice the longest measured is still taken as near it


@dataclass(frozen=True)
class Curve:
    """What is known of one method, as numbers."""

    eta: tuple[float, float, float]  # ln L at a quarter or 4 bits, ln slope or ln rate, ln k0: the posterior's middle
    growth: float  # what the context changes (`response.grows_with_context`)
    outlier: float  # what the model's keys change (`response.key_outlier`)
    log_sd: float  # spread of ln L where little is compressed
    log_sd_growth: float  # per unit of -ln k, or per bit below 16
    parts: Mapping[Part, float]  # share of the variance that the method, the model and noise have
    rows: int  # readings of the method on this task family
    borrowed: int  # readings of the method on others
    range: tuple[float, float] | None  # of the share, or the mean bits, measured on this task family
    longest: float  # [tokens] context measured on it

    def keep_loss(self) -> KeepLoss:
        """The curve of a method that keeps a share."""
        slope = math.exp(min(max(self.eta[1], -5), math.log(16)))
        at_reference = math.log1p(_logistic(slope * self.eta[2]) * math.expm1(-slope * math.log(response.REFERENCE_KEEP)))
        leaves = {
            "amplitude": math.exp(self.eta[0]) / at_reference,
            "weight": _logistic(slope * (self.eta[2] + self.growth)),
            "slope": slope,
            "floor": response.FLOOR,
            "log_sd": self.log_sd,
            "log_sd_growth": self.log_sd_growth,
        }
        return KeepLoss(**{name: np.float64(value) for name, value in leaves.items()})

    def bits_loss(self) -> BitsLoss:
        """The curve of a method that stores fewer bits."""
        rate = float(response.bits_rate(self.eta[1], self.outlier))
        at_full = math.exp(self.eta[0] + self.growth - rate * (FULL_BITS - response.REFERENCE_BITS))
        leaves = {
            "key_amplitude": response.KEY_SHARE * math.exp(self.outlier) * at_full,
            "value_amplitude": (1 - response.KEY_SHARE) * at_full,
            "rate": rate,
            "floor": response.FLOOR,
            "log_sd": self.log_sd,
            "log_sd_growth": self.log_sd_growth,
        }
        return BitsLoss(**{name: np.float64(value) for name, value in leaves.items()})

    def covers(self, values: np.ndarray, context: float) -> Coverage:
        """Whether settings lie inside what was measured of the method on this task. Less compression than any measured loses less: that is known."""
        if not self.rows or self.range is None:
            return "extrapolated"
        return "interpolated" if values.min(initial=math.inf) >= self.range[0] * 0.99 and context <= NEAR * self.longest else "extrapolated"


def find(method: MethodSpec, asked: Asked) -> Curve | None:
    """The curve of a method; None where nothing was measured of it that speaks for this kind of question."""
    method, asked = read_as(method, asked)
    return all_of(method.dimension, asked).get(method.id)


def read_as(method: MethodSpec, asked: Asked) -> tuple[MethodSpec, Asked]:
    """Whose readings speak for a method, and what they are asked: one that selects anew for each question is its method with every question seen."""
    if not method.reselects:
        return method, asked
    return methods.load(method.id.removesuffix(methods.RESELECT)), replace(asked, question_hidden=False)


@cache
def all_of(dimension: Dimension, asked: Asked) -> Mapping[str, Curve]:
    """The curves of all methods of a dimension with evidence, by id."""
    if dimension == "prefill":
        return {}  # no measurement of sparse prefill is at hand
    return curves(fitted(dimension, asked.own), dimension, asked)


@cache
def fitted(dimension: Dimension, own: tuple[Reading, ...] = ()) -> Pooled:
    """The catalog's model of a dimension, with a person's own readings in it."""
    return updated(posterior.load(dimension), [reading for reading in own if reading.dimension == dimension])


def curves(model: Pooled, dimension: Dimension, asked: Asked, specs: Sequence[MethodSpec] | None = None) -> dict[str, Curve]:
    """The same of any fitted model. `specs`: of these methods alone."""
    wanted = []
    for spec in methods.load_all() if specs is None else specs:
        question = speaks(model, spec, asked.question_hidden) if spec.dimension == dimension and spec.pool else None
        if question is not None:
            wanted.append((spec, planned(spec, asked, question)))
    if not wanted:
        return {}
    # The middle is what the method's own measurements say; the spread is that of a harness that nobody has seen, or of the person's own.
    middle, split = model.predict([in_a_known_harness(model, one) for _, one in wanted]), model.parts([one for _, one in wanted])
    tried = [[replace(one, key=key, value=value) for key, value in _settings(spec)] for spec, one in wanted]
    flat = [one for settings in tried for one in settings]
    found = model.predict(flat)
    spread = np.sqrt(response.log_variance(flat, found.eta, found.covariance) + (FLOOR_LOG_SD * response.floor_share(flat, found.eta)) ** 2)
    growth = response.grows_with_context(flat)
    made, start = {}, 0
    for place, ((spec, one), settings, eta) in enumerate(zip(wanted, tried, middle.eta.T, strict=True)):
        rows = slice(start, start + len(settings))
        start = rows.stop
        sd, sd_growth = _rising_line(np.array([_beyond(setting) for setting in settings]), spread[rows])
        total = sum(float(values[place]) for values in split.values())
        parts = {part: float(values[place]) / total for part, values in split.items()}
        at_middle = (float(eta[0]), float(eta[1]), float(eta[2]))
        made[spec.id] = Curve(at_middle, float(growth[rows.start]), response.key_outlier(one), sd, sd_growth, parts, *_measured(model, one))
    return made


def _settings(method: MethodSpec) -> list[tuple[float, float]]:
    """Where the spread of a method is looked at: usual shares, or its own precisions of K and V."""
    return [(pair.key_bits, pair.value_bits) for pair in method.formats] or [(share, share) for share in KEEPS]


def _beyond(one: Reading) -> float:
    """How much is compressed, as the curves' spread grows with it: -ln k, or bits below 16."""
    return FULL_BITS - (one.key + one.value) / 2 if one.dimension == "bits" else -math.log(one.key)


def planned(method: MethodSpec, asked: Asked, question: Question) -> Reading:
    """What a plan asks the evidence: the task family's own benchmark, run in the person's own harness where they have measured, else by nobody yet."""
    benchmark = benchmarks.plan_benchmark(asked.task)
    entry = benchmarks.find(benchmark)
    assert entry is not None  # the catalog's own benchmarks are in its list, a test sees to it
    one = Reading(
        method=method.id, pool=method.pool, dimension=method.dimension, question=question, model=model_key(asked.model or "unknown"),
        benchmark=benchmark.lower(), task=asked.task, suite=entry.suite, average=True, source="", context=asked.context, key=1.0, value=1.0, retained=None,
    )  # fmt: skip
    return replace(one, source=_own_source(asked.own, one))


def speaks(model: Pooled, method: MethodSpec, question_hidden: bool) -> Question | None:
    """Which readings speak for a method: those of the same kind of question; a hidden one stands in for a seen one, never the other way round."""
    seen = {reading.question for reading in model.readings if reading.method == method.id}
    if not seen:
        return None
    if method.pool not in SCORED:
        return "hidden"
    if question_hidden:
        return "hidden" if "hidden" in seen else None
    return "seen" if "seen" in seen else "hidden"


def _own_source(own: tuple[Reading, ...], wanted: Reading) -> str:
    """The person's harness, where their readings of the model speak for the method, or else for its kind; empty where they do not."""
    here = [reading for reading in own if reading.model == wanted.model]
    for speaking in ([one for one in here if one.selection == wanted.selection], [one for one in here if one.kind == wanted.kind]):
        if speaking:
            sources = [reading.source for reading in speaking]
            return max(sorted(set(sources)), key=sources.count)
    return ""


def in_a_known_harness(model: Pooled, one: Reading) -> Reading:
    """The reading as plans are judged: run by whoever measured the method most, where nobody knows who ran it."""
    if one.source in model.sources:
        return one
    return replace(one, source=_usual_source(model, one) or one.source)


def _usual_source(model: Pooled, wanted: Reading) -> str:
    """Who measured the method most, on this task family if anybody did; empty where nobody did."""
    own = model.by_selection.get(wanted.selection, [])
    here = [reading.source for reading in own if reading.task == wanted.task] or [reading.source for reading in own]
    return max(sorted(set(here)), key=here.count, default="")


def _measured(model: Pooled, wanted: Reading) -> tuple[int, int, tuple[float, float] | None, float]:
    """What was measured of the method: readings on this task family and on others, the range of the share or bits and the longest context on this one."""
    own = model.by_selection.get(wanted.selection, [])
    here = [reading for reading in own if reading.task == wanted.task]
    values = [(reading.key + reading.value) / 2 for reading in here]
    span = (min(values), max(values)) if here else None
    return len(here), len(own) - len(here), span, max((reading.context for reading in here), default=0.0)


def _rising_line(beyond: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    """The line through spreads against how much is compressed, never falling: intercept and slope.

    Where a curve has a cliff its spread has a hump, right where plans want to be: the line is as steep as it takes to reach `REACHED` of it.
    """
    if len(sd) < 3:
        return float(sd.max()), 0.0
    slope, intercept = np.polyfit(beyond, sd, 1)
    if slope <= 0 or intercept <= 0:
        return float(sd.mean()), 0.0
    middle = (beyond > CHOSEN[0]) & (beyond < CHOSEN[1])
    needed = (REACHED * sd[middle] - intercept) / beyond[middle]
    return float(intercept), float(max(slope, *needed, 0.0))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-min(max(x, -response.MOST), response.MOST)))
