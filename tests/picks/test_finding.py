"""Picked pictures are found where they were, where they were moved, or listed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from ma_agiqa_core.picks.finding import find_picked
from ma_agiqa_core.picks.pick import PickedPicture
from ma_agiqa_core.records.picture_state import picture_digest


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "renders" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path)
    return path


def test_absolute_and_relative_paths(tmp_path, picture, monkeypatch):
    absolute, relative = PickedPicture(str(picture)), PickedPicture("renders/a.png")
    assert find_picked([absolute, relative], [tmp_path]).paths == {absolute: picture, relative: picture}
    monkeypatch.chdir(tmp_path)
    assert find_picked([relative]).paths[relative].samefile(picture)
    assert find_picked([PickedPicture("a.png")], [tmp_path]).missing == (PickedPicture("a.png"),)


def test_a_moved_picture_is_found_by_its_digest_in_the_folders_to_search(tmp_path, picture):
    picked = PickedPicture(str(picture), picture_digest(picture))
    (tmp_path / "archive" / "deep").mkdir(parents=True)
    moved = tmp_path / "archive" / "deep" / "other name.png"
    shutil.move(picture, moved)
    assert find_picked([picked]).missing == (picked,)
    found = find_picked([picked], search=[tmp_path / "archive"])
    assert (found.paths, found.moved, found.missing) == ({picked: moved}, (picked,), ())


def test_a_renamed_picture_is_found_beside_the_picks_file(tmp_path, picture):
    picked = PickedPicture("renders/a.png", picture_digest(picture)[:12])
    renamed = picture.rename(tmp_path / "b.png")
    assert find_picked([picked], [tmp_path]).paths == {picked: renamed}


def test_another_picture_under_the_old_name_is_not_taken_for_it(tmp_path, picture):
    picked = PickedPicture(str(picture), picture_digest(picture))
    Image.new("RGB", (8, 8)).save(picture)
    assert find_picked([picked]).missing == (picked,)


def test_without_a_digest_the_path_decides(picture):
    picked = PickedPicture(str(picture))
    Image.new("RGB", (8, 8)).save(picture)
    assert find_picked([picked, picked]).paths == {picked: picture}
