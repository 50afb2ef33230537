"""Pictures in folders: finding those a command line names, copying the best of them.

Files are found as given and folders in full, each picture once.
Memory grows with the number of folders and with the listings on the way down, not with the number of
pictures. A folder reached again, through a link or through its parent, is not entered again: links that
loop end. Two links to one file are two pictures.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import MissingFileError

# What Pillow opens without a plug-in and people keep pictures in.
# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on

_FolderId = tuple[int, int]  # device and inode


def find_pictures(
    paths: Iterable[str | os.PathLike[str]], *, on_error: Callable[[OSError], None] = lambda error: None
) -> Iterator[Path]:
    """Walks files and folders in the order given, each folder sorted by name.

    Args:
        paths: Files, found whatever their name, and folders, read recursively for names that end in one of
            `PICTURE_SUFFIXES` and do not start with a dot.
        on_error: Called with the error of a folder that cannot be listed, as in `os.walk`.

    Returns:
        The pictures one by one: the file given, or the folder given joined with what lies in it.

    Raises:
        FileNotFoundError: A path does not exist; raised at once, before the first picture.
    """
    given = [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise MissingFileError(f"Expected a picture or a folder, got {path}, which does not exist.")
    return _walk(given, on_error)


def _walk(given: list[Path], on_error: Callable[[OSError], None]) -> Iterator[Path]:
    entered: set[_FolderId] = set()
    named: set[tuple[_FolderId, str]] = set()  # files given outright
    for path in given:
        if path.is_dir():
            yield from _walk_folder(path, entered, named, on_error)
            continue
        folder = _identify(path.parent)
        was_found = folder in entered and _looks_like_picture(path.name)
        if not was_found and (folder, path.name) not in named:
            named.add((folder, path.name))
            yield path


def _walk_folder(
    top: Path,
    entered: set[_FolderId],
    named: set[tuple[_FolderId, str]],
    on_error: Callable[[OSError], None],
) -> Iterator[Path]:
    pending: list[tuple[Path, _FolderId | None]] = [(top, None)]  # a stack; a picture comes with its folder
    while pending:
        path, folder = pending.pop()
        if folder is not None:
            if (folder, path.name) not in named:
                yield path
            continue
        try:
            folder = _identify(path)
            if folder in entered:
                continue
            entered.add(folder)
            with os.scandir(path) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries if _is_wanted(entry)]
        except OSError as error:
            on_error(error)
            continue
        found.sort(reverse=True)
        pending.extend((path / name, None if is_folder else folder) for name, is_folder in found)


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    if _is_folder(entry):
        return not entry.name.startswith(".")
    return _looks_like_picture(entry.name) and _is_file_or_dangling(entry)


def _looks_like_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    """Not a pipe or a device, which may wait for ever; a link to nothing deserves its error record."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:
        return True


def _identify(folder: Path) -> _FolderId:
    status = folder.stat()
    return status.st_dev, status.st_ino


def copy_to_folder(picture: Path, folder: Path) -> Path:
    """Copies a picture under its own name, or with " (2)" and so on where that is taken; overwrites nothing.

    Returns:
        The copy.
    """
    number, name = 1, picture.name
    while True:
        try:
            copy = (folder / name).open("xb")
        except FileExistsError:
            number += 1
            name = f"{picture.stem} ({number}){picture.suffix}"
            continue
        with copy, picture.open("rb") as original:
            shutil.copyfileobj(original, copy)
        shutil.copystat(picture, folder / name)
        return folder / name
