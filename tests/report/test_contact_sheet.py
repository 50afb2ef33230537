"""The ranked contact sheet."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ma_agiqa_core.pictures.inputs import PictureError
from ma_agiqa_core.report import contact_sheet as module
from ma_agiqa_core.report.contact_sheet import MOST_SHOWN, captioned_pictures, contact_sheet, strip_sheet

RED, GREEN, BLUE, BROWN = (200, 0, 0), (0, 200, 0), (0, 0, 200), (120, 80, 40)
COLOURS = (RED, GREEN, BLUE, BROWN)


def plain(colour: tuple[int, int, int], width: int = 200, height: int = 200) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), colour)


def box_of(sheet: PIL.Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def ink(sheet: PIL.Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of a part of the sheet are dark."""
    return int((np.asarray(sheet.crop(box).convert("L")) < 160).sum())


def test_the_best_stand_first() -> None:
    sheet = contact_sheet([plain(colour) for colour in COLOURS], [1.0, 3.0, 4.0, 2.0], columns=2)
    lefts, tops = zip(*[box_of(sheet, colour)[:2] for colour in (BLUE, GREEN, BROWN, RED)], strict=True)
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
    assert tops[0] == tops[1] < tops[2] == tops[3]


@pytest.mark.parametrize(("columns", "across"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_columns_are_as_wanted(columns: int, across: int) -> None:
    sheet = contact_sheet([plain(colour) for colour in COLOURS[:3]], [3.0, 2.0, 1.0], columns=columns)
    tops = [box_of(sheet, colour)[1] for colour in COLOURS[:3]]
    assert sum(top == tops[0] for top in tops) == across


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 17, 100, 401])
@pytest.mark.parametrize("size", [(64, 64), (160, 90), (90, 160)])
def test_any_number_is_laid_out_sensibly(count: int, size: tuple[int, int]) -> None:
    sheet = contact_sheet([plain(RED, *size)] * count, list(range(count)), [50.0] * count)
    aspect = sheet.width / sheet.height
    assert 0.5 < aspect < 3
    assert max(sheet.size) < 8000


def test_the_thumbnails_shrink_as_the_sheet_fills() -> None:
    widths = []
    for count in (1, 4, 30, 400):
        pictures = [plain(RED, 1024, 1024)] + [plain(GREEN, 1024, 1024)] * (count - 1)
        left, _, right, _ = box_of(contact_sheet(pictures, [1.0] * count), RED)
        widths.append(right - left)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == module.LARGEST
    assert widths[-1] == module.SMALLEST


def test_unlike_sizes_keep_their_shape_and_small_ones_their_size() -> None:
    pictures = [plain(RED, 1000, 250), plain(GREEN, 250, 1000), plain(BLUE, 40, 30)]
    sheet = contact_sheet(pictures, [3.0, 2.0, 1.0])
    for colour, (width, height) in zip((RED, GREEN, BLUE), [(512, 128), (128, 512), (40, 30)], strict=True):
        left, top, right, bottom = box_of(sheet, colour)
        assert (right - left, bottom - top) == (width, height)


def test_nothing_overlaps_and_every_picture_has_its_lines() -> None:
    pictures = [
        plain(colour, *size) for colour, size in zip(COLOURS, [(30, 30), (400, 60), (60, 400), (300, 300)], strict=True)
    ]
    sheet = contact_sheet(pictures, [-1234.5, 3.0, 2.0, 1.0], [100.0, None, 0.4, 99.9], columns=2)
    plain_sheet = contact_sheet(pictures, [-1234.5, 3.0, 2.0, 1.0], columns=2)
    for colour, picture in zip(COLOURS, pictures, strict=True):
        left, top, right, bottom = box_of(sheet, colour)
        assert (right - left) * (bottom - top) == (np.asarray(sheet) == colour).all(
            axis=2
        ).sum()  # whole, nothing on it
        assert (right - left, bottom - top) == picture.size
        assert ink(sheet, (left - 30, bottom + 4, right + 30, bottom + 50)) > 30
    assert sheet.height > plain_sheet.height  # a second line


def captions(
    scores: list[float], percentiles: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, ...]]:
    """The lines of all cells, as they are drawn."""
    drawn: list[tuple[str, ...]] = []
    draw = module._Cell.draw

    def watched(cell: module._Cell, *where: Any) -> None:
        drawn.append(cell.lines)
        draw(cell, *where)

    monkeypatch.setattr(module._Cell, "draw", watched)
    contact_sheet([plain(RED, 20, 20)] * len(scores), scores, percentiles)
    return drawn


