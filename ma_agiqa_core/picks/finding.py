"""The files of picked pictures: where they were, or, where they were moved, by the digest of their content."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..pictures.folders import find_pictures
from ..records.picture_state import picture_digest
from ..records.record import path_from_text
from .pick import PickedPicture


@dataclass(frozen=True)
class Found:
    """Where picked pictures are.

    Attributes:
        paths: By picture its file.
        moved: Those that were found by their digest alone.
        missing: Those that are nowhere, or whose file now holds something else.
    """

    paths: Mapping[PickedPicture, Path]
    moved: tuple[PickedPicture, ...]
    missing: tuple[PickedPicture, ...]


def find_picked(pictures: Iterable[PickedPicture], bases: Sequence[Path] = (), search: Sequence[Path] = ()) -> Found:
    """Finds the files of picked pictures.

    Args:
        pictures: Any, also several times.
        bases: Folders that a relative path may be relative to, the first one that has it; the working directory too.
        search: Folders in which moved pictures are looked for, with all that is in them. Without: the bases, and the
            folders in which other pictures were found, each without its subfolders.

    Returns:
        Each picture once. A picture without a digest is taken for what lies under its path.
    """
    digests = _Digests()
    paths: dict[PickedPicture, Path] = {}
    lost: list[PickedPicture] = []
    for picture in dict.fromkeys(pictures):
        places = [base / path_from_text(picture.path) for base in (*bases, Path())]
        at = next((place for place in places if place.is_file() and digests.match(place, picture.digest)), None)
        if at is None:
            lost.append(picture)
        else:
            paths[picture] = at
    moved = []
    known = [picture for picture in lost if picture.digest is not None]
    if known:
        nearby = dict.fromkeys([*bases, *(path.parent for path in paths.values())])
        places = list(find_pictures(folder for folder in search if folder.exists()))
        places += [file for folder in nearby for file in _files(folder)]
        by_digest = {digest: place for place in reversed(places) if (digest := digests.of(place)) is not None}
        for picture in known:
            place = next((at for digest, at in by_digest.items() if _is_same(digest, picture.digest)), None)
            if place is not None:
                paths[picture] = place
                moved.append(picture)
    return Found(paths, tuple(moved), tuple(picture for picture in lost if picture not in paths))


@dataclass
class _Digests:
    """Digests of files, each computed once."""

    known: dict[Path, str | None] = field(default_factory=dict)

    def of(self, path: Path) -> str | None:
        if path not in self.known:
            try:
                self.known[path] = picture_digest(path)
            except OSError:
                self.known[path] = None
        return self.known[path]

    def match(self, path: Path, digest: str | None) -> bool:
        return digest is None or _is_same(self.of(path) or "", digest)


def _is_same(digest: str, other: str | None) -> bool:
    """Whether one of them begins with the other: programs write more or fewer digits."""
    return bool(digest) and other is not None and (digest.startswith(other) or other.startswith(digest))


def _files(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()]
    except OSError:
        return []
