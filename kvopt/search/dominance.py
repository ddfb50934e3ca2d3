"""Which methods a search can leave out without losing anything: those that another one beats in every respect, for this model, task and context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kvopt.accuracy import curves
from kvopt.accuracy.curves import KEEPS
from kvopt.inputs.method import MethodSpec
from kvopt.kept_programs import Program
from kvopt.problem import Problem
from kvopt.search.batches import in_batches
from kvopt.search.lanes import take
from kvopt.search.programs import stack
from objectives.accuracy.proxies import BitsLoss, KeepLoss, bits_loss, keep_loss

TOLERANCE = 1e-9  # of log losses that count as equal
ROWS = 512  # losses per call of a compiled program


def undominated(problem: Problem, methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    """The methods that no other one of their dimension beats: as small at least, as cheap to read and to choose, combined with as much, and never losing more.

    Losses are compared at the median and at the scenario's confidence. Of two that are alike, the first stays. Precisions are compared format by format: a
    bits method stays where one of its formats is beaten by none.
    """
    bits = [method for method in methods if method.dimension == "bits"]
    known = _with_losses(problem, [method for method in methods if method.dimension != "bits"])
    kept: list[MethodSpec] = []
    for i, (method, own) in enumerate(known):
        rivals = [(j, other, theirs) for j, (other, theirs) in enumerate(known) if other.dimension == method.dimension and j != i]
        if not any(_beats(other, theirs, method, own, first=j < i) for j, other, theirs in rivals):
            kept.append(method)
    return kept + _with_a_format_to_itself(problem, bits)


def _with_a_format_to_itself(problem: Problem, methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    points = _format_points(problem, methods)

    def beaten(i: int) -> bool:
        method, own = points[i]
        rivals = [(j, theirs) for j, (other, theirs) in enumerate(points) if other.id != method.id and set(other.excludes) <= set(method.excludes)]
        return any(np.all(theirs <= own + TOLERANCE) and (j < i or np.any(theirs < own - TOLERANCE)) for j, theirs in rivals)

    standing = {points[i][0].id for i in range(len(points)) if not beaten(i)}
    return [method for method in methods if method.id in standing]


def _format_points(problem: Problem, methods: Sequence[MethodSpec]) -> list[tuple[MethodSpec, np.ndarray]]:
    """Every format of every method: bits of an element of K and of V with their scales, what else it costs, and its losses. Less is better everywhere."""
    known = [(method, curve) for method in methods if (curve := curves.find(method, problem.asked)) is not None]
    bits = [np.array([(pair.key_bits, pair.value_bits) for pair in method.formats], float) for method, _ in known]
    losses = _losses(_of_bits, [curve.bits_loss() for _, curve in known], bits, float(problem.targets.z))
    width = float(np.max(problem.architecture.key_width))
    found = []
    for (method, _), stored, lost in zip(known, bits, losses, strict=True):
        scales = float(method.scale_bits_per_element.value) if method.scale_bits_per_element else 0.0
        scales += float(method.scale_bits_per_vector.value) / width if method.scale_bits_per_vector else 0.0
        found += [(method, np.array([*(pair + scales), *_costs(method), *both])) for pair, both in zip(stored, lost, strict=True)]
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


def _with_losses(problem: Problem, methods: Sequence[MethodSpec]) -> list[tuple[MethodSpec, np.ndarray]]:
    """The methods with evidence, each with its log losses at the median and at the confidence over the usual settings."""
    known = [(method, curve) for method in methods if (curve := curves.find(method, problem.asked)) is not None]
    shares = np.repeat(np.array(KEEPS)[:, None], 2, axis=1)
    losses = _losses(_of_shares, [curve.keep_loss() for _, curve in known], [shares] * len(known), float(problem.targets.z))
    return [(method, lost.ravel()) for (method, _), lost in zip(known, losses, strict=True)]


@Program
def _of_shares(_: None, curve: KeepLoss, at: Any, z: Any) -> Any:
    return keep_loss(at[:, 0], curve, z)


@Program
def _of_bits(_: None, curve: BitsLoss, at: Any, z: Any) -> Any:
    return bits_loss(at[:, 0], at[:, 1], curve, z)


def _losses(program: Callable[..., Any], of: Sequence[KeepLoss | BitsLoss], at: Sequence[np.ndarray], z: float) -> list[np.ndarray]:
    """Log losses of curves of one kind, each at settings of its own `(settings, 2)`, at the median and at z standard deviations: `(settings, 2)` each."""
    if not of:
        return []
    counts = [len(settings) for settings in at]
    rows, settings = take(stack(of), np.repeat(np.arange(len(of)), counts)), np.concatenate(at)
    twice = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), (rows, settings))
    with jax.enable_x64(True):
        found = in_batches(program, None, (*twice, np.repeat([0.0, z], len(settings))), ROWS).reshape(2, -1)
    return np.split(found.T, np.cumsum(counts)[:-1])
