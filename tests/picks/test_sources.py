"""Picks from tables and folders."""

from pathlib import Path

import pytest
from PIL import Image

from ma_agiqa_core.errors import MaAgiqaError, MissingFileError
from ma_agiqa_core.picks.pick import Mark, Pair, PickedPicture, Picks, Rating
from ma_agiqa_core.picks.picks_file import write_picks
from ma_agiqa_core.picks.sources import marks_of_folders, read_source


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_picks_file(tmp_path):
    picks = Picks((Mark(PickedPicture("a.png"), is_liked=True),))
    write_picks(tmp_path / "picks.json", picks)
    assert read_source(tmp_path / "picks.json") == picks


def test_pairs(tmp_path):
    picks = read_source(written(tmp_path, "Better;worse;prompt\na.png;b.png;a cat\nc.png;d.png;\n"))
    assert picks.pairs == (
        Pair(PickedPicture("a.png", None, "a cat"), PickedPicture("b.png", None, "a cat")),
        Pair(PickedPicture("c.png"), PickedPicture("d.png")),
    )


def test_ratings(tmp_path):
    picks = read_source(written(tmp_path, "prompt,path,rating\na cat,a.png,4.5\n,b.png,2\n"))
    assert picks.ratings == (Rating(PickedPicture("a.png", None, "a cat"), 4.5), Rating(PickedPicture("b.png"), 2.0))


def test_ratings_as_a_list_in_json(tmp_path):
    picks = read_source(written(tmp_path, '[{"path": "a.png", "rating": 3}]', "ratings.json"))
    assert picks.ratings == (Rating(PickedPicture("a.png"), 3.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,colour\na.png,red\n", "got a table with path, colour"),
        ("better,worse\na.png,\n", "row 2 .*got 'a.png' alone"),
        ("path,rating\na.png,good\n", "rating in row 2 .*got 'good'"),
        ("path,rating\na.png,nan\n", "got 'nan'"),
        ("path,rating\n,3\n", "path in row 2"),
    ],
)
def test_what_is_wrong_in_a_table_is_said(tmp_path, text, message):
    with pytest.raises(MaAgiqaError, match=message):
        read_source(written(tmp_path, text))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        read_source(tmp_path / "none.csv")
    with pytest.raises(MaAgiqaError, match="--liked"):
        read_source(tmp_path)


def test_folders(tmp_path):
    for name in ("kept/a.png", "kept/deep/b.png", "out/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    picks = marks_of_folders([tmp_path / "kept"], [tmp_path / "out"])
    assert [(Path(mark.picture.path).name, mark.is_liked) for mark in picks.marks] == [
        ("a.png", True),
        ("b.png", True),
        ("c.png", False),
    ]
    with pytest.raises(MaAgiqaError, match="got 1 in both"):
        marks_of_folders([tmp_path / "kept"], [tmp_path / "kept" / "deep"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaAgiqaError, match=r"pictures in .*empty, got none"):
        marks_of_folders([tmp_path / "kept"], [tmp_path / "empty"])
    with pytest.raises(MissingFileError, match="does not exist"):
        marks_of_folders([tmp_path / "nowhere"], [])
