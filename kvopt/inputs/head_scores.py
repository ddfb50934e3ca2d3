"""How much each KV head matters, from files as others publish them, checked against the model.

Three kinds of table, one row a layer that stores a KV cache, one column a head:

    gates       DuoAttention's `full_attention_heads.tsv`: one gate per KV head, 1 a retrieval head, 0 a streaming head (arXiv 2410.10819)
    retrieval   retrieval scores per query head (arXiv 2404.15574): `head_score/MODEL.json` of Retrieval_Head, or a table of their means
    plan        a plan that kvopt has written (`write_plan`): what each KV head keeps, without scores
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvopt.errors import BadInput
from kvopt.inputs.model import ModelSpec

FIELD = "head_scores"
Kind = Literal["gates", "retrieval", "plan"]
KINDS: tuple[Kind, ...] = ("gates", "retrieval", "plan")
SLACK = 0.01  # published gates reach -0.0014 (bfloat16 under an L1 penalty), one mean retrieval score is 1.0028: clipped; beyond it, refused
PLAN_MARK = "# kvopt plan: "
SCORE_MARK = "# score "  # then the kind and, tab-separated, a layer's scores: a comment to others who read the pattern
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeadScores:
    """A table of heads: `values` is (layers that store a KV cache, KV heads), in [0, 1]."""

    source: str
    kind: Kind
    values: Floats
    keeps: str = ""  # of a plan, the field it holds: head_keep or token_keep
    exact: bool = True  # False where no file says which heads they are: a default profile
    scored_by: HeadScores | None = None  # of a plan, the scores that it was made from, where its file holds them


def stored_layers(model: ModelSpec) -> NDArray[np.bool_]:
    """Which rows of `model.architecture(per_layer=True)` are layers that store a KV cache of their own."""
    kinds = [model.kinds[name] for name, repeat in model.order for _ in range(repeat)]
    return np.array([kind.kv_heads > 0 and kind.stores for kind in kinds if kind.caches])


def heads_of(model: ModelSpec) -> tuple[int, int, int]:
    """(layers that store a KV cache, KV heads, query heads) of a model whose heads can be told apart. Raises `BadInput` for any other."""
    kinds = [model.kinds[name] for name, repeat in model.order for _ in range(repeat)]
    kinds = [kind for kind in kinds if kind.kv_heads and kind.stores]
    if any(kind.kv_heads == 1 and kind.value_width == 0 for kind in kinds):
        raise BadInput(FIELD, model.id, "its layers keep one latent for all heads (MLA): there are no KV heads to tell apart")
    shapes = {(kind.kv_heads, kind.query_heads) for kind in kinds}
    if not kinds or max(shapes)[0] == 1:
        raise BadInput(FIELD, model.id, "it has one KV head a layer (MQA): there are no KV heads to tell apart")
    if len(shapes) > 1:
        raise BadInput(FIELD, model.id, f"its layers differ in heads ({sorted(shapes)} KV and query heads): only models of one shape are read")
    return (len(kinds), *shapes.pop())


def read_table(path: Path, model: ModelSpec, kind: Kind | None = None) -> HeadScores:
    """Tab-separated numbers. Without `kind`: a plan where the file says so, retrieval scores where its name does, else gates.

    Retrieval scores may be over query heads or KV heads, gates and plans are over KV heads.
    """
    layers, kv_heads, query_heads = heads_of(model)
    text = _text(path)
    mark = next((line.removeprefix(PLAN_MARK).split()[0] for line in text.splitlines() if line.startswith(PLAN_MARK)), "")
    values = _numbers(text, path)
    kind = kind or ("plan" if mark else "retrieval" if "retrieval" in path.name.lower() else "gates")
    widths = {kv_heads, query_heads} if kind == "retrieval" else {kv_heads}
    if len(values) != layers or values.shape[1] not in widths:
        allowed = (
            f"{model.id} has {layers} layers x {' or '.join(str(width) for width in sorted(widths))} {'' if kind == 'retrieval' else 'KV '}heads"
        )
        over_queries = "; retrieval scores of query heads are read as retrieval:FILE" if values.shape == (layers, query_heads) else ""
        raise BadInput(FIELD, path.name, f"is {values.shape[0]} layers x {values.shape[1]} heads; {allowed}{over_queries}")
    _check_range(values, path, lambda row, column: f"layer {row}, head {column}")
    made = _made(path, kind, values, kv_heads, mark)
    return replace(made, scored_by=_scores_of_plan(text, path)) if kind == "plan" else made


def read_retrieval_json(path: Path, model: ModelSpec) -> HeadScores:
    """`{"layer-head": [score of each run, ...], ...}` over all query heads: the mean of each head's runs."""
    layers, kv_heads, query_heads = heads_of(model)
    try:
        data: Any = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(FIELD, path.name, f"not JSON, line {error.lineno}") from None
    if not isinstance(data, dict) or not data:
        raise BadInput(FIELD, path.name, 'must be {"layer-head": [scores], ...}')
    wanted = {f"{layer}-{head}": (layer, head) for layer in range(layers) for head in range(query_heads)}
    for name in data:
        if name not in wanted:
            raise BadInput(FIELD, f"{path.name}: {name}", f"not a head of {model.id}: layer-head from 0-0 to {layers - 1}-{query_heads - 1}")
    values = np.zeros((layers, query_heads))
    for name, place in wanted.items():
        if name not in data:
            raise BadInput(FIELD, path.name, f"head {name} is missing; {model.id} has {layers} layers x {query_heads} query heads")
        runs = data[name] if isinstance(data[name], list) else [data[name]]
        if not runs or not all(isinstance(run, (int, float)) and not isinstance(run, bool) for run in runs):
            raise BadInput(FIELD, f"{path.name}: head {name}", "must be a list of numbers, one a run")
        values[place] = np.mean(runs)
    _check_range(values, path, lambda row, column: f"head {row}-{column}")
    return _made(path, "retrieval", values, kv_heads)


