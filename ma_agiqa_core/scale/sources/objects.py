"""Data sets of other libraries: Hugging Face datasets here; a ray.data.Dataset and a Daft DataFrame as rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..rows import Row
from .shard import Columns, in_shards
from .tables import columns_of, row_of

MOST_ROWS_HELD = 64


@dataclass(frozen=True)
class HuggingFaceShard:
    """Some rows of a `datasets.Dataset`."""

    dataset: Any
    first: int
    count: int
    columns: Columns = field(default_factory=Columns)

    def rows(self) -> Iterator[Row]:
        columns = columns_of(self.dataset.column_names, self.columns, "the data set")
        part = self.dataset.select(range(self.first, self.first + self.count)).select_columns(columns.names)
        for number, values in enumerate(part, start=self.first):
            yield row_of(values, columns, f"row-{number}", None)


@dataclass(frozen=True)
class IterableShard:
    """All of something that is iterated over: an iterable data set, or batches of another engine."""

    dataset: Any
    columns: Columns = field(default_factory=Columns)

    def rows(self) -> Iterator[Row]:
        columns = None
        for number, values in enumerate(self.dataset):
            columns = columns or columns_of(list(values), self.columns, "the data set")
            yield row_of(values, columns, f"row-{number}", None)


@dataclass(frozen=True)
class RowsShard:
    """Rows themselves, of a source that only this process can read, or that would be sent whole with every shard."""

    of: tuple[Row, ...]

    @property
    def count(self) -> int:
        """Of its pictures."""
        return len(self.of)

    def rows(self) -> Iterator[Row]:
        return iter(self.of)


def row_shards(dataset: Any, columns: Columns) -> Iterator[RowsShard]:
    """What is iterated over here, in shards small enough to be held in memory with their pictures."""
    for rows in in_shards(IterableShard(dataset, columns).rows(), MOST_ROWS_HELD):
        yield RowsShard(tuple(rows))


def hugging_face_shards(dataset: Any, columns: Columns) -> Iterator[HuggingFaceShard | IterableShard | RowsShard]:
    """Rows of a Hugging Face data set, whose pictures stay as they are stored.

    Raises:
        ValueError: It has no such columns.
    """
    undecoded = _undecoded(dataset)
    if not hasattr(undecoded, "select"):  # an IterableDataset
        yield IterableShard(undecoded, columns)
        return
    columns_of(undecoded.column_names, columns, "the data set")
    if not undecoded.cache_files:  # in memory: all of it would go with every shard
        yield from row_shards(undecoded, columns)
        return
    for numbers in in_shards(range(len(undecoded))):
        yield HuggingFaceShard(undecoded, numbers[0], len(numbers), columns)


def is_hugging_face(source: object) -> bool:
    """Whether this is a data set of the datasets library, without importing it."""
    kind = type(source)
    return kind.__module__.partition(".")[0] == "datasets" and hasattr(source, "features")


def is_ray(source: object) -> bool:
    """Whether this is a ray.data.Dataset, without importing it."""
    kind = type(source)
    return kind.__module__.startswith("ray.data") and hasattr(source, "map_batches")


def is_daft(source: object) -> bool:
    """Whether this is a Daft DataFrame, without importing it."""
    kind = type(source)
    return kind.__module__.partition(".")[0] == "daft" and hasattr(source, "with_column")


def _undecoded(dataset: Any) -> Any:
    import datasets

    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset
