"""How concentrated the scores of a model's heads are: what the published files show, for those who have none of their own (`catalog/head_profiles.yaml`).

The curve is `objectives.accuracy.heads.Concentration`; the file is written by `python -m kvopt.calibration.head_profiles`.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from kvopt import catalog
from kvopt.catalog import read_yaml
from kvopt.inputs.evidence import Frozen
from kvopt.inputs.head_scores import Floats, HeadScores, Kind, heads_of
from kvopt.inputs.model import ModelSpec
from kvopt.inputs.sourced import checked
from objectives.accuracy.heads import Concentration, score_held

AT = np.arange(1, 64) / 64  # shares of heads at which curves are compared
MOST_BEND = 16.0  # beyond it a curve has a corner, and slopes without use
_START = (0.0, 0.5)


class Curve(Frozen):
    """One fitted curve."""

    scale: float = Field(gt=0, le=1, description="m: about the share of the heads that matter")
    bend: float = Field(ge=1, le=MOST_BEND, description="p: how sharply the curve bends to 1")
    rmse: float = Field(ge=0, description="root mean square of F - measured, at 63 shares of heads")


class Profile(Curve):
    """The curve of one kind of score over KV heads, with each file that it rests on."""

    headroom: float = Field(ge=1, description="a plan is read at most at so many times the share of heads that it keeps")
    reference: bool = Field(description="whether it stands for the models on which head methods were measured; else a file is compared with itself")
    files: dict[str, Curve]
    held_at_5_percent: tuple[float, float] = Field(
        description="least and most of the score that the 5 % of heads with the highest hold, over the files"
    )
    source: str


class HeadProfiles(Frozen):
    """All of the catalog's file."""

    gates: Profile
    retrieval: Profile
    query_heads: dict[str, Curve] = Field(description="retrieval scores before folding, by file")
    query_heads_held_at_5_percent: tuple[float, float]
    score_weight: float = Field(ge=0, le=1, description="how much of a head's share of the loss of token budgets its score says")
    score_weight_source: str
    headroom_source: str


@cache
def load() -> HeadProfiles:
    """The catalog's profiles."""
    path = resources.files(catalog) / "head_profiles.yaml"
    return checked(HeadProfiles, read_yaml(path, "head profiles"), "head profiles", "the catalog's head profiles")


def measured(values: Floats) -> Floats:
    """Share of the score that the heads with the highest hold, at the shares `AT`: of one table of scores, any shape."""
    ranked = np.sort(values, axis=None)[::-1]
    return np.interp(AT * ranked.size, np.arange(ranked.size + 1), np.concatenate([[0.0], np.cumsum(ranked) / ranked.sum()]))


def fitted(curves: Floats) -> Curve:
    """The least-squares curve through measured ones, `(files, shares)` or `(shares,)`."""
    from scipy.optimize import least_squares  # a third of a second, which most runs need not spend

    curves = np.atleast_2d(curves)

    def error(at: Floats) -> Any:
        scale, bend = _natural(at)
        rest = 1 - scale**bend
        return (AT / (1 - rest * (1 - AT**bend)) ** (1 / bend) - curves).ravel()

    found = least_squares(error, _START, bounds=([-6.0, -6.0], [6.0, math.log(MOST_BEND - 1)]))
    scale, bend = _natural(found.x)
    return Curve(scale=round(scale, 4), bend=round(bend, 3), rmse=round(float(np.sqrt(np.mean(found.fun**2))), 4))


def concentration(scores: HeadScores) -> Concentration:
    """The curve that a plan with these scores is judged by.

    Gates: the default, since head methods were measured with gates, so that a model whose gates are more concentrated keeps more. Retrieval scores: the
    file's own, since nothing was measured with them: ranking by them gives the published curve, and no more.
    """
    profile = load().gates if scores.kind == "gates" else load().retrieval
    curve = profile if profile.reference else fitted(measured(scores.values))
    return Concentration(scale=np.float64(curve.scale), bend=np.float64(curve.bend), headroom=np.float64(profile.headroom))


def default_scores(kind: Kind, model: ModelSpec) -> HeadScores:
    """Scores as they usually are, for a model without a file: the default curve, its ranks spread evenly over layers and KV heads.

    Which head is which is not known.
    """
    layers, heads, _ = heads_of(model)
    profile = load().gates if kind == "gates" else load().retrieval
    curve = Concentration(scale=profile.scale, bend=profile.bend, headroom=profile.headroom)
    count = layers * heads
    with jax.enable_x64(True):  # neighbours differ by less than single precision tells
        ranked = np.diff(np.asarray(score_held(jnp.arange(count + 1) / count, curve)))
    rank = np.arange(count)
    values = np.zeros((layers, heads))
    values[rank % layers, (rank // layers + rank % layers) % heads] = ranked / ranked.max()
    return HeadScores(f"the default profile of {kind}", kind, values, exact=False)


def _natural(at: Floats) -> tuple[float, float]:
    return 1 / (1 + math.exp(-at[0])), 1 + math.exp(at[1])
