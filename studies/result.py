"""What a study gives: a titled table with notes, to print or to save, and whether what it checks still holds."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvopt.results import frame, table_text, write_files

WIDTH = 120  # columns of a table that no terminal limits


@dataclass(frozen=True)
class StudyResult:
    """One table. `ok` is false where a number that used to hold no longer does: `kvopt study run` then exits with another code than 0.

    `footnotes` names a column that is printed below the table, each text once with the number that its rows refer to; columns in `hidden` are not
    printed, and of the rows only those at the places in `shown`, where it is given.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    ok: bool = True
    footnotes: str | None = None
    hidden: tuple[str, ...] = ()
    shown: tuple[int, ...] | None = None

    def print(self, console: Console | None = None) -> None:
        """The table and its notes, to the terminal unless told otherwise."""
        shown = console or _console()
        rows = self.rows if self.shown is None else tuple(self.rows[place] for place in self.shown)
        texts = list(dict.fromkeys(row[self.footnotes] for row in rows if row.get(self.footnotes))) if self.footnotes else []
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        printed = {column: [self._cell(row, column, texts) for row in rows] for column in self.columns if column not in self.hidden}
        for column, cells in printed.items():
            numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
            widest = max(map(len, [*column.split(), *cells]))  # a number is never broken, and its header only between words
            header = "\n".join(textwrap.wrap(column, widest, break_on_hyphens=False)) if numeric else column
            table.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
        for line in zip(*printed.values(), strict=True):
            table.add_row(*map(Text, line))
        if shown.measure(table, options=shown.options.update(width=10 * WIDTH)).minimum > shown.width:
            table.padding = 0
        shown.print(table)
        for number, text in enumerate(texts, 1):
            shown.print(Text(f"[{number}] {text}"))
        for note in self.notes:
            shown.print(Text(f"- {note}"))

    def _cell(self, row: Mapping[str, Any], column: str, texts: list[str]) -> str:
        value = row.get(column)
        return _shown(f"[{texts.index(value) + 1}]" if column == self.footnotes and value else value)

    def to_json(self) -> str:
        """One JSON object: title, columns, rows, notes and `ok`. An unknown number is null, never NaN."""
        data = {"title": self.title, "columns": self.columns, "rows": self._plain_rows(), "notes": self.notes, "ok": self.ok}
        return json.dumps(data, indent=2, allow_nan=False)

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame. Raises `BadInput` where pandas is not installed."""
        return frame(self._plain_rows())

    def save(self, folder: Path | str) -> None:
        """Writes `result.json` and `table.csv` into the folder, each whole or not at all. An unknown number is null or empty, never NaN."""
        write_files(folder, {"result.json": self.to_json() + "\n", "table.csv": table_text(self._plain_rows())})

    def _plain_rows(self) -> list[dict[str, Any]]:
        return [{column: _plain(row.get(column)) for column in self.columns} for row in self.rows]


def _console() -> Console:
    """The terminal as it is; a file or a pipe as wide as a table needs."""
    console = Console()
    return console if console.is_terminal else Console(width=max(WIDTH, console.width))


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
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
