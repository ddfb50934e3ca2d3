"""What `--head-scores` may name, by its ending: head scores, bits per layer, or the default profile of a kind of score."""

from __future__ import annotations

from pathlib import Path

from kvopt.errors import BadInput
from kvopt.inputs.head_profiles import default_scores
from kvopt.inputs.head_scores import FIELD, KINDS, HeadScores, read_retrieval_json, read_table
from kvopt.inputs.layer_bits import LayerBits, read_layer_bits
from kvopt.inputs.model import ModelSpec


def read_head_scores(text: str, model: ModelSpec) -> HeadScores | LayerBits:
    """What `--head-scores` names: a table or JSON of head scores, a KVTuner file, or `gates` or `retrieval` for the default profile.

    `KIND:FILE` says of a table what it holds, where its shape and name do not. Raises `BadInput`.
    """
    for kind in KINDS:
        if text == kind and kind != "plan":
            return default_scores(kind, model)
    before, _, after = text.partition(":")
    told = next((kind for kind in KINDS if after and kind == before), None)
    path = Path(after if told else text)
    ending = path.suffix.lower()
    if ending in (".yaml", ".yml"):
        return read_layer_bits(path, model)
    if ending == ".json":
        return read_retrieval_json(path, model)
    if ending in (".tsv", ".txt"):
        return read_table(path, model, told)
    raise BadInput(FIELD, text, "must be a .tsv or .json of head scores, a KVTuner .yaml, or gates or retrieval for the default profile")
