"""A person's CSV, row by row with its line numbers. What a row does not say, or says impossibly, refuses that row with the reason; nothing is dropped."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kvopt.errors import BadInput


class Refusal(ValueError):
    """Why a row cannot be predicted: the column, its value and what is allowed."""


@dataclass(frozen=True)
class Row:
    """One row: its line in the file (the header is line 1) and its cells by column, without surrounding blanks."""

    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell, empty where it or its column is missing."""
        return self.cells.get(column, "")

    def need(self, column: str) -> str:
        """The cell. Raises `Refusal` where it is empty."""
        if not self.text(column):
            self._refuse(column, "missing")
        return self.text(column)

    def number(self, column: str, low: float = 0.0, high: float = math.inf, *, above: bool = False) -> float | None:
        """The cell as a finite number from `low` (`above`: greater than `low`) to `high`, None where it is empty. Raises `Refusal`."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            self._refuse(column, f"{text}: not a number")
        if not math.isfinite(value):
            self._refuse(column, f"{text}: not a finite number")
        if value < low or (above and value == low) or value > high:
            bound = f"above {low:g}" if above else f"{low:g} or more"
            self._refuse(column, f"{text}: must be {bound}{f' and at most {high:g}' if high < math.inf else ''}")
        return value

    def positive(self, column: str, high: float = math.inf) -> float | None:
        """The cell as a number above zero, None where it is empty. Raises `Refusal`."""
        return self.number(column, high=high, above=True)

    def need_positive(self, column: str, high: float = math.inf) -> float:
        """The cell as a number above zero. Raises `Refusal` where it is empty or is none."""
        value = self.positive(column, high)
        if value is None:
            self._refuse(column, "missing")
        return value

    def whole(self, column: str, low: int = 1) -> int | None:
        """The cell as a whole number of at least `low`, None where it is empty. Raises `Refusal`."""
        value = self.number(column, low=low)
        if value is not None and value != int(value):
            self._refuse(column, f"{self.text(column)}: must be a whole number")
        return None if value is None else int(value)

    def _refuse(self, column: str, what: str) -> NoReturn:
        raise Refusal(f"{column}: {what if len(what) <= 80 else what[:77] + '...'}")


@dataclass(frozen=True)
class Table:
    """A file's header and its rows, in order."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: str | Path, required: Iterable[str] = ()) -> Table:
    """The rows of a CSV file. Raises `BadInput` where there is no file, no CSV in it, or a required column is missing.

    A quoted cell may span lines: a row's line is the one that it begins on. Blank lines are no rows.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput("file", path, f"cannot be read ({error.strerror or error.__class__.__name__})") from None
    except UnicodeDecodeError:
        raise BadInput("file", path, "not CSV: not UTF-8 text") from None
    if "\0" in text:
        raise BadInput("file", path, "not CSV: it has NUL characters")
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows: list[Row] = []
    header: tuple[str, ...] = ()
    begins = 1
    try:
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not header:
                header = _header(path, cells, tuple(required))
            elif any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise BadInput("file", path, f"line {line} has {len(cells)} cells, the header {len(header)}")
                filled = [*cells, *[""] * (len(header) - len(cells))]
                rows.append(Row(line, {name: cell.strip() for name, cell in zip(header, filled, strict=True)}))
    except csv.Error as error:
        raise BadInput("file", path, f"not CSV, line {begins}: {error}") from None
    if not header:
        raise BadInput("file", path, "is empty: a CSV with a header is expected")
    return Table(header, tuple(rows))


def _header(path: str | Path, cells: list[str], required: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise BadInput("file", path, f"has the column {twice} twice")
    missing = [name for name in required if name not in names]
    if missing:
        raise BadInput("file", path, f"needs the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return names
