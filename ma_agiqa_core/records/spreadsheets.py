"""Tables as people publish labels and write prompts: text, spreadsheets and JSON, read into rows of text."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import MaAgiqaError, MissingFileError, MissingPackageError

PICTURE_COLUMNS = ("name", "image", "image_name", "path", "file", "file_name", "filename", "picture", "img", "img_name")
PROMPT_COLUMNS = ("prompt",)

_BYTE_ORDER_MARKS = {  # UTF-32's little-endian mark begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = ",;\t"
_JSON_SUFFIXES = (".json", ".jsonl")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", *_JSON_SUFFIXES)
_AS_JSON = "Write a list of objects, or one object a line"
_DECLARED_SEPARATOR = re.compile(r"\s*sep=([,;\t])\s*")  # what Excel writes and reads in a first line of its own


@dataclass(frozen=True)
class Table:
    """Rows of a table, all of them with the same columns.

    Attributes:
        path: Of its file.
        columns: In the order of the file.
        rows: What stands in each cell, as text without spaces around it; "" where nothing does.
        numbers: Of the rows, as a spreadsheet shows them: the header is row 1. Of JSON, which has no header, the line
            of JSON Lines, or the place in the list, from 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    numbers: tuple[int, ...]

    def column(self, wanted: str) -> str:
        """The column of this name, whatever its capitals and spaces.

        Raises:
            ValueError: There is none, or there are several.
        """
        if (found := self.first_column(wanted)) is not None:
            return found
        raise MaAgiqaError(
            f"Expected the column {wanted!r} in {self.path}, got {', '.join(self.columns)}. Name one of them."
        )

    def first_column(self, *names: str) -> str | None:
        """The first of the names that is a column, as the table writes it, or None.

        Raises:
            ValueError: Several columns have that name, and differ in capitals and spaces alone.
        """
        for name in names:
            if name in self.columns:
                return name
            alike = [column for column in self.columns if _plain(column) == _plain(name)]
            if len(alike) > 1:
                raise MaAgiqaError(
                    f"Expected one column called {name!r} in {self.path}, got {' and '.join(map(repr, alike))}. "
                    "Rename the others."
                )
            if alike:
                return alike[0]
        return None

    def with_column(self, column: str, value: Callable[[Mapping[str, str]], str]) -> Table:
        """The table with one more column, or another in its place, made from each row."""
        rows = tuple({**row, column: value(row)} for row in self.rows)
        return replace(self, columns=tuple(dict.fromkeys([*self.columns, column])), rows=rows)


def read_table(
    path: Path,
    what: str = "labels",
    *,
    usual: Sequence[str] = (".csv", ".tsv", ".xlsx"),
    text_columns: Collection[str] = (),
) -> Table:
    """Reads .csv, .tsv, .txt (separated by commas, semicolons or tabs), .xlsx (its first sheet), .json or .jsonl.

    Text is UTF-8, or has a byte order mark that says what it is.

    Args:
        path: Of the file.
        what: The table is of, for messages.
        usual: Endings to recommend.
        text_columns: Columns, by any spelling, in which JSON must have texts, and no numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A spreadsheet, and openpyxl is not installed.
        OSError: The file cannot be read.
        ValueError: Another ending, a damaged file, no rows, a column twice, or a row of another length than the header.
    """
    if path.is_dir():
        dataset = ", or, for a published set, which it is (on the command line --dataset)" if what == "labels" else ""
        raise MaAgiqaError(f"Expected a table of {what}, got the folder {path}. Name the file in it{dataset}.")
    if not path.exists():
        raise MissingFileError(f"Expected a table of {what}, got {path}: no such file.")
    if (ending := path.suffix.lower()) not in TABLE_SUFFIXES:
        others = ", ".join(suffix for suffix in TABLE_SUFFIXES if suffix not in usual)
        raise MaAgiqaError(
            f"Expected {what} in a {', '.join(usual[:-1])} or {usual[-1]} file, got {path}. Known are also {others}."
        )
    if ending in _JSON_SUFFIXES:
        return _json_table(path, what, text_columns)
    return _table_of_lines(path, read_lines(path, what))


def read_lines(path: Path, what: str = "labels") -> dict[int, list[str]]:
    """The cells of every line that has any, by the line's number from 1; `read_table` without a header or JSON."""
    lines = _spreadsheet_lines(path) if path.suffix.lower() == ".xlsx" else _text_lines(path, what)
    return {number: line for number, line in enumerate(lines, start=1) if any(line)}


def _table_of_lines(path: Path, lines: dict[int, list[str]]) -> Table:
    if len(lines) < 2:
        raise MaAgiqaError(
            f"Expected a header and rows in {path}, got {'an empty file' if not lines else 'the header alone'}."
        )
    header = _without_empty_end(lines.pop(min(lines)))
    if twice := [column for column in header if column and header.count(column) > 1]:
        raise MaAgiqaError(f"Expected each column once in {path}, got {twice[0]!r} {header.count(twice[0])} times.")
    for number, line in lines.items():
        if len(_without_empty_end(line)) > len(header) or len(line) < len(header):
            advice = "Write decimals with a dot, and put texts with a comma (or another separator) in double quotes."
            raise MaAgiqaError(f"Expected {len(header)} cells in row {number} of {path}, got {len(line)}. {advice}")
    rows = tuple(dict(zip(header, line, strict=False)) for line in lines.values())
    return Table(path, tuple(header), rows, tuple(lines))


