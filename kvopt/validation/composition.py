"""Two compressions together against each alone: `retained_joint` from what each kept, measured, and the terms that some pairs need beyond the product.

Columns are those of `studies/evidence/composition.csv`. What is predicted is the joint score alone: the single ones are taken as measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from kvopt.accuracy import benchmarks, posterior
from kvopt.accuracy.reading import noise_kind
from kvopt.inputs.choice import INTERACTIONS, composed_log_sd
from kvopt.validation.accuracy import DEVIATIONS as ACCURACY_DEVIATIONS
from kvopt.validation.outcome import Outcome, Prediction
from kvopt.validation.rows import Refusal, Row
from objectives.accuracy.composition import together
from objectives.types import Plan

DIMENSIONS = ("layer", "head", "token", "rank")
WEIGHTS_LOG_SD = 0.4  # assumed, as of KV dimensions that nobody measured together: weights x KV bits
RUNS = 3.0  # noisy runs in a comparison: the joint one and each single one, all against one baseline
MOST = 1.5  # what a run can keep of its baseline


def predict(rows: Sequence[Row], confidence: float) -> list[Outcome]:
    """One outcome per row, in order. At a confidence above 0.5 the predicted value is what is kept with it."""
    return [_predicted(row, confidence) for row in rows]


def _predicted(row: Row, confidence: float) -> Outcome:
    label = f"{row.text('combo')}, {row.text('method')}"
    try:
        first, second = row.need_positive("retained_1", MOST), row.need_positive("retained_2", MOST)
        joint = row.positive("retained_joint", MOST)
        keeps = {name: row.positive(f"keep_{name}", 1.0) or 1.0 for name in DIMENSIONS}
        bits = row.number("bits", low=1, high=16) or 16.0
    except Refusal as refusal:
        return Outcome(row.line, refused=True, why=str(refusal), label=label)
    singles = -math.log(first) - math.log(second)
    plan = Plan(
        layer_keep=keeps["layer"], head_keep=keeps["head"], token_keep=keeps["token"], key_rank=keeps["rank"], value_rank=keeps["rank"],
        key_bits=bits, value_bits=bits, prefill_keep=1.0,
    )  # fmt: skip
    beyond = float(together(plan, max(0.0, -math.log(first)), INTERACTIONS)) if keeps["rank"] < 1 or keeps["token"] < 1 else 0.0
    used = frozenset(name for name in DIMENSIONS if keeps[name] < 1) | ({"bits"} if bits < 16 else frozenset())
    spread = composed_log_sd(used) if len(used) > 1 else WEIGHTS_LOG_SD

    def kept(z: float) -> float:
        loss = singles + beyond
        return math.exp(-loss * math.exp(z * spread)) if loss > 0 else math.exp(-loss)

    z = NormalDist().inv_cdf(0.95)
    value = kept(NormalDist().inv_cdf(confidence))
    around = z * math.sqrt(RUNS) * _noise(row)
    prediction = Prediction("retained_joint", joint, value, kept(z) - around, kept(-z) + around)
    return Outcome(row.line, row.text("combo"), (prediction,), label=label)


def _noise(row: Row) -> float:
    """How much a repeated run of the row's benchmark differs, in retained accuracy."""
    entry = benchmarks.find(row.text("benchmark"))
    scales = posterior.load("bits").spreads.noise
    return scales["exam"] if entry is None else scales[noise_kind(entry.task, entry.average)]


DEVIATIONS = {"retained_joint": ACCURACY_DEVIATIONS["retained"]}
"""Errors are points of retained accuracy."""
