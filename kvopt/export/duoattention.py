"""DuoAttention: the pattern of retrieval and streaming heads as a table of tabs, one row a layer, one column a KV head.

`kvopt.inputs.head_scores` reads it back; `numpy.loadtxt`, as DuoAttention's own loader uses it, passes over the comments.
"""

from __future__ import annotations

import numpy as np

from kvopt.errors import BadInput
from kvopt.export import remarks
from kvopt.export.commands import comments
from kvopt.export.exported import Exported
from kvopt.export.layers import Floats
from kvopt.export.settings import Settings
from kvopt.inputs.head_files import read_head_scores
from kvopt.inputs.head_scores import HeadScores, plan_text

FIELD = "head_keep"
WHERE = "DuoAttention's repository (mit-han-lab/duo-attention, attn_patterns) has those of some models and the training of others"


def export(found: Settings) -> Exported:
    """`full_attention_heads.tsv`."""
    keep, made_from, scores, cannot = _pattern(found)
    cannot += [f"{method.id}: DuoAttention sets heads alone{remarks.elsewhere(method)}" for method in found.used if method.dimension != "head"]
    if keep is None:
        about = [*remarks.heading(found)[:1], *(f"Cannot be told: {line}" for line in cannot)]
        return Exported("duoattention", {"full_attention_heads.tsv": comments(about)}, (), tuple(cannot))
    notes = [f"{round(keep.sum())} of {keep.size} KV heads keep the whole context ({made_from})"]
    streaming = next((method.streaming_tokens.value for method in found.used if method.streaming_tokens), None)
    if streaming:
        notes.append(f"the others keep sink and recent tokens, {streaming:g} in all")
    lines = [*remarks.heading(found)[:1], *notes, *(f"Cannot be told: {line}" for line in cannot)]
    mark, _, rest = plan_text(keep, FIELD, made_from, scores).partition("\n")  # the mark stays first: readers know a plan by it
    return Exported("duoattention", {"full_attention_heads.tsv": f"{mark}\n{comments(lines)}{rest}"}, tuple(notes), tuple(cannot))


def _pattern(found: Settings) -> tuple[Floats | None, str, HeadScores | None, list[str]]:
    """(what each head keeps, what it was made from, the scores, what cannot be told)."""
    heads = found.point.get("heads") or {}
    named, blocks = heads.get("tables") or {}, found.plan.get("blocks") or {}
    if FIELD in named and heads.get("exact", True):
        return np.asarray(named[FIELD], np.float64), f"from {heads['source']}", None, []
    if FIELD in blocks and blocks["per"] == "head":
        return np.asarray(blocks[FIELD], np.float64), "per head", None, []
    if not any(method.dimension == "head" for method in found.used):
        return None, "", None, ["heads: the plan keeps all of them alike, so it has no pattern"]
    scores = _scores(found)
    share = float(found.plan[FIELD])
    if scores is None and found.problem is None and found.scenario.get("head_scores"):
        return None, "", None, [*remarks.unread(found), "heads: without the model its file of scores is not read"]
    if scores is None:
        return (
            None,
            "",
            None,
            [f"heads: the plan keeps {100 * share:.1f} % of the KV heads and no file says which; a pattern for {found.model} is needed: {WHERE}"],
        )
    kept = round(share * scores.values.size)
    keep = np.zeros(scores.values.size)
    keep[np.argsort(-scores.values, axis=None, kind="stable")[:kept]] = 1.0
    return keep.reshape(scores.values.shape), f"the best by {scores.kind}", scores, []


def _scores(found: Settings) -> HeadScores | None:
    """Scores of the model's own heads, where the scenario names a file of them that can be read."""
    name = found.scenario.get("head_scores")
    if not name or found.problem is None:
        return None
    try:
        scores = read_head_scores(name, found.problem.model)
    except BadInput:
        return None
    return scores if isinstance(scores, HeadScores) and scores.exact else None
