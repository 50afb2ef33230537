"""Tables as people publish labels: CSV, TSV and spreadsheets, read into rows of text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import MaAgiqaError, MissingFileError, MissingPackageError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx"})


@dataclass(frozen=True)
class Table:
    """Rows of a table, all of them with the same columns.

    Attributes:
        path: Of its file.
        columns: In the order of the file.
        rows: What stands in each cell, as text without spaces around it; "" where nothing does.
        numbers: Of the rows, as a spreadsheet shows them: the header is row 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    numbers: tuple[int, ...]

    def column(self, wanted: str) -> str:
        """The column of this name, whatever its capitals and spaces.

        Raises:
            ValueError: There is none.
        """
        if wanted in self.columns:
            return wanted
        if alike := [column for column in self.columns if _plain(column) == _plain(wanted)]:
            return alike[0]
        raise MaAgiqaError(
            f"Expected the column {wanted!r} in {self.path}, got {', '.join(self.columns)}. Name one of them."
        )

    def first_column(self, *names: str) -> str | None:
        """The first of the names that is a column, as the table writes it, or None."""
        by_name = {_plain(column): column for column in reversed(self.columns)}
        return next((by_name[_plain(name)] for name in names if _plain(name) in by_name), None)

    def with_column(self, column: str, value: Callable[[Mapping[str, str]], str]) -> Table:
        """The table with one more column, or another in its place, made from each row."""
        rows = tuple({**row, column: value(row)} for row in self.rows)
        return replace(self, columns=tuple(dict.fromkeys([*self.columns, column])), rows=rows)


def read_table(path: Path) -> Table:
    """Reads .csv, .tsv, .txt (separated by commas, semicolons or tabs) or .xlsx (its first sheet).

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A spreadsheet, and openpyxl is not installed.
        ValueError: Another ending, no rows, a column twice, or a row of another length than the header.
    """
    if path.is_dir():
        raise MaAgiqaError(
            f"Expected a table of labels, got the folder {path}. Name the file in it, or, for a published set, which "
            "it is (on the command line --dataset)."
        )
    if not path.is_file():
        raise MissingFileError(f"Expected a table of labels, got {path}: no such file.")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise MaAgiqaError(f"Expected labels in a .csv, .tsv or .xlsx file, got {path}.")
    lines = read_lines(path)
    if len(lines) < 2:
        raise MaAgiqaError(
            f"Expected a header and rows in {path}, got {'an empty file' if not lines else 'the header alone'}."
        )
    header = _without_empty_end(lines.pop(min(lines)))
    if twice := [column for column in header if column and header.count(column) > 1]:
        raise MaAgiqaError(f"Expected each column once in {path}, got {twice[0]!r} {header.count(twice[0])} times.")
    for number, line in lines.items():
        if len(_without_empty_end(line)) > len(header) or len(line) < len(header):
            advice = "Write decimals with a dot, and put texts with a comma in quotes."
            raise MaAgiqaError(f"Expected {len(header)} cells in row {number} of {path}, got {len(line)}. {advice}")
    rows = tuple(dict(zip(header, line, strict=False)) for line in lines.values())
    return Table(path, tuple(header), rows, tuple(lines))


def read_lines(path: Path) -> dict[int, list[str]]:
    """The cells of every line that has any, by the line's number from 1; `read_table` without a header."""
    lines = _spreadsheet_lines(path) if path.suffix.lower() == ".xlsx" else _text_lines(path)
    return {number: line for number, line in enumerate(lines, start=1) if any(line)}


def _without_empty_end(cells: list[str]) -> list[str]:
    """Spreadsheets often end in empty columns."""
    return cells[: max((place for place, cell in enumerate(cells, start=1) if cell), default=0)]


def _text_lines(path: Path) -> Iterable[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MaAgiqaError(f"Expected labels in UTF-8, got {path}: {error}. Save it again as UTF-8.") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        return [
            [cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        ]
    except csv.Error as error:
        raise MaAgiqaError(f"Expected a table of text in {path}, got an error: {error}.") from error


def _spreadsheet_lines(path: Path) -> Iterable[list[str]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingPackageError(
            'Expected openpyxl for spreadsheets, got none. Run: pip install "ma-agiqa[train]"'
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # zipfile's, xml's and openpyxl's own
        raise MaAgiqaError(f"Expected a spreadsheet, got {path}, which cannot be read: {error}.") from error
    try:
        return [["" if cell is None else str(cell).strip() for cell in row] for row in book.worksheets[0].values]
    finally:
        book.close()


def _plain(column: str) -> str:
    return re.sub(r"[\s_]+", " ", column).strip().lower()
