"""Pictures of a folder with the scores in their files."""

import math
import os
from pathlib import Path

import PIL.Image
import pytest

from ma_agiqa_core.comfyui.scored_folder import folder_report, read_folder
from ma_agiqa_core.records.png_metadata import PictureMetadata, save_picture
from ma_agiqa_core.scorers.scorer import ScorerInfo

LITE = ScorerInfo(name="lite", revision="1", low=0, high=10, trained_on="nothing")


def write(folder: Path, name: str, score: float | None = None, model: str = "lite", revision: str = "1") -> None:
    known = None if score is None else PictureMetadata(score, 50.0, model, revision, rank=1, index=3, seed=9)
    save_picture(PIL.Image.new("RGB", (8, 6), (10 * len(name), 0, 0)), folder / name, known)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "a.png", 3.0)
    write(tmp_path, "b.png", 7.0)
    write(tmp_path, "c.png")
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "d.png", 9.0)
    (tmp_path / "notes.txt").write_text("no picture")
    for age, name in enumerate(("b.png", "c.png", "a.png")):
        os.utime(tmp_path / name, ns=(10 - age, 10 - age))
    return tmp_path


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["a.png", "b.png", "c.png"]),
        ("newest first", ["b.png", "c.png", "a.png"]),
        ("best score first", ["b.png", "a.png", "c.png"]),
    ],
)
def test_orders(folder: Path, order: str, names: list[str]) -> None:
    read = read_folder(folder, order_by=order)
    assert [file.path.name for file in read.files] == names
    scores = {"a.png": 3.0, "b.png": 7.0, "c.png": math.nan}
    assert read.scores == pytest.approx([scores[name] for name in names], nan_ok=True)
    assert [tuple(pixels.shape) for pixels in read.pixels] == [(3, 6, 8)] * 3
    assert [file.path.name for file in read_folder(folder, order_by=order, most=2).files] == names[:2]


def test_scores_of_another_scorer_count_as_none(folder: Path) -> None:
    write(folder, "e.png", 99.0, model="clip")
    write(folder, "f.png", 8.0, revision="2")
    assert read_folder(folder, info=LITE).scores == pytest.approx([3.0, 7.0, math.nan, math.nan, math.nan], nan_ok=True)
    with pytest.raises(ValueError, match=r"scores of one scorer in .*, got those of clip, lite, .* Connect the scorer"):
        read_folder(folder)


def test_a_broken_file_is_named_and_left_out(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    read = read_folder(folder, info=LITE)
    assert [file.path.name for file in read.files] == ["a.png", "c.png"]
    assert read.broken[0].startswith("b.png: ")
    lines = folder_report(read, [3.0, 5.0]).splitlines()
    assert lines[0] == "2 pictures, 1 with a score in the file"
    assert lines[1] == "#1  no. 1  5.00  c.png"
    assert lines[3].startswith("cannot be read: b.png: ")
    assert folder_report(read, read.scores).splitlines()[2] == "-  no. 1  not scored  c.png"


def test_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected pictures in .*, got none\. Choose the folder"):
        read_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"Expected pictures that can be read in .*, got a\.png: "):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="Expected the order name, newest first, best score first, got 'size'"):
        read_folder(tmp_path, order_by="size")
