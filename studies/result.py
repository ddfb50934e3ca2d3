"""What a study gives: a titled table with notes, to print or to save, and whether what it checks still holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvopt.results import table_text, writable, write_atomically


@dataclass(frozen=True)
class StudyResult:
    """One table. `ok` is false where a number that used to hold no longer does: `kvopt study run` then exits with another code than 0."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    ok: bool = True

    def print(self, console: Console | None = None) -> None:
        """The table and its notes, to the terminal unless told otherwise."""
        shown = console or Console()
        table = Table(title=self.title, title_justify="left")
        for column in self.columns:
            numeric = all(isinstance(row.get(column), int | float | None) for row in self.rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_shown(row.get(column))) for column in self.columns))
        shown.print(table)
        for note in self.notes:
            shown.print(Text(f"- {note}"))

    def save(self, folder: Path | str) -> None:
        """Writes `result.json` and `table.csv` into the folder, each whole or not at all. An unknown number is null or empty, never NaN."""
        target = writable(folder)
        rows = [{column: _plain(row.get(column)) for column in self.columns} for row in self.rows]
        data = {"title": self.title, "columns": list(self.columns), "rows": rows, "notes": list(self.notes), "ok": self.ok}
        write_atomically(target / "result.json", json.dumps(data, indent=2, allow_nan=False) + "\n")
        write_atomically(target / "table.csv", table_text(rows))


def _plain(value: Any) -> Any:
    """A value that JSON has: numbers of arrays as Python's, not finite ones as null."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