def test_the_lines_say_rank_score_and_percentile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert captions([4.123, math.nan, 9.0], [99.9, None, None], monkeypatch) == [
        ("#1   9.00", ""),
        ("#2   4.12", "better than 99 %"),
        ("picture 1", "not scored"),
    ]


def test_equal_scores_and_wide_scales_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert captions([0.5, 0.5], [None, None], monkeypatch)[0][0] == "#1   0.500"
    monkeypatch.undo()
    assert captions([2000.0, -1000.0], [None, None], monkeypatch)[0][0] == "#1   2000"


def test_of_very_many_the_ends_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SHOWN", 5)
    lines = captions([float(score) for score in range(9)], [None] * 9, monkeypatch)
    assert [line[0].split()[0] for line in lines] == ["#1", "#2", "#3", "#8", "#9"]


def test_all_kinds_of_pictures_are_taken(tmp_path: Path) -> None:
    plain(RED).save(tmp_path / "red.png")
    tensor = torch.tensor([c / 255 for c in GREEN]).reshape(3, 1, 1).expand(3, 50, 50)
    array = np.full((40, 40, 3), BLUE, np.uint8)
    sheet = contact_sheet([tmp_path / "red.png", tensor, array], [1.0, 2.0, 3.0])
    for colour in (RED, GREEN, BLUE):
        box_of(sheet, colour)
    batch = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert contact_sheet(batch, [1.0, 2.0]).mode == "RGB"


@pytest.mark.parametrize(
    ("count", "scores", "more", "message"),
    [
        (0, [], {}, "at least one picture, got none"),
        (2, [1.0], {}, "one score for each of 2 pictures, got 1"),
        (1, [1.0], {"percentiles": [1.0, 2.0]}, "one percentile for each of 1 pictures, got 2"),
        (1, [1.0], {"columns": -1}, "columns of at least 1, or 0 for as many as fit, got -1"),
    ],
)
def test_mistakes_are_refused(count: int, scores: list[float], more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet([plain(RED)] * count, scores, **more)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"Picture 1 \('.*broken\.png'\)"):
        contact_sheet([plain(RED), tmp_path / "broken.png"], [1.0, 2.0])


def test_pictures_with_captions_one_by_one_best_first() -> None:
    pictures = [plain(colour, 100, height) for colour, height in zip(COLOURS, (100, 60, 60, 100), strict=True)]
    drawn = captioned_pictures(pictures, [1.0, 3.0, math.nan, 2.0], [10.0, 90.0, None, 50.0], side=100)
    for picture, place in zip(drawn, (1, 3, 0, 2), strict=True):
        left, top, right, bottom = box_of(picture, COLOURS[place])
        assert (right - left, bottom - top) == pictures[place].size
        assert ink(picture, (0, bottom + 4, picture.width, picture.height)) > 20
    framed = [(np.asarray(picture) == module.ORANGE).all(axis=2)[:2].any() for picture in drawn]
    assert framed == [True, False, False, False]


def test_a_strip_s_sheet_has_large_captions_and_the_best_first() -> None:
    sheet = strip_sheet([plain(colour) for colour in COLOURS], [1.0, 3.0, 4.0, 2.0], [10.0, 60.0, 90.0, 50.0])
    corners = [box_of(sheet, colour)[1::-1] for colour in (BLUE, GREEN, BROWN, RED)]  # top, left
    assert corners == sorted(corners)
    small = contact_sheet([plain(colour) for colour in COLOURS], [1.0, 3.0, 4.0, 2.0], [10.0, 60.0, 90.0, 50.0])
    between = [box_of(drawn, BROWN)[1] - box_of(drawn, BLUE)[3] for drawn in (sheet, small)]
    assert between[0] > 1.5 * between[1]


def test_a_strip_s_sheet_of_very_many_shows_the_best_only() -> None:
    many = [plain(GREEN, 8, 8)] * MOST_SHOWN + [plain(RED, 8, 8)] * 2
    sheet = strip_sheet(many, [1.0] * MOST_SHOWN + [0.0] * 2)
    assert not (np.asarray(sheet) == RED).all(axis=2).any()
    assert (np.asarray(sheet) == GREEN).all(axis=2).any()
