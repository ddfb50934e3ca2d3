"""Names people use for models, resolved against the catalog's file names without opening any of them."""

from __future__ import annotations

import re
from functools import cache

from kvopt import catalog

FORMS = {"instruct", "it", "chat", "base", "hf"}
"""Parts of a name that leave the shape of a model as it is."""
OWNERS = ("meta-", "nvidia-", "c4ai-", "openai-", "google-", "mistralai-")
"""Owners that some names repeat."""

SAME_SHAPE = {
    "meta-llama-3.1-70b": ("llama-3.3-70b",),
    "deepseek-v3": ("deepseek-r1", "deepseek-r1-0528", "deepseek-v3-0324", "deepseek-v3.1"),
    "deepseek-v3.2": ("deepseek-v3.2-exp",),
    "deepseek-v2-lite": ("deepseek-coder-v2-lite",),
    "qwen2.5-7b-instruct": ("qwen2.5-coder-7b",),
    "qwen2.5-32b-instruct": ("qwen2.5-coder-32b", "qwq-32b"),
    "qwen2.5-72b-instruct": ("kimi-dev-72b",),
    "qwen3.5-27b": ("qwen3.6-27b",),
    "qwen3.5-35b-a3b": ("qwen3.6-35b-a3b",),
    "olmo-3-1125-32b": ("olmo-3-32b",),
    "llama-4-scout-17b-16e-instruct": ("llama-4-scout",),
    "llama-4-maverick-17b-128e-instruct": ("llama-4-maverick",),
    "llama-3_3-nemotron-super-49b-v1": ("nemotron-super-49b",),
}
"""Further short names, and other checkpoints with the shape and the stated context of a catalog model."""


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
    return tuple(name for name in dict.fromkeys((short, undated, *SAME_SHAPE.get(model, ()))) if name != model)


@cache
def known_names() -> tuple[str, ...]:
    """Every id and alias."""
    ids = catalog.ids("models")
    return tuple(dict.fromkeys((*ids, *(alias for model in ids for alias in aliases(model)))))


@cache
def _by_key() -> dict[str, str]:
    """Key to id, of the keys that mean one model; an id's own key comes before another's alias."""
    ids = catalog.ids("models")
    found: dict[str, str] = {}
    for names in ({model: (model,) for model in ids}, {model: aliases(model) for model in ids}):
        means: dict[str, set[str]] = {}
        for model, others in names.items():
            for name in others:
                means.setdefault(key(name), set()).add(model)
        for short, models in means.items():
            if len(models) == 1:
                found.setdefault(short, models.pop())
    return found


def resolve(text: str) -> str | None:
    """The catalog id that a name means, or none."""
    exact = catalog_id(text.strip())
    return exact if exact in catalog.ids("models") else _by_key().get(key(text))
