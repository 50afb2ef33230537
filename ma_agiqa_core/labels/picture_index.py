"""Pictures of a folder, found by what a table of labels may call them."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from ..errors import MaAgiqaError
from ..pictures.folders import PICTURE_SUFFIXES, find_pictures


class PictureIndex:
    """Pictures of a folder by what a table may call them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = list(find_pictures([folder]))
        self._by_path = {path.relative_to(folder).as_posix(): path for path in found}
        self._by_name = _grouped((path.name, path) for path in found)
        self._by_stem = _grouped((path.stem, path) for path in found)

    @cached_property
    def _by_whole_path(self) -> dict[Path, Path]:
        """Absolute paths lead to the folder's own, so that a picture is one however the table writes it."""
        return {path.resolve(): path for path in self._by_path.values()}

    @property
    def example(self) -> str | None:
        """What a picture of the folder is called; None if there is none."""
        return next(iter(self._by_path), None)

    def count_without(self, paths: Iterable[Path]) -> int:
        """How many there are besides those."""
        return len(set(self._by_path.values()) - set(paths))

    def find(self, called: str, place: str) -> Path | None:
        """The picture that a table calls so, or None.

        Args:
            called: A path in the folder, or the name of one file anywhere in it, with or without its ending; or the
                path of a file elsewhere.
            place: In the table, for the message.

        Raises:
            ValueError: Several pictures are called so.
        """
        if "\\" in called and called not in self._by_path and called not in self._by_name:
            called = called.replace("\\", "/")  # as written on Windows
        called = called.removeprefix("./")
        if called in self._by_path:
            return self._by_path[called]
        given = self._folder / called
        if "/" in called and given.is_file():  # absolute, or outside of the folder
            return self._by_whole_path.get(given.resolve(), given)
        is_whole = Path(called).suffix.lower() in PICTURE_SUFFIXES
        candidates = (self._by_name if is_whole else self._by_stem).get(called, [])
        if len(candidates) > 1:
            raise MaAgiqaError(
                f"Expected one picture called {called!r} ({place}) in {self._folder}, got {len(candidates)}: "
                f"{candidates[0]} and {candidates[1]}. Write the path within the folder."
            )
        return candidates[0] if candidates else None


def _grouped(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for key, path in pairs:
        groups.setdefault(key, []).append(path)
    return groups
