"""Tables as people publish labels: CSV, TSV and spreadsheets, read into rows of text."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx"})


@dataclass(frozen=True)
class Table:
    """Rows of a table, all of them with the same columns.

    Attributes:
        path: Of its file.
        columns: In the order of the file.
        rows: What stands in each cell, as text without spaces around it; "" where nothing does.
        first_row: The number that a spreadsheet shows for `rows[0]`.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    first_row: int = 2

    def column(self, wanted: str) -> str:
        """The column of this name, whatever its capitals and spaces.

        Raises:
            ValueError: There is none.
        """
        if wanted in self.columns:
            return wanted
        if alike := [column for column in self.columns if _plain(column) == _plain(wanted)]:
            return alike[0]
        raise ValueError(
            f"Expected the column {wanted!r} in {self.path}, got {', '.join(self.columns)}. Name one of them."
        )

    def first_column(self, *names: str) -> str | None:
        """The first of the names that is a column, as the table writes it, or None."""
        by_name = {_plain(column): column for column in reversed(self.columns)}
        return next((by_name[_plain(name)] for name in names if _plain(name) in by_name), None)


def read_table(path: Path) -> Table:
    """Reads .csv, .tsv, .txt (separated by commas, semicolons or tabs) or .xlsx (its first sheet).

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A spreadsheet, and openpyxl is not installed.
        ValueError: Another ending, no rows, a column twice, or a row of another length than the header, with its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table of labels, got {path}: no such file.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"Expected labels in a .csv, .tsv or .xlsx file, got {path}.")
    lines = _spreadsheet_lines(path) if suffix == ".xlsx" else _text_lines(path)
    filled = [(number, line) for number, line in enumerate(lines, start=1) if any(line)]
    if len(filled) < 2:
        raise ValueError(f"Expected a header and rows in {path}, got {len(filled)} lines.")
    (number, header), rows = filled[0], filled[1:]
    while not header[-1]:  # spreadsheets often end in empty columns
        header.pop()
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise ValueError(f"Expected each column once in {path}, got {twice[0]!r} {header.count(twice[0])} times.")
    return Table(path, tuple(header), tuple(_row(path, row, header, line) for row, line in rows), rows[0][0])


def _row(path: Path, number: int, header: list[str], line: list[str]) -> dict[str, str]:
    cells = line + [""] * (len(header) - len(line)) if path.suffix.lower() == ".xlsx" else line
    if len(cells) != len(header) and any(cells[len(header) :] or ["x"]):
        advice = "Write decimals with a dot, and texts with a comma in quotes."
        raise ValueError(f"Expected {len(header)} cells in row {number} of {path}, got {len(cells)}. {advice}")
    return dict(zip(header, cells, strict=False))


def _text_lines(path: Path) -> Iterable[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected labels in UTF-8, got {path}: {error}. Save it again as UTF-8.") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        return [[cell.strip() for cell in line] for line in csv.reader(text.splitlines(True), delimiter=separator)]
    except csv.Error as error:
        raise ValueError(f"Expected a table of text in {path}, got an error: {error}.") from error


def _spreadsheet_lines(path: Path) -> Iterable[list[str]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ImportError('Expected openpyxl for spreadsheets, got none. Run: pip install "ma-agiqa[train]"') from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # zipfile's, xml's and openpyxl's own
        raise ValueError(f"Expected a spreadsheet, got {path}, which cannot be read: {error}.") from error
    try:
        return [["" if cell is None else str(cell).strip() for cell in row] for row in book.worksheets[0].values]
    finally:
        book.close()


def _plain(column: str) -> str:
    return re.sub(r"[\s_]+", " ", column).strip().lower()