def fold(values: Floats, kv_heads: int) -> Floats:
    """Scores of query heads (layers, query heads) as those of the KV heads that they share: the mean over each group, (layers, `kv_heads`).

    The mean and not the largest: shares of the score then mean the same over KV heads as over query heads, since a KV head that is dropped takes all of
    its query heads' retrieval with it.
    """
    return values.reshape(len(values), kv_heads, -1).mean(axis=2)


def plan_text(keep: Floats, field: str, about: str, scores: HeadScores | None = None) -> str:
    """A plan as DuoAttention writes its patterns: tab-separated, one row a layer. Comments to `numpy.loadtxt` say what is kept and by which scores."""

    def row(values: Floats) -> str:
        return "\t".join(repr(float(value)) for value in values)

    marks = [f"{SCORE_MARK}{scores.kind}:\t{row(values)}" for values in scores.values] if scores else []
    return "\n".join([f"{PLAN_MARK}{field} ({about})", *marks, *(row(values) for values in keep)]) + "\n"


def _scores_of_plan(text: str, path: Path) -> HeadScores | None:
    """The scores that a plan was made from; none where its file holds none."""
    lines = [line.removeprefix(SCORE_MARK) for line in text.splitlines() if line.startswith(SCORE_MARK)]
    kind = next((name for name in KINDS if lines and lines[0].startswith(f"{name}:")), None)
    return HeadScores(str(path), kind, _numbers("\n".join(line.partition("\t")[2] for line in lines), path)) if kind else None


def _made(path: Path, kind: Kind, values: Floats, kv_heads: int, mark: str = "") -> HeadScores:
    values = np.clip(values, 0.0, 1.0)
    if kind == "retrieval" and values.shape[1] != kv_heads:
        values = fold(values, kv_heads)
    if not values.any():
        raise BadInput(FIELD, path.name, "every score is 0: no head can be told from another")
    return HeadScores(str(path), kind, values, (mark or "head_keep") if kind == "plan" else "")


def _check_range(values: Floats, path: Path, place: Any) -> None:
    outside = np.argwhere(~((values >= -SLACK) & (values <= 1 + SLACK)))
    if len(outside):
        row, column = outside[0]
        raise BadInput(FIELD, f"{path.name}: {place(row, column)}: {values[row, column]:g}", "a score must be in 0 to 1")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(FIELD, path, f"cannot be read ({error.__class__.__name__})") from None


def _numbers(text: str, path: Path) -> Floats:
    rows: list[list[float]] = []
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            rows.append([float(cell) for cell in line.split()])
        except ValueError:
            raise BadInput(FIELD, f"{path.name}, line {number}", "must be numbers, one a head, separated by tabs") from None
        if len(rows[-1]) != len(rows[0]):
            raise BadInput(FIELD, f"{path.name}, line {number}", f"has {len(rows[-1])} heads; the lines before have {len(rows[0])}")
    if not rows:
        raise BadInput(FIELD, path.name, "holds no numbers")
    return np.array(rows)
