"""Fits the default profiles of head scores to published files and writes what the catalog holds of them.

python -m kvopt.calibration.head_profiles FOLDER kvopt/catalog/head_profiles.yaml

FOLDER holds `duo_MODEL.tsv` (gates per KV head) and `retrieval_MODEL.tsv` (mean retrieval scores per query head).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from scipy.optimize import minimize_scalar

from kvopt.errors import BadInput
from kvopt.inputs.head_profiles import AT, Curve, fitted, measured
from kvopt.inputs.head_scores import Floats, fold
from kvopt.results import write_atomically
from objectives.accuracy.heads import Concentration, budgets, importance, score_held
from objectives.accuracy.proxies import KeepLoss

KV_HEADS = {"Mistral-7B-v0.2-hf": 8, "Mixtral-8x7B-v0.1": 8, "Yi-6B-200K": 4}
"""Models of the retrieval files whose query heads share KV heads (num_key_value_heads of their config.json); the others have one for each."""
MULTI_HEAD_GATES = ("Llama-2-7B-32K-Instruct",)
HEADROOM = 1.4
HEADROOM_SOURCE = (
    "Llama-2-7B-32K (MHA) holds .59 of its gates' score in 25 % of its heads, as much as the GQA models in half of theirs, and keeps .92 on LongBench there "
    "(DuoAttention paper), which a curve through the GQA models' points (k0 .33, slope 9, amplitude e^-1.9) gives at 1.4 times 25 %"
)
UNIFORM, BUDGETED = (0.837, 0.977), ((0.875, 0.891, 0.928), (0.987, 1.008, 1.027))
BUDGET_SHARES = (64 / 7950, 1024 / 7950)
"""LongBench average kept by SnapKV with one budget for all heads and by Ada-SnapKV, HeadKV-R2 and CoKV with budgets per head, at mean budgets of 64 and 1024
of 7,950 tokens: Llama-3-8B-Instruct, CoKV paper, Table 1."""
SNAPKV = {"k0": 0.0014, "slope": 0.81}  # logistic through the same model's SnapKV rows, RMSE .014
SAFEGUARD = 0.2  # of the mean budget that every head has at least (AdaKV, alpha_safeguard)
HEADS = 256  # of Llama-3-8B: 32 layers of 8


def curves(folder: Path) -> dict[str, dict[str, Floats]]:
    """Measured curves by kind (gates, retrieval over KV heads, query: retrieval over query heads) and model."""
    found: dict[str, dict[str, Floats]] = {"gates": {}, "retrieval": {}, "query": {}}
    for path in sorted(folder.glob("*.tsv")):
        prefix, _, model = path.stem.partition("_")
        if prefix not in ("duo", "retrieval"):
            continue
        values = np.clip(np.loadtxt(path, delimiter="\t", ndmin=2), 0, 1)
        if prefix == "duo":
            found["gates"][model] = measured(values)
        else:
            found["query"][model] = measured(values)
            if model in KV_HEADS:
                found["retrieval"][model] = measured(fold(values, KV_HEADS[model]))
    if not found["gates"] or not found["retrieval"]:
        raise BadInput("folder", folder, "must hold duo_MODEL.tsv and retrieval_MODEL.tsv, some of a model with grouped heads")
    return found


def budget_gains(score_weight: float, heads: Concentration) -> list[float]:
    """Retained accuracy of budgets per head over one budget for all, at the measured mean budgets, when scores weigh so much."""
    weight = SNAPKV["k0"] ** SNAPKV["slope"] / (1 + SNAPKV["k0"] ** SNAPKV["slope"])
    curve = KeepLoss(amplitude=1.0, weight=weight, slope=SNAPKV["slope"], floor=0.0, log_sd=0.0)

    def loss(keep: Any) -> Any:  # as `keep_loss`, which is flat below 1/128
        return np.log1p(weight * (keep ** -SNAPKV["slope"] - 1))

    with jax.enable_x64(True):
        score = np.diff(np.asarray(score_held(jnp.arange(HEADS + 1) / HEADS, heads)))
        shares = np.asarray(importance(jnp.asarray(score), score_weight))
        kept = [np.asarray(budgets(jnp.asarray(shares), mean, SAFEGUARD * mean, curve)) for mean in BUDGET_SHARES]
    return [float(np.exp(-np.mean(shares * loss(k))) - np.exp(-loss(mean))) for k, mean in zip(kept, BUDGET_SHARES, strict=True)]


def score_weight(heads: Concentration) -> tuple[float, list[float], list[float]]:
    """(how much scores weigh in the loss of token budgets, gains measured, gains predicted): least squares over the two budgets.

    What was kept beyond the uncompressed score is no gain that a proxy can have.
    """
    told = [min(float(np.mean(kept)), 1.0) - uniform for kept, uniform in zip(BUDGETED, UNIFORM, strict=True)]
    error = lambda weight: sum((a - b) ** 2 for a, b in zip(budget_gains(float(weight), heads), told, strict=True))  # noqa: E731
    found = float(np.round(minimize_scalar(error, bounds=(0.0, 0.99), method="bounded", options={"xatol": 1e-3}).x, 2))
    return found, told, budget_gains(found, heads)


def content(folder: Path) -> dict[str, Any]:
    """What the catalog's file holds."""
    found = curves(folder)
    grouped = {model: curve for model, curve in found["gates"].items() if model not in MULTI_HEAD_GATES}
    gates, retrieval = (fitted(np.array(list(some.values()))) for some in (grouped, found["retrieval"]))
    weight, told, predicted = score_weight(Concentration(scale=retrieval.scale, bend=retrieval.bend, headroom=1.0))
    said = [", ".join(f"{gain:+.3f}" for gain in gains) for gains in (told, predicted)]
    return {
        "gates": {
            **_profile(gates, found["gates"], HEADROOM, True),
            "source": "mit-han-lab/duo-attention@fe93c31 attn_patterns; curve of the five models with grouped heads, on which accuracy was measured",
        },
        "retrieval": {
            **_profile(retrieval, found["retrieval"], 1.0, False),
            "source": "nightdessert/Retrieval_Head@3ac171a head_score, folded onto KV heads by the mean of each group; models with grouped heads",
        },
        "query_heads": {model: fitted(curve).model_dump() for model, curve in found["query"].items()},
        "query_heads_held_at_5_percent": _at_5_percent(found["query"]),
        "score_weight": weight,
        "score_weight_source": f"CoKV paper, Table 1: gains of budgets per head over SnapKV at 64 and 1024 of 7950 tokens {said[0]}; so weighted {said[1]}",
        "headroom_source": HEADROOM_SOURCE,
    }


def _profile(curve: Curve, files: dict[str, Floats], headroom: float, reference: bool) -> dict[str, Any]:
    return {
        **curve.model_dump(),
        "headroom": headroom,
        "reference": reference,
        "held_at_5_percent": _at_5_percent(files),
        "files": {model: fitted(one).model_dump() for model, one in files.items()},
    }


def _at_5_percent(files: dict[str, Floats]) -> list[float]:
    held = [round(float(np.interp(0.05, AT, one)), 3) for one in files.values()]
    return [min(held), max(held)]


def text(data: dict[str, Any]) -> str:
    """The file."""
    head = "# Written by `python -m kvopt.calibration.head_profiles`: do not edit by hand. Meaning: kvopt/inputs/head_profiles.py.\n"
    return head + yaml.safe_dump(data, sort_keys=False, width=150, allow_unicode=True, default_flow_style=None)


def main(words: Sequence[str]) -> None:
    """Fits the files of the folder named first and writes the file named second."""
    write_atomically(Path(words[1]), text(content(Path(words[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