def _without_empty_end(cells: list[str]) -> list[str]:
    """Spreadsheets often end in empty columns."""
    return cells[: max((place for place, cell in enumerate(cells, start=1) if cell), default=0)]


def read_text(path: Path, what: str) -> str:
    """UTF-8, or what the byte order mark says.

    Raises:
        OSError: It cannot be read.
        ValueError: A folder, or no text.
    """
    if path.is_dir():
        raise MaAgiqaError(f"Expected a file with {what}, got the folder {path}. Name the file in it.")
    content = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if "\0" in text:
            raise MaAgiqaError(f"Expected {what} in UTF-8, got {path} with NUL characters. Save it again as UTF-8.")
    except UnicodeError as error:
        raise MaAgiqaError(f"Expected {what} in UTF-8, got {path}: {error}. Save it again as UTF-8.") from error
    return text


def _text_lines(path: Path, what: str) -> Iterable[list[str]]:
    text = read_text(path, what)
    first = next(filter(str.strip, text.splitlines()), "")
    declared = _DECLARED_SEPARATOR.fullmatch(first)
    separator = declared[1] if declared else max(_SEPARATORS, key=first.count)
    if declared:
        text = text.replace(first, "", 1)  # its line stays, so that rows keep their numbers
    # A prompt may be longer than the module's limit, which is one for the whole program: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    # Strictly: else a quote that is never closed makes one cell of the rest of the file.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines: list[list[str]] = []
    try:
        lines.extend([cell.strip() for cell in row] for row in rows)
    except csv.Error as error:
        raise MaAgiqaError(
            f"Expected a table of text in {path}, got an error in row {len(lines) + 1}: {error}. "
            'Close every double quote, and write those inside of a text twice: "a ""red"" cat".'
        ) from error
    return lines


def _spreadsheet_lines(path: Path) -> Iterable[list[str]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingPackageError(
            'Expected openpyxl for spreadsheets, got none. Run: pip install "ma-agiqa[train]"'
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            values = list(book.worksheets[0].values)
        finally:
            book.close()
    except Exception as error:  # zipfile's, xml's and openpyxl's own
        raise MaAgiqaError(f"Expected a spreadsheet, got {path}, which cannot be read: {error}.") from error
    return [["" if cell is None else str(cell).strip() for cell in row] for row in values]


def _json_table(path: Path, what: str, text_columns: Collection[str]) -> Table:
    """One column for each name that any of the objects has."""
    values = _json_values(path, read_text(path, what))
    if not values:
        raise MaAgiqaError(f"Expected rows in {path}, got none.")
    for number, value in values.items():
        if not isinstance(value, dict):
            raise MaAgiqaError(
                f"Expected an object in row {number} of {path}, got {_short(value)}. {_AS_JSON}, each with the names "
                "that a table would have in its header."
            )
    columns = tuple(dict.fromkeys(name for value in values.values() for name in value))
    texts = {column for column in columns if _plain(column) in map(_plain, text_columns)}
    rows = []
    for number, value in values.items():
        row = dict.fromkeys(columns, "")
        for name, cell in value.items():
            if name in texts and not isinstance(cell, str | None):
                raise MaAgiqaError(f"Expected a text as {name} in row {number} of {path}, got {_short(cell)}.")
            row[name] = cell.strip() if isinstance(cell, str) else "" if cell is None else json.dumps(cell)
        rows.append(row)
    return Table(path, columns, tuple(rows), tuple(values))


def _json_values(path: Path, text: str) -> dict[int, Any]:
    """By number: the entries of a list, or the value in each line."""
    try:
        whole = _parsed(text)
        start = text[: -len(text.lstrip())].count("\n") + 1
        return dict(enumerate(whole, start=1)) if isinstance(whole, list) else {start: whole}
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise MaAgiqaError(f"Expected a list of objects in {path}, got an error: {error}. {_AS_JSON}.") from error
    values: dict[int, Any] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            values |= {number: _parsed(line)} if line.strip() else {}
        except (ValueError, RecursionError) as error:
            raise MaAgiqaError(
                f"Expected an object in row {number} of {path}, got an error: {error}. {_AS_JSON}."
            ) from error
    return values


def _parsed(text: str) -> Any:
    """The value in a JSON text, where no object may have a name twice: which of the two is meant?"""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise MaAgiqaError(f"the name {twice!r} stands {names.count(twice)} times in an object")
        return found

    return json.loads(text, object_pairs_hook=once)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _plain(column: str) -> str:
    return re.sub(r"[\s_]+", " ", column).strip().lower()
