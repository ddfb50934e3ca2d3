"""Names people use for models, resolved against the catalog's file names without opening any of them."""

from __future__ import annotations

import re
from functools import cache

from kvopt import catalog
from kvopt.inputs.model_aliases import OPEN, OTHER_CONTEXT, SAME_SHAPE

FORMS = {"instruct", "it", "chat", "base", "hf"}
"""Parts of a name that leave the shape of a model as it is."""
OWNERS = ("meta-", "nvidia-", "c4ai-", "openai-", "google-", "mistralai-")
"""Owners that some names repeat."""
DECORATION = re.compile(
    r"(w\d+a(fp)?\d+|(nv|mx)?fp\d+|bf16|int\d|nf4|awq|gptq|autoround|auto|round|quantized(\.w\d+a\d+)?|dynamic|static|bnb|gguf|\d+bit|g?128g?"
    r"|q\d|k|m|kv|sft|thinking|preview|like|block|pertensor|mlx|marlin|tensorrt)"
)
"""Parts of a measured checkpoint's name that say how it is stored, or how it was tuned, and leave its shape as it is."""


def catalog_id(name: str) -> str:
    """The id of a model: its Hugging Face name in lower case, without owner."""
    return name.rstrip("/").rpartition("/")[2].lower()


def key(name: str) -> str:
    """What is left of a name without owner, form and separators. The dots stay: qwen2.5-7b is not qwen2-57b."""
    plain = re.sub(r"(?<=\d)_(?=\d)", ".", catalog_id(name.strip()).replace(" ", "-"))
    for owner in OWNERS:
        plain = plain.removeprefix(owner)
    return "".join(part for part in re.split(r"[-_]", plain) if part not in FORMS)


def aliases(model: str) -> tuple[str, ...]:
    """Short names of a catalog id: without owner, form, version and date, and the other checkpoints of its shape."""
    short = re.sub(r"(?<=\d)_(?=\d)", ".", model)
    for owner in OWNERS:
        short = short.removeprefix(owner)
    short = "-".join(part for part in short.split("-") if part not in FORMS)
    undated = re.sub(r"(-v[01](\.\d+)?|-bf16|-\d{4}|-\d\d-20\d\d)+$", "", short)
    derived = [name for name in (short, undated) if name not in OPEN and _claimed().get(key(name), model) == model]
    return tuple(name for name in dict.fromkeys((*derived, *SAME_SHAPE.get(model, ()))) if name != model)


@cache
def _claimed() -> dict[str, str]:
    """Keys that mean one model whatever is derived from others' names: ids, then what the tables list."""
    listed = {key(name): model for model, names in SAME_SHAPE.items() for name in names}
    return {**listed, **{key(model): model for model in catalog.ids("models")}}


@cache
def known_names() -> tuple[str, ...]:
    """Every id and alias."""
    ids = catalog.ids("models")
    return tuple(dict.fromkeys((*ids, *(alias for model in ids for alias in aliases(model)))))


@cache
def _by_key() -> dict[str, str]:
    """Key to id, of the keys that mean one model; a claimed key comes before a derived one."""
    means: dict[str, set[str]] = {}
    for model in catalog.ids("models"):
        for name in aliases(model):
            means.setdefault(key(name), set()).add(model)
    return {**{short: next(iter(models)) for short, models in means.items() if len(models) == 1}, **_claimed()}


def resolve(text: str) -> str | None:
    """The catalog id that a name means, or none."""
    exact = catalog_id(text.strip())
    return exact if exact in catalog.ids("models") else _by_key().get(key(text))


@cache
def _measured_by_key() -> dict[str, str]:
    """Key to id, with the checkpoints that share a shape alone."""
    return {**{key(undecorated(name)): model for model, names in OTHER_CONTEXT.items() for name in names}, **_by_key()}


def undecorated(text: str) -> str:
    """A name without owner, remarks in parentheses, and what says how the weights are stored or tuned."""
    name = catalog_id(re.sub(r"\([^)]*\)", " ", text).replace(":", "-").strip())
    name = re.sub(r"(?<=fp4)-v\d+$", "", name.removesuffix(".gguf"))  # `-NVFP4-v2`: the second quantisation of the same model
    return "-".join(part for part in re.split(r"[-_\s]+", name) if not DECORATION.fullmatch(part))


def resolve_measured(text: str) -> str | None:
    """The catalog id that has the shape of the model in a row of measurements, or none: quantised, dated and tuned checkpoints mean their base."""
    return resolve(text) or _measured_by_key().get(key(undecorated(text)))
