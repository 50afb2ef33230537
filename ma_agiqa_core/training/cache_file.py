"""A file of what is made of pictures, named by their state: written once, shared by runs and processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock


def cache_file(folder: Path, made_as: str, paths: Sequence[Path], write: Callable[[Path], object]) -> Path:
    """The file of these pictures, which is written first if it is not there.

    Args:
        folder: Created if missing.
        made_as: How it is made; part of its name with the paths, sizes and modification times of all pictures.
        paths: Of the pictures.
        write: Writes it, whole or not at all.

    Raises:
        OSError: It cannot be written, or a picture is not there.
    """
    digest = hashlib.sha256(f"{made_as}\n".encode())
    for path in paths:
        state = path.stat()
        digest.update(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest.hexdigest()[:32]}.npy"
    with FileLock(file.with_suffix(".lock")):  # of two runs one writes, the other waits
        if not file.is_file():
            write(file)
    return file
