"""Plans by layer or KV head as people and files have them: against the best uniform plan, in a line of the report, and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvopt import wording
from kvopt.inputs.head_scores import plan_text
from kvopt.inputs.layer_bits import layer_bits_text
from kvopt.plans import block_tables
from kvopt.search.block_plan import BlockPlan
from kvopt.search.blocks.answer import BlockAnswer

NAMES = {"token_keep": "of the tokens", "key_rank": "of K's width", "value_rank": "of V's width", "key_bits": "bits of K", "value_bits": "bits of V"}
RATE = "sessions_per_gpu_hour"


def summary(found: Mapping[str, BlockAnswer | None], uniform: Mapping[str, float | None]) -> dict[str, Any]:
    """What `optimize --json` says of plans by block, deployable and research: their rate, the best uniform plan's, and the bound on plans of the methods tried.

    `blocks`: its tables, also where a uniform plan is better. `null` where no method may be set apart, or none meets the targets.
    """
    return {name: None if answer is None else _summary(answer, uniform[name]) for name, answer in found.items()}


def _summary(answer: BlockAnswer, uniform: float | None) -> dict[str, Any]:
    value, blocks = float(answer.point.state.values[RATE]), answer.point.choice.blocks
    return {
        "methods": [method.id for method in answer.point.choice.methods.methods],
        "variables": answer.variables,
        RATE: value,
        "accuracy_retained": float(answer.point.state.retained),
        "relaxed_" + RATE: answer.relaxed,
        "uniform_" + RATE: uniform,
        "bound": {RATE: answer.bound, "gap_percent": 100 * (answer.bound / value - 1)},
        "methods_tried": [[method.id for method in chosen.methods] for chosen in answer.methods],
        "blocks": block_tables(blocks) if blocks else None,
    }


def lines(per: Mapping[str, Any], width: str) -> list[str]:
    """The same for a person."""
    said = []
    for name, one in per.items():
        if one is None:
            why = (
                "the engine sets nothing apart that may be compressed"
                if name == "deployable"
                else "no method that can be set apart meets the targets"
            )
            said.append(f"Per {width}, {name}: none ({why}).")
            continue
        against = (
            "" if one["uniform_" + RATE] is None else f", {wording.times(one[RATE], one['uniform_' + RATE])} the best plan with one setting for all"
        )
        gap = f"no plan of these methods and this width serves over {one['bound']['gap_percent']:.2g} % more"
        said.append(
            f"Per {width}, {name}: {' + '.join(one['methods'])}, {one[RATE]:.4g} sessions per GPU-hour with {one['variables']:,} settings{against}; {gap}."
        )
    return said


def described(blocks: Mapping[str, Any]) -> str:
    """What the blocks of a plan keep, from its JSON: least, mean and most of every setting."""
    parts = []
    for name, table in blocks.items():
        if name == "per":
            continue
        values = np.asarray(table, float)
        say = (lambda value: f"{value:.3g}") if name.endswith("bits") else wording.percent
        parts.append(f"{say(values.min())} to {say(values.max())} {NAMES[name]}, {say(values.mean())} in the mean")
    return f"Each {'KV head' if blocks['per'] == 'head' else 'layer'} apart: {'; '.join(parts)}."


def files(blocks: BlockPlan | None) -> dict[str, str]:
    """The tables of a plan by file name: one row a layer, one column a KV head (or one), and precision by layer as KVTuner has it."""
    if blocks is None:
        return {}
    found = {f"{name}.tsv": plan_text(blocks.tables[name], name, f"per {blocks.width}") for name in blocks.varied}
    key, value = blocks.tables["key_bits"], blocks.tables["value_bits"]
    by_layer = all(np.all(table == table[:, :1]) for table in (key, value))
    if by_layer and {"key_bits", "value_bits"} & set(blocks.varied):
        found["kvtuner.yaml"] = layer_bits_text(key[:, 0], value[:, 0])
    return found
