"""Finding pictures, and copying them without overwriting."""

import os
import shutil
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.pictures.folders import PICTURE_SUFFIXES, copy_to_folder, find_pictures


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
    assert [copy_to_folder(tmp_path / folder / "x.tar.png", best) for folder in ("a", "b", "c")] == copies
    assert copy_to_folder(copies[0], best) == copies[0]
    assert len(list(best.iterdir())) == 3


def test_a_copy_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "best/other.png")
    monkeypatch.setattr(shutil, "copyfileobj", Mock(side_effect=OSError(28, "No space left on device")))

    with pytest.raises(MaAgiqaError, match=r"a\.png to .*best, got: No space left on device"):
        copy_to_folder(tmp_path / "a.png", tmp_path / "best")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["other.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_name_taken_by_a_folder_or_a_link_to_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "best/a.png/x")
    (tmp_path / "best" / "a (2).png").symlink_to("nowhere")

    assert copy_to_folder(tmp_path / "a.png", tmp_path / "best").name == "a (3).png"


@pytest.mark.parametrize("form", ["absolute", "relative", "through a link"])
def test_pictures_in_the_folder_left_out_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    make(tmp_path, "a.png", "best/a.png", "best/deep/b.png", "sub/best/c.png")
    monkeypatch.chdir(tmp_path)
    left_out = {"absolute": tmp_path / "best", "relative": Path("sub/../best"), "through a link": tmp_path / "link"}
    if form == "through a link":
        if os.name == "nt":
            pytest.skip("links need rights on Windows")
        (tmp_path / "link").symlink_to("best")
    for paths in ([tmp_path], [Path()], [tmp_path, Path("best"), Path("best/a.png")]):
        found = [path.resolve() for path in find_pictures(paths, leave_out=left_out[form])]
        assert found == [tmp_path / "a.png", tmp_path / "sub" / "best" / "c.png"]


def test_a_folder_left_out_leaves_out_nothing_above_or_below_that_was_named(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "sub/b.png")

    assert list(find_pictures([tmp_path / "sub"], leave_out=tmp_path)) == [tmp_path / "sub" / "b.png"]
    assert list(find_pictures([tmp_path], leave_out=tmp_path / "not there")) == [
        tmp_path / "a.png",
        tmp_path / "sub" / "b.png",
    ]


@pytest.mark.parametrize("order", [("locked", "locked/a.png"), ("locked/a.png", "locked"), (".", "locked/a.png")])
def test_a_file_named_in_a_folder_that_cannot_be_listed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    make(tmp_path, "locked/a.png", "locked/b.png")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)

    assert names_found(tmp_path, *(tmp_path / name for name in order)) == ["locked/a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_file_that_its_folder_does_not_yield_is_not_dropped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")

    assert names_found(tmp_path, tmp_path, tmp_path / "pipe.png") == ["pipe.png"]


def test_a_path_that_cannot_be_looked_at_gets_its_record(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 300 + ".png")  # too long a name: an OSError of every system call

    assert list(find_pictures([path])) == [path]


def test_other_files_are_told(tmp_path: Path) -> None:
    make(tmp_path, "a.HEIC", "b.heic", "sub/c.txt", "d.png", "Makefile")
    others: list[str] = []

    assert list(find_pictures([tmp_path, tmp_path / "d.png"], on_other=others.append)) == [tmp_path / "d.png"]
    assert sorted(others) == ["Makefile", "a.HEIC", "b.heic", "c.txt"]


def test_files_of_an_installed_plug_in_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert names_found(tmp_path) == []
    monkeypatch.setitem(sys.modules, "pillow_heif", ModuleType("pillow_heif"))
    assert names_found(tmp_path) == ["a.HEIC"]


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
