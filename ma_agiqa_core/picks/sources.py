"""Picks from all that people have: picks.json, folders of what they kept and threw away, and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import MaAgiqaError, MissingFileError
from ..pictures.folders import find_pictures
from ..records.record import path_text
from ..records.spreadsheets import PICTURE_COLUMNS, PROMPT_COLUMNS, Table, read_table
from .pick import Mark, Pair, PickedPicture, Picks, Rating
from .picks_file import read_picks

BETTER, WORSE = "better", "worse"
RATINGS = ("rating", "score", "mos", "stars")
_WANTED = "Use the columns better and worse, or path and rating (and prompt, where it is known)."


def read_source(file: Path) -> Picks:
    """Reads a picks.json, or a table of pairs or of ratings (see `read_table`).

    Args:
        file: JSON that is an object with picks, or a table with the columns `better` and `worse`, or `path` and
            `rating`; either with `prompt` where it is known.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither, or a row is none; the message has its number.
    """
    if not file.exists():
        raise MissingFileError(f"Expected picks, got {file}: no such file.")
    if file.is_dir():
        raise MaAgiqaError(
            f"Expected a file of picks, got the folder {file}. Say what is in it: --liked {file}, or --disliked {file}."
        )
    if file.suffix.lower() == ".json" and not _is_list(file):
        return read_picks(file)
    table = read_table(file, "picks", usual=(".json", ".csv"), text_columns=(*PICTURE_COLUMNS, *PROMPT_COLUMNS))
    better, worse = table.first_column(BETTER), table.first_column(WORSE)
    if better is not None and worse is not None:
        return _pairs(table, better, worse)
    path, rating = table.first_column("path", *PICTURE_COLUMNS), table.first_column(*RATINGS)
    if path is None or rating is None:
        raise MaAgiqaError(f"Expected picks in {file}, got a table with {', '.join(table.columns)}. {_WANTED}")
    return _ratings(table, path, rating)


def marks_of_folders(liked: Sequence[Path], disliked: Sequence[Path]) -> Picks:
    """A like for every picture in some folders, a dislike for every one in others.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A picture is in both, or a folder has none.
    """
    found: dict[bool, list[Path]] = {}
    for is_liked, folders in ((True, liked), (False, disliked)):
        found[is_liked] = list(find_pictures(folders))
        for folder in folders:
            if next(find_pictures([folder]), None) is None:
                raise MaAgiqaError(f"Expected pictures in {folder}, got none. Name another folder.")
    both = {path.resolve() for path in found[True]} & {path.resolve() for path in found[False]}
    if both:
        raise MaAgiqaError(
            f"Expected each picture liked or disliked, got {len(both)} in both, e.g. {min(both)}. Name folders that "
            "are not inside each other."
        )
    marks = [
        Mark(PickedPicture(path_text(path.absolute())), is_liked) for is_liked, paths in found.items() for path in paths
    ]
    return Picks(tuple(marks))


def _is_list(file: Path) -> bool:
    return file.read_bytes().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _pairs(table: Table, better: str, worse: str) -> Picks:
    prompt = table.first_column(*PROMPT_COLUMNS)
    pairs = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        if not row[better] or not row[worse]:
            got = row[better] or row[worse]
            raise MaAgiqaError(f"Expected two pictures in row {number} of {table.path}, got {got!r} alone.")
        text = (row[prompt] or None) if prompt else None
        pairs.append(Pair(PickedPicture(row[better], None, text), PickedPicture(row[worse], None, text)))
    return Picks(pairs=tuple(pairs))


def _ratings(table: Table, path: str, rating: str) -> Picks:
    prompt = table.first_column(*PROMPT_COLUMNS)
    ratings = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        place = f"row {number} of {table.path}"
        if not row[path]:
            raise MaAgiqaError(f"Expected a picture's path in {place}, got none.")
        try:
            value = float(row[rating])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise MaAgiqaError(f"Expected a number as {rating} in {place}, got {row[rating]!r}. Take the row out.")
        picture = PickedPicture(row[path], None, (row[prompt] or None) if prompt else None)
        ratings.append(Rating(picture, value))
    return Picks(ratings=tuple(ratings))
