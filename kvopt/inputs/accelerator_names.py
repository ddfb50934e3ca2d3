"""Names people write for accelerators in logs, papers and cloud consoles, resolved against the names and aliases of the catalog's files.

A name is read as a model (`rtx4090`), a memory size and a form factor. The model must be one that the catalog knows, and a size or a form factor that
is stated must be the card's own: an RTX 4090 of 48 GB is not the card of 24 GB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from kvopt import catalog

MAKERS = frozenset(
    ("nvidia", "amd", "intel", "apple", "google", "geforce", "tesla", "instinct", "quadro", "radeon", "gpu", "gpus", "graphics", "generation")
)
"""Words that leave open which card is meant, beside its number."""
SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[ -]?(?:gb|gib|g)\b")
FORM = re.compile(r"(sxm|oam|pcie)\d?")
MEMORY = re.compile(r"hbm\d?e?|nvl72")  # kinds of memory, and the rack: each goes with one card
TOLERANCE = 0.02  # data sheets say GB, logs GiB, and drivers leave out what they reserve


@dataclass(frozen=True)
class Written:
    """What a name says: the model without maker and separators, the memory [GB or GiB] and the form factor where stated."""

    model: str
    size: float | None = None
    form: str | None = None


@dataclass(frozen=True)
class Card:
    """What a catalog file says: its models' names, its memory in every unit that is in use, its form factor."""

    id: str
    models: frozenset[str]
    sizes: tuple[float, ...]
    form: str | None

    def is_meant(self, said: Written) -> bool:
        """Whether a name can mean this card."""
        sized = said.size is None or any(abs(said.size / size - 1) <= TOLERANCE for size in self.sizes)
        return said.model in self.models and sized and said.form in (None, self.form)


def squash(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def parse(text: str) -> Written:
    """The parts of a name. Remarks in parentheses count for the size they state, and for nothing else."""
    lower = re.sub(r"[_\s]+", " ", text.lower())
    sizes = [float(size) for size in SIZE.findall(lower)]
    words = re.split(r"[ \-]+", SIZE.sub(" ", re.sub(r"\([^)]*\)", " ", lower)))
    forms = [found[1] for word in words if (found := FORM.fullmatch(word))]
    model = "".join(squash(word) for word in words if word not in MAKERS and not FORM.fullmatch(word) and not MEMORY.fullmatch(word))
    return Written(model, sizes[-1] if sizes else None, forms[-1] if forms else None)


@cache
def cards() -> tuple[Card, ...]:
    """Every card of the catalog."""
    return tuple(_card(id_) for id_ in catalog.ids("accelerators"))


def _card(id_: str) -> Card:
    data = catalog.read("accelerators", id_)
    names = (str(data.get("name", id_)), *data.get("aliases", ()))
    stored = [data[field]["value"] for field in ("visible_bytes", "logged_bytes") if field in data]
    sizes = (data["memory_gb"]["value"], *(size / unit for size in stored for unit in (1e9, 2**30)))
    form = FORM.match(str(data.get("form_factor", "")).lower())
    return Card(id_, frozenset(parse(name).model for name in names), sizes, form[1] if form else None)


@cache
def _exact() -> dict[str, str]:
    """Ids, names and aliases as written, to the id."""
    read = {id_: catalog.read("accelerators", id_) for id_ in catalog.ids("accelerators")}
    aliases = {squash(alias): id_ for id_, data in read.items() for alias in data.get("aliases", ()) if SIZE.search(alias.lower())}
    return {**aliases, **{squash(str(data.get("name", id_))): id_ for id_, data in read.items()}, **{squash(id_): id_ for id_ in read}}


def _meant(text: str) -> tuple[Written, list[Card]]:
    """The name's parts and the cards that it can mean; a number at its end is a size where it is no part of a model's name (`a100-80`)."""
    said = parse(text)
    found = [card for card in cards() if card.is_meant(said)]
    bare = re.fullmatch(r"(.+)[ \-_](\d+)", re.sub(r"[ \-_](sxm|oam|pcie)\d?$", "", text.strip().lower()))
    if not found and bare and said.size is None:
        said = Written(parse(bare[1]).model, float(bare[2]), said.form)
        found = [card for card in cards() if card.is_meant(said)]
    return said, found


def _one(found: list[Card]) -> str | None:
    """The card, or the only SXM card among several: logs and papers that leave the form factor out mean the servers of eight."""
    narrow = found if len(found) == 1 else [card for card in found if card.form == "sxm"]
    return narrow[0].id if len(narrow) == 1 else None


def resolve(text: str) -> str | None:
    """The catalog id that a name means, or none.

    A model and its memory are enough (`NVIDIA H100 80GB`: the SXM card); a model alone is not where there are several cards of it.
    """
    exact = _exact().get(squash(" ".join(word for word in text.split() if word.lower() not in MAKERS)))
    said, found = _meant(text)
    if exact or len(found) < 2 or said.size is not None:
        return exact or _one(found)
    return None


def resolve_measured(text: str) -> str | None:
    """The same for rows of measurements, which may count the cards (`8x L40S`) and mean SXM where they leave the form factor out (`NVIDIA H100`)."""
    name = re.sub(r"^\s*\d+\s?x\s+", "", text.lower())
    return resolve(name) or _one(_meant(name)[1])
