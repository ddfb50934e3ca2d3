"""What a calibration found: the accelerator to write, a table for people, and what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvopt.inputs.accelerator import AcceleratorSpec


@dataclass(frozen=True)
class Refused:
    """A row that was not used, and why."""

    row: int  # line of the file, the header is 1
    why: str


@dataclass(frozen=True)
class Calibrated:
    """One calibration."""

    kind: str  # probe, measurements, log or benchmark
    source: str
    spec: AcceleratorSpec | None  # None: nothing was measured that an accelerator file holds
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)  # more for --json
