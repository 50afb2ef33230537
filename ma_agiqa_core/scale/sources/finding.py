"""From what a user names to shards: by what it is, by its name, and by what lies in it."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from ...errors import MaAgiqaError, MissingFileError
from ...pictures.folders import PICTURE_SUFFIXES, find_pictures
from ..places import found_at
from .names import TABLES, is_pattern, is_tar, is_url
from .objects import hugging_face_shards, is_daft, is_hugging_face, is_ray, row_shards
from .shard import Columns, PathShard, Shard, in_shards, shard_sizes
from .tables import lance_shards, parquet_shards
from .tars import TarShard


def find_shards(
    source: Any, columns: Columns, on_error: Callable[[OSError], None] = lambda error: None
) -> Iterator[Shard]:
    """The shards of a source, found while they are asked for.

    Args:
        source: A path, URL or pattern; several of them; or a data set of another library.
        columns: Of tables.
        on_error: Called with the error of a folder that cannot be listed.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There is nothing in it, or it is nothing that is known.
    """
    if is_hugging_face(source):
        return iter(hugging_face_shards(source, columns))
    if is_ray(source) or is_daft(source):
        return iter(row_shards(source.iter_rows(), columns))
    if isinstance(source, str | os.PathLike):
        source = [source]
    if not isinstance(source, Iterable):
        raise MaAgiqaError(
            f"Expected a folder, file, URL or data set as source, got {type(source).__name__}. Name a path."
        )
    places = [os.fspath(place) for place in source]
    if not places:
        raise MaAgiqaError("Expected a source with pictures, got an empty list.")
    found = _of_places(places, columns, on_error)
    first = next(found, None)
    if first is None:
        raise MaAgiqaError(f"Expected pictures in {', '.join(places)}, got none.")
    return chain([first], found)


def _of_places(places: Iterable[str], columns: Columns, on_error: Callable[[OSError], None]) -> Iterator[Shard]:
    for are_pictures, run in groupby(places, _is_picture_file):
        if are_pictures:  # many to a shard
            yield from _of_files(run, columns)
        else:
            yield from chain.from_iterable(_of_place(place, columns, on_error) for place in run)


def _of_place(place: str, columns: Columns, on_error: Callable[[OSError], None]) -> Iterator[Shard]:
    if is_url(place):
        yield from _of_url(place, columns)
        return
    if not os.path.lexists(place):
        if not is_pattern(place):
            raise MissingFileError(f"Expected a picture, folder or data set, got {place}, which does not exist.")
        matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - an absolute pattern
        if not matches:
            raise MissingFileError(f"Expected files that match {place}, got none.")
        yield from _of_files(matches, columns, on_error)
        return
    if os.path.isdir(place) and not place.rstrip("/").lower().endswith(".lance"):  # noqa: PTH112
        pictures = find_pictures([place], on_error=on_error)
        first = next(pictures, None)
        if first is None:  # shards of a data set, and nothing else
            yield from _of_files([str(path) for path in sorted(Path(place).rglob("*")) if _is_data_set(path)], columns)
            return
        yield from _of_paths(map(os.fspath, chain([first], pictures)))
        return
    yield from _of_files([place], columns, on_error)


def _of_files(
    places: Iterable[str], columns: Columns, on_error: Callable[[OSError], None] = lambda error: None
) -> Iterator[Shard]:
    pictures: list[str] = []
    sizes = shard_sizes()
    size = next(sizes)
    for place in places:
        name = place.lower().rstrip("/")
        if is_tar(name):
            yield TarShard(place)
        elif name.endswith(".parquet"):
            yield from parquet_shards(place, columns)
        elif name.endswith(".lance"):
            yield from lance_shards(place, columns)
        elif not is_url(place) and os.path.isdir(place):  # noqa: PTH112
            yield from _of_paths(map(os.fspath, find_pictures([place], on_error=on_error)))
        else:
            pictures.append(place)
            if len(pictures) >= size:
                yield PathShard(tuple(pictures))
                pictures, size = [], next(sizes)
    if pictures:
        yield PathShard(tuple(pictures))


def _of_url(url: str, columns: Columns) -> Iterator[Shard]:
    if url.lower().rstrip("/").endswith(".lance"):
        yield from lance_shards(url, columns)
        return
    if url.lower().startswith(("http://", "https://")) and not is_pattern(url):
        yield from _of_files([url], columns)
        return
    yield from _of_files((name for name in found_at(url) if _is_of_data(name)), columns)


def _of_paths(paths: Iterator[str]) -> Iterator[Shard]:
    yield from (PathShard(tuple(chunk)) for chunk in in_shards(paths))


def _is_picture_file(place: str) -> bool:
    return Path(place).suffix.lower() in PICTURE_SUFFIXES and os.path.isfile(place)  # noqa: PTH113


def _is_of_data(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_SUFFIXES or is_tar(name) or name.lower().endswith(TABLES)


def _is_data_set(path: Path) -> bool:
    return path.name[:1] not in "._" and (is_tar(path.name) or path.suffix.lower() in TABLES)
