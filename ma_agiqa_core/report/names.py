"""File names as text a person can read, and as links a browser can follow."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

JOINERS = "\u200c\u200d"  # invisible, but Persian words and joined emoji need them


def readable(text: str) -> str:
    """One line of valid Unicode: undecodable bytes, control and direction characters become escapes."""
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace") if _holds_surrogates(text) else text
    return "".join(c if c.isprintable() or c in JOINERS else ascii(c)[1:-1] for c in decoded)


def file_link(path: str, folder: Path) -> str:
    """A link to a picture that still holds when the report and the pictures move together.

    Args:
        path: the picture, absolute or relative to the working directory.
        folder: where the report lies.
    """
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive on Windows
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def shared_folder(paths: Sequence[str]) -> str:
    """The deepest folder that holds all paths, or "" where there is none."""
    try:
        return os.path.commonpath([Path(path).parent for path in paths])
    except ValueError:  # no paths, or absolute and relative ones mixed, or several drives
        return ""


def name_within(path: str, folder: str) -> str:
    """The path as seen from `folder`; unchanged when `folder` is ""."""
    return os.path.relpath(path, folder) if folder else path


def _holds_surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)
