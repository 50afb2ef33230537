"""What a person reads of a picture: its name, its score and percentile; and the link that a browser follows."""

import math
import os
from collections.abc import Iterable, Sequence
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


def decimals_for(span: float) -> int:
    """Decimals that make three digits of a range: 0.713 of 0..1, 3.14 of 1..5, 71.3 of 0..100; 3 without a range."""
    return min(max(3 - math.ceil(math.log10(span)), 0), 4) if math.isfinite(span) and span > 0 else 3


def decimals_of(scores: Iterable[float]) -> int:
    """`decimals_for` the range of these scores; those that are not finite do not count."""
    finite = [score for score in scores if math.isfinite(score)]
    return decimals_for(max(finite) - min(finite) if finite else 0)


def better_than(percentile: float | None) -> int | None:
    """A percentile as whole per cent, rounded down: 99.9 is not yet "better than 100 %"."""
    return None if percentile is None else math.floor(percentile)


def _holds_surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)
