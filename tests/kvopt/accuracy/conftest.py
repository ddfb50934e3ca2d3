"""Readings made up for tests, and pooled models of a few of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvopt.accuracy.reading import Reading

Make = Callable[..., Reading]
USUAL: dict[str, Any] = {
    "method": "snapkv", "pool": "agnostic", "dimension": "token", "question": "hidden", "model": "llama-3.1-8b", "benchmark": "ruler-avg", "task": "ruler",
    "suite": "ruler", "average": True, "source": "lab", "context": 8192.0, "key": 0.5, "value": 0.5, "retained": None,
}  # fmt: skip


def reading(**changes: Any) -> Reading:
    """A reading; `key` alone stands for both."""
    fields = {**USUAL, **changes}
    return Reading(**{**fields, "value": changes.get("value", fields["key"])})


@pytest.fixture(scope="session")
def make() -> Make:
    return reading
