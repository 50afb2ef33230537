"""Places that are no local paths: URLs, read through fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import MaAgiqaError, MissingPackageError, UnreadablePictureError, first_line

STORES = frozenset(
    ["abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "http", "https", "memory", "oss", "r2", "s3", "s3a"]
)
"""What a row of a source may name: neither local files nor chains of file systems, which fsspec would follow."""


def read_url(url: str, most: int) -> bytes:
    """What a row's URL leads to.

    Raises:
        UnreadablePictureError: It cannot be read, it is no URL of a store, or it has more than `most` bytes.
    """
    store = url.partition("://")[0].lower()
    if store not in STORES or "::" in url:
        raise UnreadablePictureError(f"its place is no URL of a store: {store}")
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            content = file.read(most + 1)
    except ImportError as error:
        raise MissingPackageError(
            f"Expected the packages that read {store}://, got none: {first_line(error)}"
        ) from error
    except FileNotFoundError:
        raise UnreadablePictureError("no such file") from None
    except Exception as error:  # every store has its own
        raise UnreadablePictureError(
            f"cannot be fetched: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if len(content) > most:
        raise UnreadablePictureError(f"its file has more than {most >> 20} MiB")
    return content


def found_at(url: str) -> Iterator[str]:
    """The URLs of all files at a URL: itself, what is below it, or what a pattern in it matches; sorted.

    Raises:
        ValueError: Nothing is there, or the store cannot be reached.
    """
    system, path = opened_store(url)
    try:
        if any(sign in path for sign in "*?["):
            names = system.glob(path)
        else:
            names = system.find(path) if system.isdir(path) else [path] if system.exists(path) else []
    except Exception as error:
        raise MaAgiqaError(f"Expected to list {url}, got an error: {first_line(error)}") from error
    if not names:
        raise MaAgiqaError(f"Expected files at {url}, got none.")
    yield from (system.unstrip_protocol(name) for name in sorted(names))


def opened_store(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        ImportError: Packages are missing for it; the message holds their names.
        ValueError: There is no such kind of store.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(f"Expected the packages that read {url}, got none: {first_line(error)}") from error
    except Exception as error:
        raise MaAgiqaError(f"Expected a URL that fsspec can open, got {url}: {first_line(error)}") from error
