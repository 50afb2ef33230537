"""What is known of a scored picture, and how CSV, JSON Lines and Parquet hold it.

Text is UTF-8, one record after the other, each ending in a newline: where a run was killed at most the last
record is torn, and reading leaves it out.
"""

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import MaAgiqaError, MissingPackageError
from .csv_cells import cell_text, csv_row

ROW_GROUP = 10_000  # records of a Parquet file held in memory at a time
LONGEST_CELL = 2**31 - 1  # characters; csv stops at 131 072 of its own accord


@dataclass(frozen=True)
class Judged:
    """What one of several scorers says of a picture.

    Attributes:
        name: The scorer's, as its columns are called.
        score: Higher is better; None where it has none.
        percentile: 0..100.
        error: Why there is no score.
    """

    name: str
    score: float | None
    percentile: float | None
    error: str | None


@dataclass(frozen=True)
class Record:
    """What is known of one picture after scoring; None for what is not.

    Attributes:
        path: As `path_text` gives it.
        score: Higher is better.
        percentile: 0..100.
        width: Pixels, as is `height`.
        model: What made the score: scorer, revision and every setting that changes scores.
        error: Why there is no score.
        prompt: What the picture was scored with; None where the scorer needs none.
        modified: When its file last changed, as `PictureState` says.
        digest: Of its file, as `PictureState` says; None in outputs that were written before there was this column.
        judges: Where several scored it, what each says; `score`, `percentile` and `error` are the first one's.
    """

    path: str
    score: float | None
    percentile: float | None
    width: int | None
    height: int | None
    model: str
    error: str | None
    prompt: str | None = None
    modified: str | None = None
    digest: str | None = None
    judges: tuple[Judged, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every scorer has a score for it."""
        return self.error is None and all(judged.error is None for judged in self.judges)


COLUMNS = tuple(field.name for field in fields(Record) if field.name != "judges")
JUDGE_COLUMNS = ("score", "percentile", "error")  # of each of several scorers, behind its name and a space
CSV_HEADER = (",".join(COLUMNS) + "\n").encode()
OLD_CSV_HEADER = (",".join(COLUMNS[: COLUMNS.index("prompt")]) + "\n").encode()  # with cells as they are
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def columns_of(judges: Iterable[str]) -> tuple[str, ...]:
    """The columns of records by these scorers; none where there is only one."""
    return (*COLUMNS, *(f"{name} {part}" for name in judges for part in JUDGE_COLUMNS))


def as_row(record: Record) -> dict[str, Any]:
    """A record by the names of its columns."""
    row = {name: getattr(record, name) for name in COLUMNS}
    return row | {f"{judged.name} {part}": getattr(judged, part) for judged in record.judges for part in JUDGE_COLUMNS}


def record_of(row: Mapping[str, Any]) -> Record:
    """The record that `as_row` made this row of.

    Raises:
        ValueError: Columns that are none of its.
    """
    own = {name: value for name, value in row.items() if name in COLUMNS}
    names = judges_in(row)
    judges = tuple(Judged(name, *(row[f"{name} {part}"] for part in JUDGE_COLUMNS)) for name in names)
    return Record(**own, judges=judges)


def judges_in(columns: Iterable[str]) -> list[str]:
    """The names of the scorers that `columns_of` made these columns of.

    Raises:
        ValueError: A column that it does not make, or one of a scorer's that is missing.
    """
    further = [name for name in columns if name not in COLUMNS]
    names = list(dict.fromkeys(name.rpartition(" ")[0] for name in further))
    expected = columns_of(names)[len(COLUMNS) :]
    if wrong := [name for name in further if name not in expected] or [c for c in expected if c not in further]:
        raise MaAgiqaError(f"another set of columns, by {wrong[0]!r}")
    return names


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as valid Unicode, the same in every locale: bytes that are none become `\xff` and the like."""
    name = os.fspath(path)
    encoding = sys.getfilesystemencoding()
    if encoding in ("utf-8", "ascii"):  # then text from elsewhere, joined to a path of the system, is understood, too
        encoding = "utf-8"
    try:
        return name.encode(encoding, sys.getfilesystemencodeerrors()).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return valid_text(name)


def valid_text(text: str) -> str:
    """Text that can be written as UTF-8 and read again: half characters and NUL become escapes."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def path_from_text(text: str) -> str:
    """The path that `path_text` made this text of, as this system writes it."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def path_key(path: str | os.PathLike[str]) -> str:
    """One spelling for all ways to write a picture's path."""
    return text_key(path_text(path))


def text_key(text: str) -> str:
    """`path_key` of the path that `path_text` made this text of."""
    if not os.path.isabs(text):  # noqa: PTH117 - a Path drops dots and slashes
        text = os.path.join(path_text(os.getcwd()), text)  # noqa: PTH109, PTH118
    spelled = os.path.normcase(os.path.abspath(text))  # noqa: PTH100 - resolve() would follow links
    # A Mac takes both spellings of an accent for the same file and lists one of them.
    return unicodedata.normalize("NFC", spelled) if sys.platform == "darwin" else spelled


def read_records(out: Path) -> Iterator[Record]:
    """The whole records of an output, in order, in constant memory; a torn last line is left out.

    Raises:
        ValueError: The file is not an output of ours.
    """
    try:
        yield from READERS[out.suffix.lower()](out)
    except (csv.Error, TypeError, ValueError) as error:  # pyarrow's are ValueErrors
        raise MaAgiqaError(
            f"Expected {out.name} to hold records of ma-agiqa, got something else ({error}). Name another output."
        ) from error


def csv_line(record: Record) -> bytes:
    """One row, as `csv_row` writes it."""
    return csv_row(as_row(record).values())


def json_line(record: Record) -> bytes:
    """One object on one line."""
    return (json.dumps(as_row(record), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_csv(out: Path) -> Iterator[Record]:
    is_at_end = False

    def watched_lines() -> Iterator[str]:
        nonlocal is_at_end
        yield from _whole_lines(out, openings=(CSV_HEADER, OLD_CSV_HEADER, CSV_HEADER.replace(b"\n", b",")))
        is_at_end = True

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    rows = csv.reader(watched_lines(), strict=True)
    header = [cell_text(name) for name in next(rows, list(COLUMNS))]
    is_old = len(header) < len(COLUMNS)
    judges_in(header)
    try:
        for row in rows:
            cells = dict(zip(header, row if is_old else map(cell_text, row), strict=True))
            yield record_of({name: _value(name, cell) for name, cell in cells.items()} | {"path": cells["path"]})
    except csv.Error:
        if not is_at_end:  # else the last record is torn inside its quotes
            raise


def _value(column: str, cell: str) -> str | float | None:
    """What a cell of CSV says; "model" is never None, and is written by no empty cell."""
    if not cell:
        return "" if column == "model" else None
    part = column.rpartition(" ")[2]
    return float(cell) if part in ("score", "percentile") else int(cell) if part in ("width", "height") else cell


def _read_json_lines(out: Path) -> Iterator[Record]:
    for line in _whole_lines(out, openings=(b'{"path"',)):
        yield record_of(json.loads(line))


def _read_parquet(out: Path) -> Iterator[Record]:
    with import_parquet().ParquetFile(out) as file:
        for batch in file.iter_batches(ROW_GROUP):
            for row in batch.to_pylist():
                yield record_of(row)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _whole_lines(path: Path, *, openings: Sequence[bytes]) -> Iterator[str]:
    """All lines but a torn last one. What opens otherwise is not ours, however little there is of it.

    A byte order mark, and lines as Windows ends them, come of a program that opened and saved the file.
    """
    with path.open("rb") as file:
        begin = len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
        file.seek(begin)
        start = file.read(1 + max(map(len, openings))).replace(b"\r\n", b"\n")
        if not any(start.startswith(opening) or opening.startswith(start) for opening in openings):
            raise MaAgiqaError(f"it starts with {start.decode(errors='replace')!r}")
        file.seek(begin)
        for line in file:
            if line.endswith(b"\n"):
                yield line.decode()


def import_parquet() -> Any:
    """The module pyarrow.parquet, or an ImportError that says how to get it."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError('Expected pyarrow, got none. Run: pip install "ma-agiqa[parquet]"') from error
    return parquet
