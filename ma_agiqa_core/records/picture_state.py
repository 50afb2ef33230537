"""What a picture's file was when it was scored, so that another picture under the same name can be told."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIGITS = 16  # of the SHA-256 of a file


@dataclass(frozen=True)
class PictureState:
    """A picture's file at one moment.

    Attributes:
        modified: When it last changed, in UTC.
        digest: The first digits of its SHA-256.
    """

    modified: str
    digest: str


def picture_state(path: str | os.PathLike[str]) -> PictureState | None:
    """The state of a file; None if it is no file, or cannot be read."""
    try:
        # In this order: a file written in between gets an old time, and is found to differ.
        modified = modified_at(path)
        return None if modified is None else PictureState(modified, picture_digest(path))
    except (OSError, ValueError):  # a name with a NUL in it is a ValueError
        return None


def modified_at(path: str | os.PathLike[str]) -> str | None:
    """When a file last changed, e.g. "2025-07-01T12:00:00.123456Z"; None if it is no regular file.

    Where the system tells it, this is the time of the last change of any kind, which no program sets back.

    Raises:
        OSError: There is no such file.
    """
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would empty it
        return None
    nanoseconds = found.st_mtime_ns if os.name == "nt" else found.st_ctime_ns  # there it is when the file was made
    return f"{np.datetime64(nanoseconds // 1000, 'us')}Z"


def picture_digest(path: str | os.PathLike[str]) -> str:
    """The first digits of a file's SHA-256.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:DIGITS]
