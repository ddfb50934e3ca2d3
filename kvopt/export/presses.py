"""Presses of kvpress as code: the catalog's expression for a method with a plan's share put in. `compression_ratio` is the share that is REMOVED."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvopt.export.layers import places
from kvopt.export.settings import Settings
from kvopt.inputs.choice import FIELDS_OF
from kvopt.inputs.method import MethodSpec, RunsIn

UNSET = ("press", "threshold", "CIRCUIT", "SCORES")  # names in the catalog's settings that stand for what a plan does not hold
LAYERWISE = "PerLayerCompressionPress"
ALONE = ("AdaKVPress", "KVzipPress", "ObservedAttentionPress", "DecodingPress")
"""ComposedPress refuses the first two, warns of the third (kvpress/presses/composed_press.py), and the fourth works while tokens are generated."""
SCORERS = (  # what PerLayerCompressionPress takes: a ScorerPress with a share of its own
    *("CompactorPress", "CURPress", "ExpectedAttentionPress", "KeyDiffPress", "KnormPress", "LagKVPress", "LeverageScorePress", "NonCausalAttnPress"),
    *("ObservedAttentionPress", "QFilterPress", "RandomPress", "SnapKVPress", "StreamingLLMPress", "TOVAPress"),
)
NO_RATIO = ("SimLayerKVPress", "FinchPress")  # attention decides at run time what the first keeps, and the second wants a delimiter in the prompt
PATTERNS = (  # models whose heads kvpress knows by name (kvpress/presses/duo_attention_press.py)
    "togethercomputer/Llama-2-7B-32K-Instruct",
    "meta-llama/Meta-Llama-3.1-8B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/Mistral-7B-Instruct-v0.3",
)


@dataclass(frozen=True)
class Press:
    """One press as code."""

    code: str
    names: tuple[str, ...]  # classes that it uses, its own first
    masks: bool = False  # it goes last: positions that it masks are those of the cache that others leave


def entry_of(method: MethodSpec) -> RunsIn | None:
    """What the catalog says of a method in kvpress."""
    return next((entry for entry in method.runs_in if entry.version.startswith("kvpress")), None)


def written(method: MethodSpec) -> bool:
    """Whether the kvpress exporter can write a method at all: with a press, or with a quantised cache of transformers."""
    if method.dimension == "bits":
        return any(entry.version.startswith("transformers") for entry in method.runs_in)
    entry = entry_of(method)
    return entry is not None and not method.reselects and not isinstance(expression(entry), str)


def expression(entry: RunsIn) -> ast.Call | str:
    """The catalog's code of a press as a call; a line where it is none, or takes what no plan holds."""
    try:
        call = ast.parse(entry.setting.split(" (")[0], mode="eval").body
    except SyntaxError:
        return f"the catalog gives no code for it ({entry.setting})"
    call = ast.Call(call, [], []) if isinstance(call, ast.Name) else call
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return f"the catalog gives no code for it ({entry.setting})"
    missing = [node.id for node in ast.walk(call) if isinstance(node, ast.Name) and node.id in UNSET]
    return f"a share sets none of what {call.func.id} takes ({entry.setting})" if missing or call.func.id in NO_RATIO else call


def press_of(found: Settings, method: MethodSpec, entry: RunsIn) -> tuple[Press | None, str]:
    """(the press of one method, why there is none): the catalog's expression with the plan's share put in."""
    field = FIELDS_OF[method.dimension][0]
    keep = float(found.plan[field])
    call = expression(entry)
    if isinstance(call, str):
        return None, call
    table = by_layer(found, field)
    if isinstance(table, str):
        return None, table
    placed = _ratio_named(call, keep)
    inner = call.args[0] if call.args and isinstance(call.args[0], ast.Call) else call
    if class_of(call) == LAYERWISE and table is None and found.problem is None:
        return None, "the scenario can no longer be read, so the model's layers are not counted"
    if class_of(call) == LAYERWISE:
        layers = table if table is not None else [keep] * (found.problem.model.layers if found.problem else 0)
        call.args[1:] = [_list(layers)]
    elif table is not None and class_of(call) not in SCORERS:
        return None, f"{LAYERWISE} takes no {class_of(call)}, and its layers keep different shares"
    elif table is not None:
        call = ast.Call(ast.Name(LAYERWISE), [call, _list(table)], [])
    elif not placed:
        if class_of(call) == "DecodingPress":
            put(call, "target_size", max(1, round(keep * float(found.scenario["context"]))))
        else:
            put(inner, "compression_ratio", removed(keep))
    if class_of(call) == "DuoAttentionPress" and found.model not in PATTERNS:
        put(call, "on_the_fly_scoring", True)
    names = [node.func.id for node in ast.walk(call) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return Press(ast.unparse(ast.fix_missing_locations(call)), tuple(dict.fromkeys(names))), ""


def class_of(call: ast.Call) -> str:
    """The class that a call builds."""
    return ast.unparse(call.func)


def removed(keep: float) -> float:
    """The share removed, free of the rounding of 1 - keep."""
    return float(f"{1 - keep:.12g}")


def _list(keeps: Sequence[float]) -> ast.expr:
    return ast.List([ast.Constant(removed(keep)) for keep in keeps])


def put(call: Any, name: str, value: Any) -> None:
    """Sets a keyword of a call."""
    call.keywords = [*(word for word in call.keywords if word.arg != name), ast.keyword(name, ast.Constant(value))]


def _ratio_named(call: ast.Call, keep: float) -> bool:
    """Puts the share where the catalog writes `1-keep`; false where it writes it nowhere."""
    named = [word for word in call.keywords if ast.unparse(word.value).replace(" ", "") == "1-keep"]
    for word in named:
        word.value = ast.Constant(removed(keep))
    return bool(named)


def own_heads(found: Settings) -> bool:
    """Whether the plan says head by head which of them keep the context."""
    tables = found.tables
    return "head_keep" in tables


def by_layer(found: Settings, field: str) -> list[float] | str | None:
    """What each layer keeps, where the plan tells layers apart; none where all are alike; a line where heads of a layer differ."""
    tables = found.tables
    if field not in tables or field == "head_keep":
        return None
    values = np.asarray(tables[field], np.float64)
    if np.any(values != values[:, :1]):
        return "KV heads of one layer keep different shares, and a press keeps the same number of tokens in each"
    if found.problem is None:
        return "the scenario can no longer be read, so the model's layers are not numbered"
    keeps = dict(zip(places(found.problem.model), values[:, 0], strict=True))
    return [float(keeps.get(layer, 1.0)) for layer in range(found.problem.model.layers)]
