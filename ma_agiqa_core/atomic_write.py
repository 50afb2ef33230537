"""Files that appear whole or not at all, and what keeps them from being written."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import MaAgiqaError, MissingFileError


@contextmanager
def atomic_write(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or vanishes if anything is raised.

    It gets the permissions of any new file, also where safetensors wrote it, whose own files only their owner may read.

    Args:
        path: The file.
        is_shared: Several processes may write it at the same time, and the last one wins. Each then has a temporary
            file of its own; where a process is killed that file stays, while one of a fixed name is written again.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp" if is_shared else path.name + ".tmp")
    try:
        temporary.write_bytes(b"")
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def check_can_write(file: Path, *, makes_folder: bool = False) -> None:
    """Refuses a file now that cannot be written later, after hours of work for it.

    Args:
        file: What is to be written.
        makes_folder: Missing folders are made when it is written.

    Raises:
        FileNotFoundError: Its folder does not exist.
        ValueError: It is a folder, it may not be written, or nothing can be written beside it.
    """
    if file.is_dir():
        raise MaAgiqaError(f"Expected a file to write, got the folder {file}. Name a file in it.")
    if not makes_folder and not file.parent.exists():
        raise MissingFileError(f"Expected an existing folder for {file.name}, got {file.parent}. Create it first.")
    if file.exists() and not (os.access(file, os.W_OK) and file.stat().st_mode & 0o222):  # root may write them all
        raise MaAgiqaError(f"Expected a file that can be written, got {file}, which is read-only. Name another.")
    check_can_write_in(file.parent, file)


def check_can_write_in(folder: Path, what: Path | None = None) -> None:
    """Refuses a folder in which no file can be made; of one that does not exist, the nearest above it that does.

    Args:
        folder: Where something is to be written.
        what: The path to name in the message; None names the folder.

    Raises:
        ValueError: It is a file, or may not be written.
    """
    what = folder if what is None else what
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise MaAgiqaError(f"Expected a folder, got {folder} in {what}, which is a file. Name another place.")
    probe = folder / ".ma-agiqa-probe.tmp"  # always this one, so that what a kill leaves is gone after the next run
    try:  # asking for permissions says little on Windows and on network drives
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have been faster
    except OSError as error:
        raise MaAgiqaError(
            f"Expected a place that can be written, got {what}: {folder} says {error.strerror}. Name another."
        ) from error
