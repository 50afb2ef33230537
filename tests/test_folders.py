"""Finding pictures, and copying them without overwriting."""

import os
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import pytest

from ma_agiqa_core.folders import PICTURE_SUFFIXES, copy_to_folder, find_pictures


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names_found(folder: Path, *paths: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_pictures(paths or [folder])]


def test_folder_is_walked_in_full_and_sorted(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a/2.JPG", "a/10.webp", "a/deep/er/x.tiff", "c/1.gif", "a.bmp")

    found = list(find_pictures([tmp_path]))

    assert found == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(found) == 6


def test_only_known_endings_and_nothing_hidden_inside_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "notes.txt", "png", ".hidden.png", ".git/b.png", ".png")

    assert names_found(tmp_path) == ["a.png"]


def test_named_file_is_found_whatever_it_is(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt", ".hidden.png")

    named = [tmp_path / "notes.txt", tmp_path / ".hidden.png"]
    assert list(find_pictures(named)) == named


def test_each_picture_once_and_order_as_given(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "sub/b.png", "sub/c.png")
    a, sub, b = tmp_path / "a.png", tmp_path / "sub", tmp_path / "sub" / "b.png"

    assert names_found(tmp_path, b, tmp_path, sub, a, b) == ["sub/b.png", "a.png", "sub/c.png"]
    assert names_found(tmp_path, sub, b, tmp_path) == ["sub/b.png", "sub/c.png", "a.png"]
    assert names_found(tmp_path, tmp_path / "sub" / ".." / "a.png", a) == ["sub/../a.png"]


def test_named_file_that_its_folder_does_not_yield_is_found_after_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "raw.data")

    assert names_found(tmp_path, tmp_path, tmp_path / "raw.data") == ["a.png", "raw.data"]


def test_missing_path_is_refused_before_the_first_picture(tmp_path: Path) -> None:
    make(tmp_path, "a.png")

    with pytest.raises(FileNotFoundError, match=r"Expected a picture or a folder, got .*nowhere"):
        find_pictures([tmp_path, tmp_path / "nowhere"])


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "same.png").symlink_to("2.png")

    assert names_found(tmp_path) == ["a/1.png", "b/2.png", "b/same.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_inside_folders_pipes_are_left_out_and_dangling_links_are_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")

    assert names_found(tmp_path) == ["gone.png", "loop.png"]


def test_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "private/b.png")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    errors: list[OSError] = []

    assert list(find_pictures([tmp_path], on_error=errors.append)) == [tmp_path / "a.png"]
    assert [Path(error.filename).name for error in errors] == ["private"]


def test_walk_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"{folder:03}/{i}.png" for folder in range(50) for i in range(2)))
    scandir = Mock(wraps=os.scandir)
    monkeypatch.setattr(os, "scandir", scandir)

    assert len(list(islice(find_pictures([tmp_path]), 4))) == 4
    assert scandir.call_count == 3  # the top and two folders


@pytest.mark.skipif(os.name == "nt", reason="Windows forbids most of these names")
@pytest.mark.parametrize("name", ["with space", "qu'ote\"s", "$(touch x)`;&|*?", "two\nlines", "猫 été Привет"])
def test_strange_names(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/{name}.png")

    assert list(find_pictures([tmp_path])) == [tmp_path / name / f"{name}.png"]


def test_copies_never_overwrite(tmp_path: Path) -> None:
    best = tmp_path / "best"
    best.mkdir()
    for folder in ("a", "b", "c"):
        make(tmp_path, f"{folder}/x.tar.png")
        (tmp_path / folder / "x.tar.png").write_text(folder)

    copies = [copy_to_folder(tmp_path / folder / "x.tar.png", best) for folder in ("a", "b", "c")]

    assert [copy.name for copy in copies] == ["x.tar.png", "x.tar (2).png", "x.tar (3).png"]
    assert [copy.read_text() for copy in copies] == ["a", "b", "c"]
    assert copy_to_folder(copies[0], best).name == "x.tar (4).png"


def test_suffixes_are_what_pillow_opens() -> None:
    import PIL.Image

    PIL.Image.init()
    assert set(PIL.Image.registered_extensions()) >= PICTURE_SUFFIXES - {
        ".avif",
        ".qoi",
        ".webp",
        ".jp2",
        ".j2k",
    }
