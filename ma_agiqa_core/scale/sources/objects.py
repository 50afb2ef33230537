"""Data sets of other libraries: Hugging Face datasets here; a ray.data.Dataset and a Daft DataFrame as rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..rows import Row
from .shard import Columns
from .tables import columns_of, row_of

ROWS_IN_SHARD = 512


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


def hugging_face_shards(dataset: Any, columns: Columns) -> Iterator[HuggingFaceShard | IterableShard]:
    """Rows of a Hugging Face data set, whose pictures stay as they are stored.

    Raises:
        ValueError: It has no such columns.
    """
    undecoded = _undecoded(dataset)
    if not hasattr(undecoded, "select"):  # an IterableDataset
        yield IterableShard(undecoded, columns)
        return
    columns_of(undecoded.column_names, columns, "the data set")
    for first in range(0, len(undecoded), ROWS_IN_SHARD):
        yield HuggingFaceShard(undecoded, first, min(ROWS_IN_SHARD, len(undecoded) - first), columns)


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
