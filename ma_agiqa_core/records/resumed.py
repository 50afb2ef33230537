"""Which records of an output a resumed run keeps: of this scorer, of the pictures as they are now, each once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import MaAgiqaError
from .picture_state import modified_at, picture_digest
from .record import Record, path_key, text_key, valid_text

_PART = 8  # bytes of a stamp for each of its three hashes: of the prompt, of the file's time and of its content
_UNKNOWN = b""  # the stamp of a record that says nothing of the picture's file
_KEPT = b"kept"


class ResumedRecords:
    """The scores that an output holds; 16 bytes a picture for its path, 24 for what it was scored as.

    Args:
        out: For messages.
        identity: The `model` of all records.
        former: What versions that wrote no `digest` called the same model; None if they cannot have meant it.
    """

    def __init__(self, out: Path, identity: str, former: str | None = None) -> None:
        self._out, self._identity, self._former = out, identity, former
        self._stamps: dict[bytes, bytes] = {}

    def __contains__(self, path: Path) -> bool:
        return _hash(path_key(path), 2 * _PART) in self._stamps

    def take(self, records: Iterable[Record]) -> None:
        """Learns what is there; where a picture was scored twice, the last time counts.

        Raises:
            ValueError: A record of another model, or of other settings.
        """
        for record in records:
            allowed = (self._identity, self._former) if record.digest is None else (self._identity,)
            if record.model not in allowed:
                raise MaAgiqaError(
                    f"Expected {self._out.name} to hold scores of {self._identity}, as this run makes, got "
                    f"{record.model}. Name another output, or leave out --resume to overwrite it."
                )
            if record.is_whole:
                self._stamps[_key_of(record)] = _stamp_of(record)

    def forget_changed(self, pictures: Iterable[Path], prompt_of: Callable[[Path], str | None]) -> None:
        """Of these pictures, forgets those whose file or prompt is another than was scored.

        A record that says nothing of its file, as older versions wrote them, stays. So does one for which there is no
        prompt any more: it cannot be scored again, and holds the prompt that it was scored with.
        """
        for picture in pictures:
            key = _hash(path_key(picture), 2 * _PART)
            stamp = self._stamps.get(key, _UNKNOWN)
            if stamp != _UNKNOWN and not _is_current(stamp, picture, prompt_of(picture)):
                del self._stamps[key]

    def kept(self, records: Iterable[Record]) -> Iterator[Record]:
        """Of the records taken before, those that stay."""
        for record in records:
            if record.is_whole and self._stamps.get(key := _key_of(record)) == _stamp_of(record):
                self._stamps[key] = _KEPT
                yield record


def _key_of(record: Record) -> bytes:
    return _hash(text_key(record.path), 2 * _PART)


def _stamp_of(record: Record) -> bytes:
    if record.digest is None:
        return _UNKNOWN
    return _part(record.prompt) + _part(record.modified) + _part(record.digest)


def _is_current(stamp: bytes, picture: Path, prompt: str | None) -> bool:
    """By the prompt and the time of its file, and only where this differs, as after copying, by what is in it."""
    scored_with, modified, digest = stamp[:_PART], stamp[_PART : 2 * _PART], stamp[2 * _PART :]
    if prompt != "" and scored_with != _part(prompt):
        return False
    try:
        return modified == _part(modified_at(picture)) or digest == _part(picture_digest(picture))
    except (OSError, ValueError):
        return False


def _part(text: str | None) -> bytes:
    return _hash(valid_text(text or ""), _PART)


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
