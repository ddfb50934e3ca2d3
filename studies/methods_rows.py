"""The rows of the study `methods`: every combination's plan as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvopt.describe import evidence
from kvopt.metrics import LABELS, NEARLY, metrics
from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.best import Point
from kvopt.search.lanes import FIELDS, stacked
from kvopt.search.pipeline import given
from objectives.limits import NAMES
from objectives.types import replace
from studies import combinations
from studies.methods_search import Key, Tried

SIZES = {0: "none", 1: "single", 2: "pair", 3: "triple"}
KEEPS = {"layer": "layer_keep", "head": "head_keep", "token": "token_keep", "prefill": "prefill_keep"}


def table(problem: Problem, tried: Tried) -> list[dict[str, Any]]:
    """One row for every combination that is feasible with all its methods in use, most users first; ties go to what keeps more accuracy."""
    keys = list(tried.points)
    points = [tried.points[key] for key in keys]
    if not points:
        return []
    found = metrics(problem, [point.choice for point in points], np.array([point.x for point in points]), [point.state for point in points])
    rows = [_row(problem, tried, *one) for one in zip(keys, points, found, uppers(problem, points), strict=True)]
    rows.sort(key=lambda row: (-row["users per GPU"], -row["kept %"], row["methods"]))
    return [{"#": place, **row} for place, row in enumerate(rows, 1)]


def uppers(problem: Problem, points: Sequence[Point]) -> list[float]:
    """The upper end of the accuracy kept, at the scenario's confidence: the lower end with the spread on the favourable side."""
    mirrored = replace(problem.targets, z=-problem.targets.z)
    lanes = stacked(problem, [point.choice for point in points])
    x = np.array([point.x for point in points])
    _, states = programs.exact([given(problem, ())] * len(points), lanes, programs.repeat(mirrored, len(points)), x, load=False)
    return [float(state.lower) for state in states]


def _row(problem: Problem, tried: Tried, key: Key, point: Point, found: dict[str, Any], upper: float) -> dict[str, Any]:
    bare, gain = tried.users(frozenset()), tried.gain(key) if key else None
    return {
        "methods": said(point) or "uncompressed",
        "kind": SIZES[len(key)],
        "label": combinations.LABELS[combinations.where(key)],
        "users per GPU": found["users_per_gpu"],
        "x bare": found["users_per_gpu"] / bare if bare else None,
        "vs parts %": 100 * gain if gain is not None else None,
        "sessions per GPU-hour": found["sessions_per_gpu_hour"],
        "KV GiB": found["kv_bytes_per_session"] / 2**30,
        "users in HBM": found["concurrency"],
        "prefill s": found["prefill_s"],
        "decode ms": 1e3 * found["decode_s_per_token"],
        "switch s": found["context_switch_s"],
        "kept %": 100 * found["accuracy_retained"],
        "lower %": 100 * found["accuracy_lower"],
        "upper %": 100 * upper,
        "ceiling %": 100 * found["sessions_per_gpu_hour"] / found["prefill_ceiling_per_gpu_hour"],
        "binds": binding(point),
        "evidence": evidence(problem, point) if key else "interpolated",
        "grouping": point.choice.deployment.label,
        "ids": ",".join(method.id for method in point.choice.methods.methods),
    }


def said(point: Point) -> str:
    """The methods with what they keep, e.g. `duoattention 0.48 + xkv 1/0.31 + kivi 4b`: shares; of a rank, those of K and V; bits."""
    value = dict(zip(FIELDS, point.x, strict=True))
    words = []
    for method in point.choice.methods.methods:
        if method.dimension == "bits":
            key, other = value["key_bits"], value["value_bits"]
            words.append(f"{method.id} {key:g}b" if key == other else f"{method.id} k{key:g}v{other:g}")
        elif method.dimension == "rank":
            words.append(f"{method.id} {value['key_rank']:.2g}/{value['value_rank']:.2g}")
        else:
            words.append(f"{method.id} {value[KEEPS[method.dimension]]:.2g}")
    return " + ".join(words)


def binds(point: Point) -> list[str]:
    """The names of the constraints with next to no slack."""
    return [name for name, broken in zip(NAMES, np.asarray(point.state.broken), strict=True) if broken > -NEARLY]


def binding(point: Point) -> str:
    """The same as a person calls them; the stage that fills the time where none is left without slack."""
    return ", ".join(dict.fromkeys(LABELS[name] for name in binds(point))) or "nothing at its limit"
