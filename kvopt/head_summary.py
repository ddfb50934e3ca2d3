"""What a plan of layers and heads says of itself: how much of the score it keeps, what it is worth against an even one, what memory an engine frees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kvopt import wording
from kvopt.head_plans import HeadPlan
from kvopt.inputs.head_scores import Floats, HeadScores, plan_text
from kvopt.inputs.layer_bits import LayerBits, layer_bits_text
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.lanes import FIELDS, PLAN_FIELDS
from objectives.accuracy.composition import Accuracy, Shares, losses, retained, retained_at
from objectives.accuracy.heads import equivalent_share, weighted_mean
from objectives.types import Plan, replace

WHAT = {"head_keep": "heads", "token_keep": "tokens", "key_bits": "bits"}
ALIKE = Shares(layer=1.0, head=1.0, content=1.0)


def summary(problem: Problem, point: Point) -> dict[str, Any] | None:
    """The plan by layer and head as `--json` prints it; none where all are alike.

    `tables`: what each layer that stores a cache keeps, by KV head; `exact`: whether a file says which heads. `kept`, `freed_to`: mean of what the plan
    keeps, and of what the engine's memory still holds of it (shares, or bits). `score_kept`: share of the score. `ranked_share`: share of the heads, ranked as
    usual, that holds as much. `retained`, `lower`: accuracy of the whole plan; `retained_uniform` and `lower_uniform` the same where every layer and head keeps
    the same at equal bytes, chosen without the scores; `retained_curve` where the published curve
    is read at what is kept. `fullest_rank`: share of what is kept that lies on the fullest of the `ranks` that split the heads.
    """
    heads = point.choice.heads
    if heads is None:
        return None
    value = dict(zip(FIELDS, (float(entry) for entry in point.x), strict=True))
    bare = Plan(**{name: np.float64(value[name]) for name in PLAN_FIELDS})
    even = replace(bare, **{name: np.float64(number) for name, number in heads.uniform.items()})
    accuracy = point.choice.methods.accuracy(problem.asked)
    scored = isinstance(heads.source, HeadScores) and (heads.source.kind != "plan" or heads.source.scored_by is not None)
    weights, z = point.choice.weights.retained, float(problem.targets.z)
    with jax.enable_x64(True):
        plan = _judged(replace(bare, **heads.kept), accuracy, heads.shares, weights, z)
        uniform = _judged(even, accuracy, heads.shares, weights, z) if scored or heads.field != "head_keep" else (None, None)
        curve = _judged(even, accuracy, ALIKE, weights, z)
        ranking, keep = heads.shares.ranking, heads.kept[heads.field]
        score = None if ranking is None else float(weighted_mean(keep, ranking.score))
        share = None if ranking is None else float(equivalent_share(keep, heads.shares.head, ranking))
    ranks = max(1, point.choice.deployment.tp // (point.choice.deployment.attention_dp * point.choice.deployment.dcp))
    return {
        "kind": "bits" if isinstance(heads.source, LayerBits) else heads.source.kind,
        "source": Path(heads.source.source).name,
        "exact": isinstance(heads.source, LayerBits) or heads.source.exact,
        "dimension": WHAT[heads.field],
        "layers": int(heads.stored.sum()),
        "heads": int(keep.shape[1]) if heads.field != "key_bits" else None,
        "kept": {name: float(heads.table(name).mean()) for name in heads.kept},
        "tables": {name: heads.table(name).tolist() for name in heads.kept},
        "least": {name: float(heads.table(name).min()) for name in heads.kept},
        "most": {name: float(heads.table(name).max()) for name in heads.kept},
        "freed_to": {name: float(table[heads.stored].mean()) for name, table in heads.freed.items()},
        "score_kept": score,
        "ranked_share": share,
        "retained": plan[0],
        "lower": plan[1],
        "retained_uniform": uniform[0],
        "lower_uniform": uniform[1],
        "retained_curve": curve[0],
        "ranks": ranks,
        "fullest_rank": fullest_rank(heads.table(heads.field), ranks) if heads.field != "key_bits" else 1 / ranks,
    }


def fullest_rank(table: Floats, ranks: int) -> float:
    """Share of what is kept, `(layers, heads)`, that the fullest of `ranks` holds: contiguous blocks of heads, or copies where ranks outnumber them."""
    heads = table.shape[1]
    blocks = min(ranks, heads)
    held = np.bincount(np.arange(heads) * blocks // heads, weights=table.sum(axis=0), minlength=blocks)
    copies = max(1.0, ranks / heads)
    return float(held.max() / (held.sum() * copies))


def lines(heads: Mapping[str, Any], engine: str) -> list[str]:
    """The same for a person: the plan and its accuracy, then its memory."""
    many, field = f"{heads['layers']} layers", next(iter(heads["kept"]))
    kept = heads["kept"][field]
    if heads["dimension"] == "bits":
        said = f"{heads['source']}: {kept:.2f} bits of K and {heads['kept']['value_bits']:.2f} of V in the mean of {many}"
    elif heads["dimension"] == "heads":
        count = heads["layers"] * heads["heads"]
        said = f"{heads['source']}: {round(kept * count)} of {count} KV heads keep the whole context"
    else:
        least, most, mean = (wording.percent(number) for number in (heads["least"][field], heads["most"][field], kept))
        said = f"{heads['source']}: KV heads keep {least} to {most} of the tokens, {mean} in the mean"
    if heads["score_kept"] is not None:
        said += f" and hold {wording.percent(heads['score_kept'])} of the score, usually that of the best {wording.percent(heads['ranked_share'])}"
    alike = f"; every {'layer' if heads['dimension'] == 'bits' else 'head'} alike at equal bytes: "
    against = "" if heads["retained_uniform"] is None else alike + wording.percent(heads["retained_uniform"])
    first = f"{said}. Accuracy kept {wording.percent(heads['retained'])} (lower end {wording.percent(heads['lower'])}){against}."
    freed = heads["freed_to"][field]
    if freed > kept + 1e-9:
        much = f"{freed:.2f} bits of K" if heads["dimension"] == "bits" else f"{wording.percent(freed)} of the {heads['dimension']}"
        second = f"{engine} frees memory only down to its least compressed layer and head: it holds {much}. A cache of variable length (--engine hf) frees all."
    else:
        second = f"{engine} frees all that the plan drops."
    if heads["ranks"] > 1 and heads["dimension"] != "bits":
        second += f" The fullest of {heads['ranks']} ranks holds {wording.percent(heads['fullest_rank'])} of what is kept."
    return [first, second]


def files(heads: HeadPlan | None) -> dict[str, str]:
    """The plan as `heads.tsv` or `kvtuner.yaml`, by file name: `--head-scores` reads back the same plan. None where no file said which head is which."""
    if heads is None:
        return {}
    if isinstance(heads.source, LayerBits):
        return {"kvtuner.yaml": layer_bits_text(heads.table("key_bits")[:, 0], heads.table("value_bits")[:, 0])}
    if not heads.source.exact:
        return {}
    scores = heads.source.scored_by if heads.source.kind == "plan" else heads.source
    return {"heads.tsv": plan_text(heads.table(heads.field), heads.field, f"from {Path(heads.source.source).name}", scores)}


def _judged(plan: Plan, accuracy: Accuracy, shares: Shares, weights: float, z: float) -> tuple[float, float]:
    """(accuracy kept, its lower end) of a whole plan."""
    loss = losses(plan, accuracy, shares)
    return float(retained(loss, weights)), float(retained_at(loss, losses(plan, accuracy, shares, z), weights))
