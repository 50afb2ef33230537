"""What is known of a scored picture, and how CSV, JSON Lines and Parquet hold it.

Text is UTF-8, one record after the other, each ending in a newline: where a run was killed at most the last
record is torn, and reading leaves it out.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import MaAgiqaError, MissingPackageError

ROW_GROUP = 10_000  # records of a Parquet file held in memory at a time


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
    """

    path: str
    score: float | None
    percentile: float | None
    width: int | None
    height: int | None
    model: str
    error: str | None


COLUMNS = tuple(field.name for field in fields(Record))
CSV_HEADER = (",".join(COLUMNS) + "\n").encode()


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as valid Unicode: bytes that are none become `\xff` and the like."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_key(path: str | os.PathLike[str]) -> str:
    """One spelling for all ways to write a picture's path."""
    return os.path.abspath(path_text(path))  # noqa: PTH100 - resolve() would follow links


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
    """One row; a field with a newline in it is quoted."""
    line = io.StringIO()
    csv.writer(line).writerow(astuple(record))  # its \r\n makes it quote fields with either of the two
    return (line.getvalue().removesuffix("\r\n") + "\n").encode()


def json_line(record: Record) -> bytes:
    """One object on one line."""
    return (json.dumps(asdict(record), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_csv(out: Path) -> Iterator[Record]:
    is_at_end = False

    def watched_lines() -> Iterator[str]:
        nonlocal is_at_end
        yield from _whole_lines(out, opening=CSV_HEADER)
        is_at_end = True

    rows = csv.reader(watched_lines(), strict=True)
    next(rows, None)
    try:
        for path, score, percentile, width, height, model, error in rows:
            yield Record(
                path,
                float(score) if score else None,
                float(percentile) if percentile else None,
                int(width) if width else None,
                int(height) if height else None,
                model,
                error or None,
            )
    except csv.Error:
        if not is_at_end:  # else the last record is torn inside its quotes
            raise


def _read_json_lines(out: Path) -> Iterator[Record]:
    for line in _whole_lines(out, opening=b'{"path"'):
        yield Record(**json.loads(line))


def _read_parquet(out: Path) -> Iterator[Record]:
    with import_parquet().ParquetFile(out) as file:
        for batch in file.iter_batches(ROW_GROUP):
            for row in batch.to_pylist():
                yield Record(**row)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _whole_lines(path: Path, *, opening: bytes) -> Iterator[str]:
    """All lines but a torn last one. What opens otherwise is not ours, however little there is of it."""
    with path.open("rb") as file:
        start = file.read(len(opening))
        if not opening.startswith(start):
            raise MaAgiqaError(f"it starts with {start.decode(errors='replace')!r}")
        file.seek(0)
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
