"""Numbers that say where they come from, and files of such numbers read into frozen pydantic classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kvopt.catalog import read_yaml
from kvopt.errors import BadInput

Tag = Literal["measured", "published", "derived", "assumed"]
UNSOURCED = "given without a source"
FILE_ENDINGS = (".yaml", ".yml", ".json")

V = TypeVar("V")
M = TypeVar("M", bound=BaseModel)


def _no_bool(value: object) -> object:
    """Pydantic reads `true` as 1.0, which is nobody's bandwidth."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Positive = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[float, BeforeValidator(_no_bool), Field(ge=1, allow_inf_nan=False)]


class Sourced(BaseModel, Generic[V]):
    """A value, where it is from, and how it is known. A file of one's own may give the plain value: it is then tagged assumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: V
    source: str = Field(min_length=1, description="a document, file or log with its version or address, or the reason of an assumption")
    tag: Tag = Field(description="measured on the thing, published by its maker or a survey, derived from such numbers, or assumed")

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, data: Any) -> Any:
        return data if isinstance(data, (Mapping, Sourced)) else {"value": data, "source": UNSOURCED, "tag": "assumed"}


def is_path(text: str) -> bool:
    """Whether a name can only be meant as a file: it exists, has a folder in it, or ends as a data file does."""
    return Path(text).suffix.lower() in (*FILE_ENDINGS, ".csv", ".jsonl") or "/" in text or "\\" in text or Path(text).is_file()


def read_mapping(path: Path, field: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; `BadInput` with the line where it is neither."""
    if path.suffix.lower() != ".json":
        return read_yaml(path, field)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field, path, f"cannot be read ({error.__class__.__name__})") from None
    except json.JSONDecodeError as error:
        raise BadInput(field, path, f"not JSON, line {error.lineno}") from None
    if not isinstance(data, dict):
        raise BadInput(field, path, "must be a mapping of fields")
    return data


def checked(cls: type[M], data: Mapping[str, Any], field: str, where: str) -> M:
    """`data` as a `cls`; the first thing wrong is a one-line `BadInput` that names the field, the file and, where misspelt, the nearest field."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if part != "value"]
    name, value, message = ".".join([field, *path]), first["input"], first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = sorted(_field_names(cls))
        near = get_close_matches(path[-1].lower(), known, n=1, cutoff=0.4)
        raise BadInput(name, value, f"not a field of {where}; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}")) from None
    if first["type"] == "missing":
        raise BadInput(name, "missing", f"must be given in {where}") from None
    raise BadInput(name, where if isinstance(value, Mapping) else value, f"{message[:1].lower()}{message[1:]}, in {where}") from None


def _field_names(cls: type[BaseModel]) -> set[str]:
    """All field names of a class and of the classes inside it."""
    schema = cls.model_json_schema()
    return {name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})}
