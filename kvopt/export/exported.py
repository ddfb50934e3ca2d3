"""What an exporter hands back: files to save, and what a person must know beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exported:
    """A plan as one engine takes it. The first file is the main one."""

    engine: str
    files: dict[str, str]
    notes: tuple[str, ...]  # what the settings rest on, and what the engine will print
    cannot: tuple[str, ...]  # settings of the plan that this engine cannot be told; empty: the plan is run as it is

    @property
    def text(self) -> str:
        """Content of the main file."""
        return next(iter(self.files.values()))
