"""The two ways in which a question has no answer: it cannot be read, or it cannot be met."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_SHOWN = 80  # characters of a value


class BadInput(ValueError):
    """Input that cannot be read: one line that names the field, the value and what is allowed. The command line exits with 2."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = str(value)
        if len(shown) > MOST_SHOWN:  # of a path the end tells which it is
            shown = f"...{shown[3 - MOST_SHOWN :]}" if "/" in shown[-MOST_SHOWN:] else f"{shown[: MOST_SHOWN - 3]}..."
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(" ".join(f"{field}: {shown}: {allowed}".split()))


def unknown(field: str, value: str, known: Iterable[str]) -> BadInput:
    """A `BadInput` for a name that is not among `known`, with the nearest known names."""
    names = sorted(known)
    near = difflib.get_close_matches(value.lower(), names, n=3, cutoff=0.5)
    return BadInput(
        field,
        value,
        f"not known; did you mean {' or '.join(near)}?" if near else f"not known; one of {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}",
    )
