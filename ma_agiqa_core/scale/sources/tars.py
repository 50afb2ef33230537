"""WebDataset: tar files whose members of one name, up to the first dot, are one sample.

Nothing is unpacked: members are read in the order in which they lie there, links and devices are passed over, and
their names are only ever part of a key.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...errors import MaAgiqaError, MissingFileError, first_line
from ...pictures.folders import PICTURE_SUFFIXES
from ..places import opened_store
from ..rows import MOST_BYTES, Row
from .names import is_url

MOST_TEXT = 2**20  # bytes of a prompt
_ATTRIBUTES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_TEXTS = ("txt", "caption", "prompt")


@dataclass(frozen=True)
class TarShard:
    """One tar file."""

    place: str

    def rows(self) -> Iterator[Row]:
        """Samples with a picture; the key is the tar's place, `::`, and the sample's name.

        Raises:
            ValueError: It is no tar file.
        """
        try:
            with _opened(self.place) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive:
                yield from self._rows(archive)
        except MaAgiqaError:
            raise
        except Exception as error:  # over damaged files tarfile raises nearly every kind
            raise MaAgiqaError(f"Expected a whole tar file, got {self.place}: {first_line(error)}") from error

    def _rows(self, archive: tarfile.TarFile) -> Iterator[Row]:
        name: str | None = None
        row: Row | None = None
        prompt: str | None = None
        try:
            for member in archive:
                if not member.isreg():
                    continue
                sample, ending = _split(member.name)
                if sample != name:
                    if row is not None:
                        yield _with_prompt(row, prompt)
                    name, row, prompt = sample, None, None
                if f".{ending.rpartition('.')[2]}" in PICTURE_SUFFIXES:
                    if row is not None:  # a second picture of one sample has a key of its own
                        yield _with_prompt(row, prompt)
                        row = _row(archive, member, f"{self._key(member.name)}")
                    else:
                        row = _row(archive, member, self._key(sample))
                elif ending in (*_TEXTS, "json") and member.size <= MOST_TEXT:
                    prompt = _prompt(_read(archive, member), ending) or prompt
        except Exception:  # the archive is damaged from here on: what came before is whole
            if row is not None:
                yield _with_prompt(row, prompt)
            raise
        if row is not None:
            yield _with_prompt(row, prompt)

    def _key(self, name: str) -> str:
        from ...records.record import path_key

        return f"{self.place if is_url(self.place) else path_key(self.place)}::{name}"


class _Member(tarfile.TarInfo):
    """A member whose long name, or other attributes, do not fill the memory: tarfile reads those whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _ATTRIBUTES and member.size > MOST_TEXT:
            raise tarfile.ReadError(f"attributes of {member.size >> 20} MiB")
        return member


def _split(name: str) -> tuple[str, str]:
    folder, base = str(PurePosixPath(name).parent), PurePosixPath(name).name
    stem, _, ending = base.partition(".")
    return (stem if folder == "." else f"{folder}/{stem}"), ending.lower()


def _row(archive: tarfile.TarFile, member: tarfile.TarInfo, key: str) -> Row:
    if member.size > MOST_BYTES:
        return Row(key, None, error=f"its file has more than {MOST_BYTES >> 20} MiB")
    return Row(key, _read(archive, member))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _prompt(content: bytes, ending: str) -> str | None:
    text = content.decode("utf-8", "replace").strip()
    if ending != "json":
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    prompt = found.get("prompt", found.get("caption"))
    return prompt if isinstance(prompt, str) else None


def _with_prompt(row: Row, prompt: str | None) -> Row:
    return Row(row.key, row.picture, prompt, row.error)


@contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    if not is_url(place):
        if not Path(place).exists():
            raise MissingFileError(f"Expected a tar file, got {place}, which does not exist.")
        with Path(place).open("rb") as file:
            yield file
        return
    system, path = opened_store(place)
    remote: Any = system.open(path, "rb")
    with remote:
        yield remote
