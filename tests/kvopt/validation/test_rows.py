"""Reading measurements: what is missing or impossible refuses its row by line, what is no table is bad input."""

from pathlib import Path

import pytest

from kvopt.errors import BadInput
from kvopt.validation.rows import Refusal, Row, read_table


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'a,b\n1,2\n\n"two\nlines",3\n4\n'))
    assert table.columns == ("a", "b")
    assert [(row.line, row.text("a"), row.text("b")) for row in table.rows] == [(2, "1", "2"), (4, "two\nlines", "3"), (6, "4", "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "needs the column c"),
        ("a,c,a\n", "has the column a twice"),
        ('c\n"open\n', "not CSV, line 2"),
        (b"c\n\xff\xfe\n", "not UTF-8"),
        (b"c\n\0\n", "NUL"),
        ("c\n1,2\n", "line 2 has 2 cells, the header 1"),
    ],
)
def test_what_is_no_table_is_bad_input(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        read_table(write(tmp_path, text), ("c",))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(BadInput, match="cannot be read"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("many", "x: many: not a number"), ("nan", "x: nan: not a finite number"), ("inf", "x: inf: not a finite number"),
        ("-1", "x: -1: must be above 0"), ("0", "x: 0: must be above 0"), ("1.5", "x: 1.5: must be above 0 and at most 1"),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused_with_column_and_value(cell: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        Row(7, {"x": cell}).positive("x", high=1)


def test_cells() -> None:
    row = Row(2, {"x": "4", "y": "", "z": "2.5", "w": "0"})
    assert (row.need("x"), row.whole("x"), row.number("w"), row.positive("y"), row.text("absent")) == ("4", 4, 0.0, None, "")
    with pytest.raises(Refusal, match="y: missing"):
        row.need("y")
    with pytest.raises(Refusal, match="y: missing"):
        row.need_positive("y")
    with pytest.raises(Refusal, match=r"z: 2.5: must be a whole number"):
        row.whole("z")
