"""Parquet and Lance: a column of paths, of URLs, or of pictures' files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MaAgiqaError, MissingPackageError, first_line
from ...records.spreadsheets import PICTURE_COLUMNS
from ..parts import import_pyarrow
from ..places import opened_store
from ..rows import Row
from .names import is_url
from .shard import Columns, text_of

ROWS_AT_ONCE = 256
_BYTES = ("bytes", "image_bytes", "image", "picture", "img", "jpg", "jpeg", "png", "webp", "content", "data", "binary")
_PLACES = ("url", "image_url", "uri", "image_path", *PICTURE_COLUMNS)
OUTSIDE = "its path leads out of the folder of its table"


@dataclass(frozen=True)
class TableColumns:
    """The columns of one table: which it has, and which are read."""

    picture: str
    id: str | None
    prompt: str | None

    @property
    def names(self) -> list[str]:
        """Those to read, each once."""
        return list(dict.fromkeys(name for name in (self.picture, self.id, self.prompt) if name is not None))


def columns_of(names: Sequence[str], wanted: Columns, what: str) -> TableColumns:
    """Finds the columns in a table that has these.

    Raises:
        ValueError: One that is named is not there, or there is none for pictures.
    """
    for name in (wanted.id, wanted.picture, wanted.prompt):
        if name is not None and name not in names:
            raise MaAgiqaError(f"Expected the column {name!r} in {what}, got {', '.join(names)}. Name one of them.")
    picture = wanted.picture or next((name for name in (*_BYTES, *_PLACES) if name in names), None)
    if picture is None:
        raise MaAgiqaError(
            f"Expected a column with pictures in {what}, got {', '.join(names)}. Call it path, url or bytes."
        )
    return TableColumns(picture, wanted.id, wanted.prompt or ("prompt" if "prompt" in names else None))


def row_of(values: Mapping[str, Any], columns: TableColumns, place: str, folder: str | None) -> Row:
    """One row of a table.

    Args:
        values: By column.
        columns: Which are read.
        place: Its key, if it has no other: the table and the row's number.
        folder: Of the table: relative paths begin there, and may not leave it.
    """
    picture, error = _locator(values.get(columns.picture), folder)
    key = text_of(values.get(columns.id)) if columns.id is not None else None
    if key is None and isinstance(picture, str):
        from ...records.record import path_key

        key = picture if is_url(picture) else path_key(picture)
    prompt = text_of(values.get(columns.prompt)) if columns.prompt is not None else None
    return Row(place if key is None else key, picture, prompt, error)


def key_of_content(values: Mapping[str, Any]) -> str:
    """A key for a row of a data set without an order: of what is in it."""
    content = next((value for value in values.values() if isinstance(value, bytes)), None)
    if content is None:
        arrays = [value.tobytes() for value in values.values() if isinstance(value, np.ndarray)]
        content = b"".join(arrays) or repr(sorted(values.items())).encode("utf-8", "backslashreplace")
    return f"sha256:{hashlib.sha256(content).hexdigest()[:32]}"


def _locator(value: Any, folder: str | None) -> tuple[Any, str | None]:
    if isinstance(value, Mapping):  # as the datasets library stores pictures
        value = value.get("bytes") or value.get("path")
    if value is None or (isinstance(value, str | bytes) and not value):
        return None, "the source has no picture here"
    if isinstance(value, memoryview | bytearray):
        return bytes(value), None
    if not isinstance(value, str) or is_url(value):
        return value, None
    if "\0" in value:
        return None, "its path has a NUL character"
    if folder is None or os.path.isabs(value):  # noqa: PTH117
        return value, None
    if is_url(folder):
        return (None, OUTSIDE) if ".." in value.split("/") else (f"{folder.rstrip('/')}/{value}", None)
    inside = os.path.realpath(os.path.join(folder, value))  # noqa: PTH118
    if os.path.commonpath([inside, os.path.realpath(folder)]) != os.path.realpath(folder):
        return None, OUTSIDE
    return os.path.join(folder, value), None  # noqa: PTH118


@dataclass(frozen=True)
class ParquetShard:
    """One row group of a Parquet file.

    Attributes:
        place: Of the file.
        group: Its number.
        first: The number of its first row.
        columns: Those that are wanted.
    """

    place: str
    group: int
    first: int
    columns: Columns = field(default_factory=Columns)

    def rows(self) -> Iterator[Row]:
        folder = self.place.rpartition("/")[0] if is_url(self.place) else str(Path(self.place).absolute().parent)
        number = self.first
        with _parquet(self.place) as file, _refusing_damage("a Parquet file", self.place):
            columns = columns_of(file.schema_arrow.names, self.columns, self.place)
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[self.group], columns=columns.names):
                for values in batch.to_pylist():
                    yield row_of(values, columns, f"{_key(self.place)}#{number}", folder)
                    number += 1


def parquet_shards(place: str, columns: Columns) -> Iterator[ParquetShard]:
    """The row groups of a Parquet file.

    Raises:
        ValueError: It is none, or has no such columns.
    """
    with _parquet(place) as file:
        columns_of(file.schema_arrow.names, columns, place)
        first = 0
        for group in range(file.num_row_groups):
            yield ParquetShard(place, group, first, columns)
            first += file.metadata.row_group(group).num_rows


@dataclass(frozen=True)
class LanceShard:
    """One fragment of a Lance data set."""

    place: str
    fragment: int
    columns: Columns = field(default_factory=Columns)

    def rows(self) -> Iterator[Row]:
        dataset = _lance(self.place)
        columns = columns_of(dataset.schema.names, self.columns, self.place)
        number = 0
        fragment = dataset.get_fragment(self.fragment)
        folder = None if is_url(self.place) else str(Path(self.place).absolute().parent)
        with _refusing_damage("a Lance data set", self.place):
            for batch in fragment.to_batches(columns=columns.names, batch_size=ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    yield row_of(values, columns, f"{_key(self.place)}#{self.fragment}.{number}", folder)
                    number += 1


def lance_shards(place: str, columns: Columns) -> Iterator[LanceShard]:
    """The fragments of a Lance data set.

    Raises:
        ImportError: pylance is missing.
        ValueError: It is no such data set, or has no such columns.
    """
    dataset = _lance(place)
    columns_of(dataset.schema.names, columns, place)
    for fragment in dataset.get_fragments():
        yield LanceShard(place, fragment.fragment_id, columns)


def _key(place: str) -> str:
    from ...records.record import path_key

    return place if is_url(place) else path_key(place)


def _parquet(place: str) -> Any:
    pa = import_pyarrow()
    with _refusing_damage("a Parquet file", place):
        if is_url(place):
            system, path = opened_store(place)
            return pa.parquet.ParquetFile(system.open(path, "rb"))
        return pa.parquet.ParquetFile(place)


def _lance(place: str) -> Any:
    try:
        import lance
    except ImportError as error:
        raise MissingPackageError("Expected pylance for Lance data sets, got none. Run: pip install pylance") from error
    with _refusing_damage("a Lance data set", place):
        return lance.dataset(place)


@contextmanager
def _refusing_damage(kind: str, place: str) -> Iterator[None]:
    """What these libraries raise of a damaged file, at its head or in the middle of it, in our words."""
    pa = import_pyarrow()
    try:
        yield
    except MaAgiqaError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise MaAgiqaError(f"Expected {kind}, got {place}: {first_line(error)}") from error
