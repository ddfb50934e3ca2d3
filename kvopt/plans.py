"""A plan as people and files hold it: the methods and what they keep, the grouping, and the scheduling settings. It reads back to what it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kvopt.errors import BadInput, unknown
from kvopt.inputs import method as methods
from kvopt.inputs.choice import FIELDS_OF, MethodChoice
from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem, Weights
from kvopt.realise import settings
from kvopt.search.block_plan import BlockPlan
from kvopt.search.deployments import Deployment
from kvopt.search.lanes import FIELDS, PLAN_FIELDS, Choice, max_sequences, sequence_cap


def pruned(choice: Choice, x: np.ndarray) -> Choice:
    """The choice without the methods that the settings do not use."""
    value = dict(zip(FIELDS, x, strict=True))

    def used(method: MethodSpec) -> bool:
        if method.dimension == "bits":
            return min(value["key_bits"], value["value_bits"]) < 16
        return any(value[name] < 1 for name in FIELDS_OF[method.dimension])

    kept = [method for method in choice.methods.methods if used(method)]
    return Choice(choice.deployment, choice.weights, MethodChoice.of(*kept), choice.heads, choice.blocks)


def to_plan(problem: Problem, choice: Choice, x: np.ndarray) -> dict[str, Any]:
    """The plan of a choice and its settings, as plain values."""
    d, value = choice.deployment, dict(zip(FIELDS, (float(entry) for entry in x), strict=True))
    where = [method.where for method in choice.methods.methods]
    return {
        "engine": problem.engine.id,
        "methods": [method.id for method in choice.methods.methods],
        "where": max(where, key=("engine-ready", "research library", "needs a trained checkpoint").index, default="engine-ready"),
        "settings": settings(problem, choice.methods),
        **{name: value[name] for name in PLAN_FIELDS},
        "weights": choice.weights.format,
        "weights_retained": choice.weights.retained,
        "tp": d.tp,
        "pp": d.pp,
        "replicas": d.replicas,
        "dcp": d.dcp,
        "attention_dp": d.attention_dp,
        "expert_parallel": d.expert_parallel,
        "prefill_groups": d.prefill_groups,
        "idle": "park" if d.park else "recompute",
        "chunk": value["chunk"],
        "max_num_seqs": math.floor(min(float(max_sequences(value["batch"])), sequence_cap(problem))),
        "decodes_in_flight": value["batch"],
        "idle_resident": value["idle_resident"],
        "prefix_cache_tokens": value["prefix_cache_tokens"],
        **({"blocks": block_tables(choice.blocks)} if choice.blocks else {}),
    }


def block_tables(found: BlockPlan) -> dict[str, Any]:
    """The settings of every layer or KV head that differ from no compression, row by row of the layers that store a cache."""
    return {"per": found.width, **{name: found.tables[name].tolist() for name in found.varied}}


def from_plan(plan: dict[str, Any]) -> tuple[Choice, np.ndarray]:
    """The choice and settings of a plan. Raises `BadInput` for a field that is missing or not known."""
    try:
        deployment = Deployment(
            int(plan["tp"]),
            int(plan["pp"]),
            int(plan["replicas"]),
            int(plan["dcp"]),
            int(plan["attention_dp"]),
            bool(plan["expert_parallel"]),
            int(plan["prefill_groups"]),
            plan["idle"] == "park",
        )
        chosen = MethodChoice.of(*(methods.load(name) for name in plan["methods"]))
        values = {name: plan["decodes_in_flight" if name == "batch" else name] for name in FIELDS}
        return Choice(deployment, Weights(plan["weights"], plan["weights_retained"]), chosen), np.array([float(values[name]) for name in FIELDS])
    except KeyError as error:
        raise BadInput("plan", error.args[0], "missing from the plan") from None


def named_methods(text: str, mean_bits: tuple[float, float] | None = None) -> tuple[MethodChoice, dict[str, float]]:
    """Methods as people name them, `fp8` or `duoattention:0.5,kivi:4`: (the choice, the settings that it fixes).

    The number is the share kept, or the bits; without one, a method with one format takes it and others must be told. `mean_bits`: those of K and V where a
    file says them layer by layer.
    """
    found: list[MethodSpec] = []
    fixed: dict[str, float] = {}
    for part in (entry.strip() for entry in text.split(",") if entry.strip()):
        name, _, number = part.partition(":")
        if name.removesuffix(methods.RESELECT) not in {method.id for method in methods.load_all()}:
            raise unknown("methods", name, [method.id for method in methods.load_all()])
        method = methods.load(name)
        found.append(method)
        if method.dimension == "bits":
            fixed |= _bits(method, number) if mean_bits is None else _bits_by_layer(method, number, mean_bits)
        else:
            fixed |= dict.fromkeys(FIELDS_OF[method.dimension], _share(method, number))
    return MethodChoice.of(*found), fixed


def _bits(method: MethodSpec, number: str) -> dict[str, float]:
    known = [f"{pair.key_bits:g}" if pair.key_bits == pair.value_bits else f"k{pair.key_bits:g}v{pair.value_bits:g}" for pair in method.formats]
    if not number and len(known) > 1:
        raise BadInput("methods", method.id, f"say which bits, as {method.id}:{known[0]}; one of {', '.join(known)}")
    if number and number not in known:
        raise BadInput("methods", f"{method.id}:{number}", f"its bits are {', '.join(known)}")
    pair = method.formats[known.index(number) if number else 0]
    return {"key_bits": pair.key_bits, "value_bits": pair.value_bits}


def _bits_by_layer(method: MethodSpec, number: str, mean_bits: tuple[float, float]) -> dict[str, float]:
    if number:
        raise BadInput("methods", f"{method.id}:{number}", f"head_scores says the bits of every layer: name {method.id} alone")
    return dict(zip(("key_bits", "value_bits"), mean_bits, strict=True))


def _share(method: MethodSpec, number: str) -> float:
    low, high = method.allowed.bounds if method.allowed else (1.0, 1.0)
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not low <= share <= high:
        raise BadInput(
            "methods",
            f"{method.id}:{number}" if number else method.id,
            f"needs the share it keeps, {low:g} to {high:g}, as {method.id}:{max(low, min(0.5, high)):g}",
        )
    return share
