"""From a Hugging Face config.json to a `ModelSpec`, and from whatever a person calls a model to one.

An unknown family is refused by name and never guessed: counting a hybrid's layers at full size is several times wrong.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kvopt import catalog
from kvopt.errors import BadInput, unknown
from kvopt.inputs.hf_families import EXPERTS, FAMILIES
from kvopt.inputs.hf_fields import Fields, MissingFields, read_json
from kvopt.inputs.hf_kv_layouts import FORMULAS
from kvopt.inputs.hf_layers import Family, FeedForward, Layout, gated
from kvopt.inputs.hf_weights import Formats, formats
from kvopt.inputs.model import ModelSpec, Parameters
from kvopt.inputs.model_names import aliases, catalog_id, known_names, resolve


def read_model(text: str) -> ModelSpec:
    """The model a person means: a catalog id, a Hugging Face name, a short name, a config.json, a folder with one, or a YAML like the catalog's.

    A name the catalog knows wins over a folder of that name, unless it is written as a path. Raises `BadInput`.
    """
    path = Path(text).expanduser()
    written_as_path = text.startswith(("/", ".", "~")) or path.suffix in (".json", ".yaml", ".yml")
    if not written_as_path:
        name = resolve(text)
        if name is not None:
            return read_catalog(name)
    if path.is_dir():
        path /= "config.json"
    elif not written_as_path:
        raise unknown("model", text, known_names())
    if path.suffix in (".yaml", ".yml"):
        return from_yaml(catalog.read_yaml(path, "model"))
    return read_config(path)


def read_catalog(name: str) -> ModelSpec:
    """The model of this catalog id."""
    return from_yaml(catalog.read("models", name))


def from_yaml(data: dict[str, Any]) -> ModelSpec:
    """A model from the fields of a catalog file. Raises `BadInput` with the first field that is wrong."""
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "model"
        raise BadInput(field, first["input"] if first["loc"] else data.get("id", ""), first["msg"]) from None


def read_config(path: Path) -> ModelSpec:
    """The model that a config.json describes, named after its file or folder."""
    stem = path.stem if path.stem != "config" else path.resolve().parent.name
    return parse_config(read_json(path), stem.replace("__", "/"))


def parse_config(data: dict[str, Any], name: str) -> ModelSpec:
    """The model that the fields of a config.json describe. Raises `BadInput` with the field that stands in the way."""
    fields = Fields(data)
    family = _family(fields)
    fields.default(family.defaults)
    layout = family.layout(fields)
    try:
        parameters, widths, notes = _parameters(fields, family, layout)
    except MissingFields as error:
        if fields.layout:
            why = "parameter counts not known: the source holds KV fields alone"
        else:
            why = f"parameter counts not known: the config lacks {', '.join(error.names)}"
        parameters, widths, notes = Parameters(), FeedForward(), (why,)
    weight = formats(fields, name)
    source = fields.mapping("_source")
    experts = fields.get("num_experts", low=0) or (None if fields.layout or fields.family in EXPERTS else 1)
    return from_yaml(
        {
            "id": catalog_id(name),
            "name": name,
            "aliases": aliases(catalog_id(name)),
            "family": fields.family,
            "max_context": fields.get("max_position_embeddings"),
            "hidden": fields.get("hidden_size"),
            "intermediate": widths.width or None,
            "vocabulary": fields.get("vocab_size"),
            "query_heads": max(layout.mixers[kind].kind.query_heads for kind in layout.names) or fields.one("num_attention_heads"),
            "layers": len(layout.names),
            "kinds": {kind: layout.mixers[kind].kind.model_dump() for kind in dict.fromkeys(layout.names)},
            "order": [(kind, len(list(run))) for kind, run in groupby(layout.names)],
            "parameters": parameters.model_dump(),
            "experts": experts,
            "experts_per_token": fields.get("num_experts_per_tok", low=0) if (experts or 0) > 1 else experts,
            "weight_format": weight.weight,
            **_other_format(weight, parameters, widths),
            "tag": "derived" if fields.layout else "published",
            "completeness": str(source.get("completeness", "config.json as given")),
            "source": str(source.get("source", "config.json as given")),
            "notes": tuple(note for note in (source.get("notes"), *layout.notes, *notes, weight.note) if note),
        }
    )


def _family(fields: Fields) -> Family:
    """How to read this config: by its model_type, or by the formula that a file of KV fields names."""
    if fields.layout:
        formula = str(fields.layout.get("family_formula"))
        if formula not in FORMULAS:
            raise BadInput("family_formula", formula, f"not a formula kvopt knows: {', '.join(FORMULAS)}")
        return Family(FORMULAS[formula], gated)
    if not fields.has("model_type"):
        raise MissingFields(["model_type"], "a model")
    if fields.family not in FAMILIES:
        raise BadInput("model_type", fields.family, f"not a family kvopt knows: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[fields.family]


def _parameters(fields: Fields, family: Family, layout: Layout) -> tuple[Parameters, FeedForward, tuple[str, ...]]:
    """Parameter counts, the sums and widest of the feed-forward parts, and what was left out. Raises `MissingFields`."""
    hidden, vocabulary, *_ = fields.need("hidden_size", "vocab_size", *(("num_experts",) if fields.family in EXPERTS else ()))
    parts = [family.feed_forward(fields, index) for index in range(len(layout.names))]
    common = sum(part.common for part in parts)
    expert = sum(part.experts * part.expert for part in parts)
    routed = sum(part.per_token * part.expert for part in parts)
    mixing = sum(layout.mixers[name].weights(hidden) for name in layout.names)
    tied = fields.flag("tie_word_embeddings", family.tied)
    positions = fields.one("max_position_embeddings") * hidden if family.positions else 0
    per_layer = len(layout.names) * fields.count("hidden_size_per_layer_input") * fields.count("vocab_size_per_layer_input")
    embedding = vocabulary * hidden * (1 if tied else 2) + positions + per_layer
    parameters = Parameters(
        total=mixing + common + expert + embedding,
        embedding=embedding,
        head=vocabulary * hidden,
        expert=expert,
        active=mixing + common + routed,
    )
    widest = FeedForward(common, expert, width=max(part.width for part in parts))
    drafts = fields.count("num_nextn_predict_layers") or fields.count("mtp_num_hidden_layers") or fields.count("num_mtp_modules")
    return parameters, widest, (f"{drafts} multi-token-prediction layer{'s' if drafts > 1 else ''} left out",) if drafts else ()


def _other_format(weight: Formats, parameters: Parameters, parts: FeedForward) -> dict[str, Any]:
    """What is stored in the other format: all but the routed experts, or all but the feed-forward parts of a dense model."""
    if weight.other is None or parameters.total is None or parameters.embedding is None:
        return {}
    linear = parameters.total - parameters.embedding
    return {"other_format": weight.other, "other_parameters": linear - (parts.expert or parts.common)}
