"""Which methods a search can leave out without losing anything: those that another one beats in every respect, for this model, task and context."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from kvopt.accuracy import curves
from kvopt.accuracy.curves import KEEPS
from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem
from objectives.accuracy.proxies import bits_loss, keep_loss

TOLERANCE = 1e-9  # of log losses that count as equal


def undominated(problem: Problem, methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    """The methods that no other one of their dimension beats: as small at least, as cheap to read and to choose, combined with as much, and never losing more.

    Losses are compared at the median and at the scenario's confidence. Of two that are alike, the first stays. Precisions are compared format by format: a
    bits method stays where one of its formats is beaten by none.
    """
    bits = [method for method in methods if method.dimension == "bits"]
    known = [(method, losses) for method in methods if method.dimension != "bits" and (losses := _losses(problem, method)) is not None]
    kept: list[MethodSpec] = []
    for i, (method, own) in enumerate(known):
        rivals = [(j, other, theirs) for j, (other, theirs) in enumerate(known) if other.dimension == method.dimension and j != i]
        if not any(_beats(other, theirs, method, own, first=j < i) for j, other, theirs in rivals):
            kept.append(method)
    return kept + _with_a_format_to_itself(problem, bits)


def _with_a_format_to_itself(problem: Problem, methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    points = [(method, point) for method in methods for point in _format_points(problem, method)]

    def beaten(i: int) -> bool:
        method, own = points[i]
        rivals = [(j, theirs) for j, (other, theirs) in enumerate(points) if other.id != method.id and set(other.excludes) <= set(method.excludes)]
        return any(np.all(theirs <= own + TOLERANCE) and (j < i or np.any(theirs < own - TOLERANCE)) for j, theirs in rivals)

    standing = {points[i][0].id for i in range(len(points)) if not beaten(i)}
    return [method for method in methods if method.id in standing]


def _format_points(problem: Problem, method: MethodSpec) -> list[np.ndarray]:
    """Every format of a method: bits of an element of K and of V with their scales, what else it costs, and its losses. Less is better everywhere."""
    curve = curves.find(method, problem.asked)
    if curve is None:
        return []
    leaves, costs, width = curve.bits_loss(), _costs(method), float(np.max(problem.architecture.key_width))
    scales = float(method.scale_bits_per_element.value) if method.scale_bits_per_element else 0.0
    scales += float(method.scale_bits_per_vector.value) / width if method.scale_bits_per_vector else 0.0
    found = []
    for pair in method.formats:
        losses = [float(bits_loss(pair.key_bits, pair.value_bits, leaves, z)) for z in (0.0, float(problem.targets.z))]
        found.append(np.array([pair.key_bits + scales, pair.value_bits + scales, *costs, *losses]))
    return found


def _beats(other: MethodSpec, theirs: np.ndarray, method: MethodSpec, own: np.ndarray, first: bool) -> bool:
    better, worse = _costs(other), _costs(method)
    usable = set(other.excludes) <= set(method.excludes) and _reaches(other, method)
    if not usable or np.any(better > worse + TOLERANCE) or np.any(theirs > own + TOLERANCE):
        return False
    alike = np.allclose(better, worse, atol=TOLERANCE) and np.allclose(theirs, own, atol=TOLERANCE) and _reaches(method, other)
    return first or not alike


def _costs(method: MethodSpec) -> np.ndarray:
    """What a plan pays for a method besides its losses; less is better everywhere."""

    def number(name: str, neutral: float) -> float:
        entry = getattr(method, name)
        return neutral if entry is None else float(entry.value)

    cuts = [-getattr(method.cuts, name) for name in ("stored", "read", "moved", "prefill")]
    flags = [float(method.full_until_prefilled), float(method.reconstruct), float(method.edge_layers_16bit)]
    extras = [number(name, 0.0) for name in ("score_read", "extra_prefill", "streaming_tokens")]
    return np.array([*cuts, *flags, *extras, -number("read_efficiency", 1.0)])


def _reaches(other: MethodSpec, method: MethodSpec) -> bool:
    """Whether `other` can be set to every value of `method`."""
    assert method.allowed is not None  # a validator has seen to it
    assert other.allowed is not None
    if other.allowed.range is not None:
        return other.allowed.range[0] <= method.allowed.bounds[0]
    return method.allowed.range is None and set(method.allowed.values) <= set(other.allowed.values)


def _losses(problem: Problem, method: MethodSpec) -> np.ndarray | None:
    """Log losses at the median and at the confidence over the usual settings; none without evidence."""
    curve = curves.find(method, problem.asked)
    if curve is None:
        return None
    z = float(problem.targets.z)
    return np.concatenate([np.asarray(keep_loss(jnp.asarray(KEEPS), curve.keep_loss(), level), float) for level in (0.0, z)])
