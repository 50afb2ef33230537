"""A selection becomes marks, and pictures that are no files become files."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.picks.marking import add_marks
from ma_agiqa_core.picks.picks_file import read_picks


def test_files_are_marked_where_they_are(tmp_path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), (0, 0, 200)).save(tmp_path / "b.png")
    file = tmp_path / "new folder" / "picks.json"
    added = add_marks(file, [tmp_path / "a.png"], [str(tmp_path / "b.png")], prompt="p", scorer="lite")
    assert read_picks(file) == added
    liked, disliked = added.marks
    assert (liked.is_liked, disliked.is_liked) == (True, False)
    assert liked.picture.path == str(tmp_path / "a.png")
    assert liked.picture.digest == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()[:16]
    assert (liked.picture.prompt, liked.scorer) == ("p", "lite")
    assert liked.date is not None
    assert len(liked.date) == len("2026-01-02T03:04:05Z")
    assert [path.name for path in file.parent.iterdir()] == ["picks.json"]


def test_pixels_are_saved_without_loss_and_once(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    tensor = torch.from_numpy(pixels).movedim(-1, 0).float() / 255
    added = add_marks(tmp_path / "mine.json", [pixels, tensor], [Image.fromarray(255 - pixels)])
    paths = [mark.picture.path for mark in added.marks]
    assert paths[0] == paths[1] != paths[2]
    assert np.array_equal(np.asarray(Image.open(paths[0])), pixels)
    assert np.array_equal(np.asarray(Image.open(paths[2])), 255 - pixels)
    assert len(list((tmp_path / "mine_pictures").iterdir())) == 2


def test_a_second_selection_is_added_and_says_another_folder(tmp_path):
    black = np.zeros((4, 4, 3), np.uint8)
    add_marks(tmp_path / "picks.json", [black], [])
    add_marks(tmp_path / "picks.json", [], [black + 9], pictures_folder=tmp_path / "here")
    assert [mark.is_liked for mark in read_picks(tmp_path / "picks.json").marks] == [True, False]
    assert len(list((tmp_path / "here").iterdir())) == 1


def test_nothing_a_missing_file_and_a_bare_path_are_refused(tmp_path):
    with pytest.raises(MaAgiqaError, match="got none"):
        add_marks(tmp_path / "picks.json", [], [])
    with pytest.raises(MaAgiqaError, match=r"a\.png.*No such file"):
        add_marks(tmp_path / "picks.json", [tmp_path / "a.png"], [])
    with pytest.raises(MaAgiqaError, match="kept as a list"):
        add_marks(tmp_path / "picks.json", "a.png", [])
    assert not (tmp_path / "picks.json").exists()
