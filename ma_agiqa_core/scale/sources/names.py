"""What a place is, by its name alone."""

import os
import re

TABLES = (".parquet", ".lance")
TARS = (".tar", ".tar.gz", ".tgz")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(place: str) -> bool:
    """Whether this is a URL, and no path of this machine."""
    return _URL.match(place) is not None


def is_tar(place: str) -> bool:
    """Whether a place is named like a tar file."""
    return place.lower().endswith(TARS)


def is_pattern(place: str) -> bool:
    """Whether a place has one of the signs of `glob`."""
    return any(sign in place for sign in "*?[")


def is_for_engines(place: str) -> bool:
    """Whether only `score_dataset` can read this: a URL, pattern, archive or table."""
    name = place.lower().rstrip("/")
    is_named_so = is_url(place) or is_tar(name) or name.endswith(TABLES)
    return is_named_so or (is_pattern(place) and not os.path.lexists(place))


def needs_network(place: str) -> bool:
    """Whether this is a URL that leads to another machine."""
    return is_url(place) and not place.lower().startswith(("file://", "memory://"))
