"""One picture of a source, and how its bytes are had: read once, whole, and told by their digest."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import PIL.Image

from ..errors import UnreadablePictureError
from ..pictures.inputs import Picture, decode, decode_bytes
from ..pictures.reading import pixel_count_of_bytes
from ..records.picture_state import DIGITS
from .places import read_url
from .sources.names import is_url

MOST_BYTES = 2**29  # of one picture's file
ATTEMPTS = 2  # at a file that changes while it is read

Locator: TypeAlias = str | bytes | np.ndarray | PIL.Image.Image | None
"""A path or URL, a picture's file in memory, a decoded picture, or nothing."""


@dataclass(frozen=True)
class Row:
    """One picture of a source.

    Attributes:
        key: What it is called, once in the source: resuming goes by it.
        picture: Where or what it is.
        prompt: What it was made from; None if the source does not say.
        error: Why `picture` is None.
        shard: Which shard it came from.
    """

    key: str
    picture: Locator
    prompt: str | None = None
    error: str | None = None
    shard: int = 0


@dataclass(frozen=True)
class DecodedRow:
    """A row with its pixels, or with the reason why there are none in `picture.error`."""

    row: Row
    picture: Picture
    digest: str | None


class RowToDecode:
    """A row on its way: fetched first, so that its size is known before it is decoded."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._content: bytes | None = None
        self._error = row.error

    def pixels(self) -> int:
        """Fetches the picture, and says how many pixels it will have."""
        source = self._row.picture
        if isinstance(source, PIL.Image.Image):
            return source.width * source.height
        if isinstance(source, np.ndarray) or source is None:
            return 0
        try:
            self._content = source if isinstance(source, bytes) else fetch(source)
        except UnreadablePictureError as error:
            self._error = str(error)
            return 0
        return pixel_count_of_bytes(self._content)

    def decoded(self) -> DecodedRow:
        """Needs `pixels` to have been called."""
        row, key = self._row, self._row.key
        content, self._content = self._content, None
        if self._error is not None:
            return DecodedRow(row, Picture(0, key, None, self._error), None)
        if content is not None:
            return DecodedRow(row, decode_bytes(content, 0, key), hashlib.sha256(content).hexdigest()[:DIGITS])
        if isinstance(row.picture, PIL.Image.Image | np.ndarray):
            return DecodedRow(row, _decoded(row.picture, key), None)
        return DecodedRow(row, Picture(0, key, None, "the source has no picture here"), None)


def _decoded(picture: np.ndarray | PIL.Image.Image, key: str) -> Picture:
    try:
        if isinstance(picture, np.ndarray):
            picture = PIL.Image.fromarray(picture) if picture.ndim == 2 else picture
        done = decode(picture)
    except (UnreadablePictureError, ValueError, TypeError) as error:
        return Picture(0, key, None, " ".join(str(error).split()))
    return Picture(0, key, done.pixels, done.error)


def fetch(place: str) -> bytes:
    """The bytes of a picture's file; a local one that changes while it is read is read once more.

    Raises:
        UnreadablePictureError: It cannot be read.
    """
    if is_url(place):
        return read_url(place, MOST_BYTES)
    for _ in range(ATTEMPTS):
        try:
            with open(place, "rb", opener=_without_waiting) as file:
                before = os.fstat(file.fileno())
                if stat.S_ISDIR(before.st_mode) or not stat.S_ISREG(before.st_mode):
                    raise UnreadablePictureError("not a regular file")
                if before.st_size > MOST_BYTES:
                    raise UnreadablePictureError(f"its file has more than {MOST_BYTES >> 20} MiB")
                content = file.read()
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            raise UnreadablePictureError("no such file") from None
        except IsADirectoryError:
            raise UnreadablePictureError("is a folder, not a picture") from None
        except OSError as error:
            raise UnreadablePictureError((error.strerror or str(error)).lower()) from error
        except ValueError as error:  # a NUL in its name
            raise UnreadablePictureError(str(error)) from error
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and len(content) == after.st_size:
            return content
    raise UnreadablePictureError("its file changes while it is read")


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe without waiting for its writer: it is refused then."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
