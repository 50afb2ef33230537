"""What a worker opens: a part of a source, small to send, some thousand pictures long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from ...errors import MaAgiqaError, MissingPackageError, first_line
from ..rows import Row

FEWEST_IN_SHARD, MOST_IN_SHARD = 16, 512
SHARE_OF_SHARD = 64  # a shard has one in so many of the pictures before it

Item = TypeVar("Item")


class Shard(Protocol):
    """A part of a source; it can be pickled, and opened anew after the worker died that had it."""

    def rows(self) -> Iterator[Row]:
        """Its pictures, in the same order every time."""
        ...


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant.

    Attributes:
        id: Of the key; None makes one of the picture's path or of the row's place.
        prompt: Of the prompt; None takes `prompt` where there is one.
        picture: Of the picture; None looks for one by name and type.
    """

    id: str | None = None
    prompt: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class PathShard:
    """Files on this machine, and URLs."""

    places: tuple[str, ...]

    @property
    def count(self) -> int:
        """Of its pictures."""
        return len(self.places)

    def rows(self) -> Iterator[Row]:
        from ...records.record import path_key
        from .names import is_url

        for place in self.places:
            yield Row(place if is_url(place) else path_key(place), place)


def pictures_in(shard: Shard) -> int:
    """How many a shard has; where only opening it would tell, as many as the largest has."""
    return getattr(shard, "count", MOST_IN_SHARD)


def rows_of(shard: Shard) -> Iterator[Row]:
    """The rows of a shard; where it is damaged, what is whole, and a last row that says so."""
    try:
        yield from shard.rows()
    except MissingPackageError:
        raise
    except (MaAgiqaError, OSError) as error:
        place = getattr(shard, "place", None)
        if place is None:
            raise
        yield Row(f"{place}::", None, error=first_line(error))


def shard_sizes(most: int = MOST_IN_SHARD) -> Iterator[int]:
    """How many pictures each shard has: few at first, so that few pictures keep many workers busy to the end."""
    before = 0
    while True:
        size = min(max(before // SHARE_OF_SHARD, FEWEST_IN_SHARD), most)
        yield size
        before += size


def in_shards(items: Iterable[Item], most: int = MOST_IN_SHARD) -> Iterator[Sequence[Item]]:
    """Items by `shard_sizes`."""
    items = iter(items)
    for size in shard_sizes(most):
        if not (chunk := list(islice(items, size))):
            return
        yield chunk


def text_of(value: Any) -> str | None:
    """A key or prompt as text; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
