"""Semantic vectors of pictures already seen, one small file each.

An entry is found by what it was computed from, so it is never stale: the picture's pixels, the language model and
its precision, and the question. It appears whole (written beside its place, then moved there) and is read only
if its length and its checksum are right, so any number of threads and processes may share a folder.

    b"MAQASEM1"   D as uint32   D values as float32   SHA-256 of all before       all little endian
"""

import errno
import hashlib
import logging
import os
import struct
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arguments.options import expanded
from ..errors import MaAgiqaError
from ..preprocess import to_bytes

logger = logging.getLogger(__name__)

MAGIC = b"MAQASEM1"  # of the file's layout
KEY_VERSION = "2"  # of what goes into a key, and how; under 1 the caller's autocast was in the vectors, unrecorded
MOVE_ATTEMPTS, MOVE_PAUSE_S = 10, 0.01
_HEADER = struct.Struct("<8sI")
_CHECKSUM_BYTES = hashlib.sha256().digest_size


class SemanticCache:
    """A folder of vectors.

    Args:
        folder: Made by `check_writable`, or when the first vector is written.

    Example:
        >>> import tempfile
        >>> key = SemanticCache.key(torch.zeros(3, 8, 8), "some/model@1", "Is it sharp?")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = SemanticCache(folder)
        ...     cache.put(key, torch.ones(2))
        ...     cache.get(key)
        tensor([1., 1.])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)

    @staticmethod
    def key(pixels: Tensor, model_identity: str, question: str) -> str:
        """Under what the answer to one question about one picture is kept.

        Args:
            pixels: (3, H, W) RGB, uint8 or float in [0, 1], which counts as its rounded 8-bit picture.
            model_identity: All of the model that changes its vectors: weights, precision, quantization.
            question: Its text.

        Returns:
            64 hexadecimal digits.
        """
        return SemanticCache.keys(pixels, model_identity, {"": question})[""]

    @staticmethod
    def keys(pixels: Tensor, model_identity: str, questions: Mapping[str, str]) -> dict[str, str]:
        """`key` of several questions by name, with the picture read once."""
        rgb = np.ascontiguousarray(to_bytes(pixels).movedim(0, -1).cpu().numpy())  # how decoded pictures lie in memory
        of_picture = hashlib.sha256(f"{KEY_VERSION} {rgb.shape}\n".encode())
        of_picture.update(rgb.data)
        keys = {}
        for name, question in questions.items():
            digest = of_picture.copy()
            for text in (model_identity, question):
                encoded = text.encode()
                digest.update(struct.pack("<Q", len(encoded)) + encoded)  # with lengths, so that no two pairs agree
            keys[name] = digest.hexdigest()
        return keys

    def check_writable(self) -> None:
        """Makes the folder: said before anything costly is computed for it that it cannot be written.

        Raises:
            OSError: It is a file, or may not be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
        except OSError as error:
            raise self._not_writable(error) from error

    def get(self, key: str) -> Tensor | None:
        """The vector (D,) float32 on the CPU; None if there is none, or only a damaged file."""
        path = self._path(key)
        try:
            entry = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            logger.warning("cannot read %s (%s): computed again", path, error)
            return None
        vector = _decoded(entry)
        if vector is None:
            logger.warning("%s is damaged (%d bytes): computed again", path, len(entry))
        return vector

    def put(self, key: str, vector: Tensor) -> None:
        """Keeps a vector; another under the same key is replaced.

        Args:
            key: From `key`.
            vector: (D,) of any float type and on any device, kept as float32.

        Raises:
            ValueError: Not a vector, or values that are not finite as float32.
            OSError: The folder cannot be written.
        """
        values = vector.detach().to("cpu", torch.float32)
        if values.ndim != 1 or not len(values):
            raise MaAgiqaError(f"Expected a vector (D,), got shape {tuple(vector.shape)}. Put vectors in one by one.")
        if bad := int((~values.isfinite()).sum()):
            raise MaAgiqaError(
                f"Expected finite values, got {bad} of {len(values)} that are NaN or infinite in {vector.dtype}. "
                "Compute the vector in bfloat16 or float32."
            )
        try:
            self._write(self._path(key), _encoded(values), key)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> OSError:
        reason = "a file" if isinstance(error, FileExistsError) else error.strerror or error
        return OSError(
            f"Expected a folder to write semantic vectors to, got {str(self.folder)!r}: {reason}. "
            "Choose another with cache=FOLDER (on the command line --cache)."
        )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:4] / key[4:]

    def _write(self, path: Path, entry: bytes, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # every writer has its own
        try:
            temporary.write_bytes(entry)
            self._move(temporary, path, key)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _move(self, temporary: Path, path: Path, key: str) -> None:
        """Windows moves nothing onto a file that somebody has open: it is moved later, or that file will do."""
        for attempts_left in reversed(range(MOVE_ATTEMPTS)):
            try:
                temporary.replace(path)
                return
            except PermissionError:
                if self.get(key) is not None:  # what stands under the same key says the same
                    return
                if not attempts_left:
                    raise
                time.sleep(MOVE_PAUSE_S)


def _encoded(values: Tensor) -> bytes:
    entry = _HEADER.pack(MAGIC, len(values)) + values.numpy().astype("<f4").tobytes()
    return entry + hashlib.sha256(entry).digest()


def _decoded(entry: bytes) -> Tensor | None:
    """The vector in a file's bytes; None unless all of them are as they were written."""
    content, checksum = entry[:-_CHECKSUM_BYTES], entry[-_CHECKSUM_BYTES:]
    if len(content) <= _HEADER.size or hashlib.sha256(content).digest() != checksum:
        return None
    magic, length = _HEADER.unpack_from(content)
    if magic != MAGIC or len(content) != _HEADER.size + 4 * length:
        return None
    return torch.from_numpy(np.frombuffer(content, "<f4", offset=_HEADER.size).astype(np.float32))
