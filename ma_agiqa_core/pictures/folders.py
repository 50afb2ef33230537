"""Pictures in folders: finding those a command line names, copying the best of them.

Files are found as given and folders in full, each picture once.
Memory grows with the number of folders and with the listings on the way down, not with the number of
pictures. A folder reached again, through a link or through its parent, is not entered again: links that
loop end. Two links to one file are two pictures.
"""

import filecmp
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import MaAgiqaError, MissingFileError
from .plug_ins import PLUG_INS

# What Pillow opens without a plug-in and people keep pictures in.
# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on

_FolderId = tuple[int, int]  # device and inode


def find_pictures(
    paths: Iterable[str | os.PathLike[str]],
    *,
    on_error: Callable[[OSError], None] = lambda error: None,
    leave_out: Path | None = None,
    on_left_out: Callable[[Path], None] = lambda path: None,
    on_other: Callable[[str], None] = lambda name: None,
) -> Iterator[Path]:
    """Walks files and folders in the order given, each folder sorted by name.

    Args:
        paths: Files, found whatever their name, and folders, read recursively for names that end in one of
            `PICTURE_SUFFIXES`, or in what an installed plug-in reads, and do not start with a dot.
        on_error: Called with the error of a folder that cannot be listed, as in `os.walk`.
        leave_out: A folder that is not entered, and whose files are not found either when they are named.
        on_left_out: Called with that folder, or a named file in it, where it is met.
        on_other: Called with the name of every file in a folder that is not found.

    Returns:
        The pictures one by one: the file given, or the folder given joined with what lies in it.

    Raises:
        FileNotFoundError: A path does not exist; raised at once, before the first picture.
    """
    given = [Path(path) for path in paths]
    for path in given:
        if _is_missing(path):
            raise MissingFileError(f"Expected a picture or a folder, got {path}, which does not exist.")
    return _Walk(on_error, leave_out, on_left_out, on_other).through(given)


class _Walk:
    """One walk through files and folders, and what it has found."""

    def __init__(
        self,
        on_error: Callable[[OSError], None],
        leave_out: Path | None,
        on_left_out: Callable[[Path], None],
        on_other: Callable[[str], None],
    ) -> None:
        self._on_error, self._on_left_out, self._on_other = on_error, on_left_out, on_other
        self._listed: set[_FolderId] = set()
        self._named: set[tuple[_FolderId | str, str]] = set()  # files given outright
        self._left_out = None
        if leave_out is not None:
            with suppress(OSError):  # not there yet
                self._left_out = _identify(leave_out)

    def through(self, given: Iterable[Path]) -> Iterator[Path]:
        for path in given:
            if os.path.isdir(path):  # noqa: PTH112 - the method of Path raises where a folder above is locked
                yield from self._folder(path)
                continue
            folder: _FolderId | str
            try:
                folder = _identify(path.parent)
            except OSError:  # locked; the file's own record says so
                folder = str(path.parent)
            name = os.path.normcase(path.name)
            was_found = folder in self._listed and _looks_like_picture(path.name) and _may_be_read(path)
            if folder == self._left_out:
                self._on_left_out(path)
            elif not was_found and (folder, name) not in self._named:
                self._named.add((folder, name))
                yield path

    def _folder(self, top: Path) -> Iterator[Path]:
        pending: list[tuple[Path, _FolderId | None]] = [(top, None)]  # a stack; a picture comes with its folder
        while pending:
            path, folder = pending.pop()
            if folder is not None:
                if (folder, os.path.normcase(path.name)) not in self._named:
                    yield path
                continue
            try:
                folder = _identify(path)
                if folder == self._left_out:
                    self._on_left_out(path)
                    continue
                if folder in self._listed:
                    continue
                with os.scandir(path) as entries:
                    found = [(entry.name, _is_folder(entry)) for entry in entries if self._wants(entry)]
            except OSError as error:
                self._on_error(error)
                continue
            self._listed.add(folder)  # only now: a file named in a folder that cannot be listed is not lost
            found.sort(reverse=True)
            pending.extend((path / name, None if is_folder else folder) for name, is_folder in found)

    def _wants(self, entry: os.DirEntry[str]) -> bool:
        if _is_folder(entry):
            return not entry.name.startswith(".")
        if _looks_like_picture(entry.name) and _may_be_read(Path(entry.path)):
            return True
        self._on_other(entry.name)
        return False


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:  # it may be there: locked, a link to itself
        return False
    return False


def _looks_like_picture(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    if name.startswith(".") or not suffix:
        return False
    return suffix in PICTURE_SUFFIXES or any(
        suffix in plug_in.suffixes and plug_in.is_installed for plug_in in PLUG_INS
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_read(path: Path) -> bool:
    """Not a pipe or a device, which may wait for ever; a link to nothing deserves its error record."""
    try:
        return path.is_file() or not path.exists()
    except OSError:
        return True


def _identify(folder: Path) -> _FolderId:
    status = folder.stat()
    return status.st_dev, status.st_ino


def copy_to_folder(picture: Path, folder: Path) -> Path:
    """Copies a picture under its own name, or with " (2)" and so on where that is taken; overwrites nothing.

    Where a copy with equal content is there under one of these names, no other one is made.

    Returns:
        The copy.

    Raises:
        MaAgiqaError: It cannot be copied; nothing is left of it.
    """
    try:
        number, name = 1, picture.name
        while True:
            try:
                copy = (folder / name).open("xb")
            except FileExistsError:
                if _is_equal(picture, folder / name):
                    return folder / name
                number += 1
                name = f"{picture.stem} ({number}){picture.suffix}"
                continue
            _fill(copy, picture, folder / name)
            return folder / name
    except OSError as error:
        raise MaAgiqaError(f"Expected to copy {picture} to {folder}, got: {error.strerror or error}.") from error


def _is_equal(picture: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(picture, other, shallow=False)
    except FileNotFoundError:
        if not picture.exists():
            raise
        return False  # a link to nothing


def _fill(copy: BinaryIO, picture: Path, path: Path) -> None:
    try:
        with copy, picture.open("rb") as original:
            shutil.copyfileobj(original, copy)
    except BaseException:  # half a copy would pass for a picture
        path.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # times and rights, which not every disk can hold
        shutil.copystat(picture, path)
