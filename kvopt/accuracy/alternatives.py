"""The single methods that could be chosen for a scenario, each at the setting that keeps as many bytes of the cache as the best of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from kvopt.accuracy import curves
from kvopt.accuracy.curves import Curve
from kvopt.accuracy.joint import Joint, joint
from kvopt.accuracy.publish import FITTED
from kvopt.accuracy.reading import Reading
from kvopt.errors import BadInput
from kvopt.inputs import method as methods
from kvopt.inputs.method import Dimension, MethodSpec
from kvopt.inputs.scenario import ANY
from kvopt.plans import named_methods
from kvopt.problem import Problem
from kvopt.realise import placed
from objectives.accuracy.proxies import FULL_BITS, SMALLEST_KEEP, bits_loss, keep_loss

SHARES = 200  # settings of a share that are tried for the floor
SAME = 1.02  # bytes within two percent are the same
USUAL_SHARE = 0.5  # of bytes, where no method is predicted to hold the floor
BESIDE = 0.5  # a measurement beside: half the share


@dataclass(frozen=True)
class Option:
    """One method at one setting: what it keeps of K and V (shares, or bits), and the share of the cache's bytes that this is."""

    method: MethodSpec
    key: float
    value: float
    bytes: float


def applicable(problem: Problem) -> list[tuple[MethodSpec, Curve]]:
    """Methods with evidence for the scenario that shrink what is stored; those that its engine runs, where it names one."""
    named_engine = "engine" in problem.scenario.model_fields_set and problem.scenario.engine != ANY
    found = []
    for method in methods.load_all():
        curve = curves.find(method, problem.asked) if method.dimension in FITTED else None
        if curve is None or method.where == "needs a trained checkpoint" or method.cuts.stored < 1:
            continue
        if not named_engine or placed(problem, method) is not None:
            found.append((method, curve))
    return found


def byte_budget(problem: Problem, found: Sequence[tuple[MethodSpec, Curve]]) -> tuple[float, str]:
    """Share of the cache's bytes that the choice is made at, and why."""
    if problem.scenario.methods:
        chosen, fixed = named_methods(problem.scenario.methods)
        if len(chosen.methods) != 1:
            raise BadInput("methods", problem.scenario.methods, "next weighs single methods: name one, with what it keeps, or none")
        method = chosen.methods[0]
        if method.dimension == "prefill":
            raise BadInput("methods", problem.scenario.methods, "does not shrink the cache: nothing measured says what it keeps")
        pair = (fixed["key_bits"], fixed["value_bits"]) if method.dimension == "bits" else (min(fixed.values()),) * 2
        return _bytes(problem, method, *pair), f"as {problem.scenario.methods}"
    floor = problem.scenario.accuracy_floor
    for z, why in ((float(problem.targets.z), f"with {problem.scenario.confidence:.0%} confidence"), (0.0, "in the middle")):
        holding = [option for method, curve in found for option in _holding(settings(problem, method), curve, z, floor)]
        if holding:
            best = min(holding, key=lambda option: option.bytes)
            return best.bytes, f"the fewest at which a single method ({best.method.id}) is predicted to keep {floor:.1%} {why}"
    return USUAL_SHARE, f"half, since no single method is predicted to keep {floor:.1%}"


def settings(problem: Problem, method: MethodSpec) -> list[Option]:
    """Everything that the method can be set to, by falling bytes."""
    if method.dimension == "bits":
        pairs = [(pair.key_bits, pair.value_bits) for pair in method.formats]
    elif method.allowed and method.allowed.values:
        pairs = [(value, value) for value in method.allowed.values]
    else:
        low, high = method.allowed.bounds if method.allowed else (1.0, 1.0)
        pairs = [(float(value), float(value)) for value in np.geomspace(max(low, SMALLEST_KEEP), high, SHARES)]
    made = [Option(method, key, value, _bytes(problem, method, key, value)) for key, value in pairs if min(key, value) < _full(method)]
    return sorted(made, key=lambda option: -option.bytes)


def within(problem: Problem, method: MethodSpec, budget: float) -> Option | None:
    """The method at the setting that keeps the budget's bytes, or the most of those with fewer; none where it keeps more at every setting."""
    if method.dimension != "bits" and method.allowed and method.allowed.range and method.allowed.range[0] <= budget <= method.allowed.range[1]:
        return Option(method, budget, budget, budget)
    return next((option for option in settings(problem, method) if option.bytes <= SAME * budget), None)


def beside(problem: Problem, option: Option) -> Option | None:
    """The same method set lower: half the share, or the next lower format."""
    if option.method.dimension != "bits":
        return within(problem, option.method, BESIDE * option.bytes)
    return next((other for other in settings(problem, option.method) if other.bytes < 0.99 * option.bytes), None)


def readings(problem: Problem, options: Sequence[Option]) -> list[Reading]:
    """The options as measurements on the scenario's model and its task's benchmark."""
    made = []
    for option in options:
        model = curves.fitted(option.method.dimension, problem.asked.own)
        question = curves.speaks(model, option.method, problem.question_hidden)
        assert question is not None  # applicable methods have evidence
        made.append(replace(curves.planned(option.method, problem.asked, question), key=option.key, value=option.value))
    return made


def together(problem: Problem, dimension: Dimension, asked: Sequence[Reading]) -> Joint:
    """What is known of readings of one dimension: the middle as plans quote it, from the methods' own measurements; the spread, that of a new harness."""
    model = curves.fitted(dimension, problem.asked.own)
    usual = [curves.in_a_known_harness(model, one) for one in asked]
    return replace(joint(model, asked), eta=model.predict(usual).eta)


def _holding(tried: Sequence[Option], curve: Curve, z: float, floor: float) -> list[Option]:
    """Those settings of one method that a plan would quote the floor or more for."""
    if not tried:
        return []
    key, value = jnp.array([option.key for option in tried]), jnp.array([option.value for option in tried])
    bits = tried[0].method.dimension == "bits"
    loss = bits_loss(key, value, curve.bits_loss(), z) if bits else keep_loss(key, curve.keep_loss(), z)
    return [option for option, kept in zip(tried, np.exp(-np.asarray(loss)), strict=True) if kept >= floor]


def _bytes(problem: Problem, method: MethodSpec, key: float, value: float) -> float:
    """Share of the bytes of a 16-bit cache, quantisers' scales and layers left in 16 bits included."""
    if method.dimension != "bits":
        return (key + value) / 2
    scales = method.scale_bits_per_element.value if method.scale_bits_per_element else 0.0
    scales += method.scale_bits_per_vector.value / float(np.max(problem.architecture.key_width)) if method.scale_bits_per_vector else 0.0
    whole = min(2 * method.edge_layers_16bit / problem.model.layers, 1.0)
    return whole + (1 - whole) * ((key + value) / 2 + scales) / FULL_BITS


def _full(method: MethodSpec) -> float:
    return FULL_BITS if method.dimension == "bits" else 1.0
