"""How the catalog's model files are made: collected configs, with the sourced fields of `kvopt/catalog/model_supplements.yaml` added.

    python -m kvopt.inputs.model_supplements FOLDER_OF_CONFIGS

writes `kvopt/catalog/models` again. What neither holds stays unknown.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs.hf_config import parse_config
from kvopt.inputs.hf_fields import RENAMES, Fields, read_json
from kvopt.inputs.model import ModelSpec
from kvopt.inputs.model_names import catalog_id
from kvopt.inputs.sourced import Tag, checked

HOME = Path(catalog.__file__).parent


class Supplement(BaseModel):
    """Config fields of one model, by their Hugging Face names, and where they are from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(default=None, description="Hugging Face name, where there is no collected config to add to")
    tag: Tag = Field(description="how far the model can be trusted with these fields in it")
    source: str = Field(min_length=1)
    notes: str | None = None
    fields: dict[str, Any] = Field(min_length=1)


@cache
def supplements() -> dict[str, Supplement]:
    """Every supplement, by catalog id."""
    data = catalog.read_yaml(HOME / "model_supplements.yaml", "supplement")
    return {model: checked(Supplement, entry, f"supplement.{model}", "model_supplements.yaml") for model, entry in data.items()}


def supplemented(config: dict[str, Any], name: str) -> ModelSpec:
    """The model of a collected config, with what its supplement adds. Raises `BadInput` where the two disagree."""
    added = supplements().get(catalog_id(name))
    if added is None:
        return parse_config(config, name)
    present = Fields(config)
    for field, value in added.fields.items():
        known = RENAMES.get(field, field)
        if present.has(known) and present.data[known] != value:
            raise BadInput(f"supplement.{catalog_id(name)}.{field}", value, f"the config says {present.data[known]}")
    said = present.mapping("_source")
    merged = {**config, **added.fields, "_source": _joined(said, added)}
    if "model_type" in added.fields:
        merged.pop("_kv_layout", None)
    return parse_config(merged, name).model_copy(update={"tag": added.tag})


def from_supplement(added: Supplement) -> ModelSpec:
    """A model that has no collected config: the supplement's fields are the config."""
    said = {"source": added.source, "completeness": "subset (the fields that set sizes)", "notes": added.notes}
    return parse_config({**added.fields, "_source": said}, str(added.name)).model_copy(update={"tag": added.tag})


def collected(folder: Path) -> tuple[ModelSpec, ...]:
    """Every model of the catalog, from a folder of collected configs named `owner__model.json`."""
    configs = [supplemented(read_json(path), path.stem.replace("__", "/")) for path in sorted(folder.glob("*.json"))]
    return (*configs, *without_config())


def without_config() -> tuple[ModelSpec, ...]:
    """The models that the supplements alone describe."""
    return tuple(from_supplement(added) for added in supplements().values() if added.name)


def _joined(said: dict[str, Any], added: Supplement) -> dict[str, Any]:
    notes = "; ".join(note for note in (said.get("notes"), added.notes) if note)
    return {
        "source": f"{said.get('source', 'config.json as given')}; sizes: {added.source}",
        "completeness": f"{said.get('completeness', 'config.json as given')}; sizes supplemented",
        "notes": notes or None,
    }


def main(folder: str) -> None:
    """Writes the catalog's model files."""
    for spec in collected(Path(folder)):
        (HOME / "models" / f"{spec.id}.yaml").write_text(spec.to_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
