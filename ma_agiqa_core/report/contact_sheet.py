"""The ranked contact sheet: all pictures on one, best first, each with rank, score and percentile under it.

Drawn with Pillow and its own font alone, so that it looks the same everywhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import mean
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..errors import MaAgiqaError
from ..pictures.inputs import PictureError, PictureInput, as_picture_list, decode
from ..ranking import order_by_score
from .names import better_than, decimals_of

MOST_SHOWN = 400  # of more, the best half and the last half
SHEET_WIDTH, SHEET_HEIGHT = 2048, 16384  # what thumbnails are made to fit into, down to the smallest
LARGEST, SMALLEST = 512, 112  # longest side of a thumbnail
SIDE_IN_A_STRIP, STRIP_WIDTH = 384, 1024  # of a single picture, of all on one sheet
CELL_ASPECT = 0.77  # of a square picture with its caption
SHEET_ASPECT = 4 / 3
LETTERS_OF_A_SHEET = 20  # so many letters high is a thumbnail
LETTERS_OF_A_STRIP = 5, 10  # larger ones: programs show a strip's pictures side by side, the smaller the more there are
PAPER, INK, GREY, ORANGE = (250, 250, 250), (30, 30, 30), (105, 105, 105), (214, 94, 30)


def contact_sheet(
    images: PictureInput | Iterable[PictureInput],
    scores: Sequence[float],
    percentiles: Sequence[float | None] | None = None,
    *,
    columns: int = 0,
    decimals: int | None = None,
) -> PIL.Image.Image:
    """Draws the sheet.

    Args:
        images: As for `Scorer.score`. Sizes may differ; small pictures are not enlarged.
        scores: One per picture, higher is better; NaN stands last, as not scored.
        percentiles: One per picture, 0 to 100, or None for what has none.
        columns: Pictures a row; 0 makes the sheet about 4 : 3.
        decimals: Of the scores; None shows three digits of their spread.

    Returns:
        RGB. Of more than `MOST_SHOWN` pictures the middle of the ranking is left out, and a line says so.

    Raises:
        ValueError: No picture, another number of scores or percentiles than pictures, `columns` below 0,
            or a malformed picture.
        PictureError: A file cannot be read.
    """
    pictures = as_picture_list(images)
    percentiles = [None] * len(pictures) if percentiles is None else percentiles
    _check(len(pictures), len(scores), len(percentiles), columns)
    places = _places(scores, percentiles)
    decimals = decimals_of(scores) if decimals is None else decimals
    shown = len(places) if len(places) <= MOST_SHOWN else math.ceil(MOST_SHOWN / 2)
    last = places[max(shown, len(places) - MOST_SHOWN // 2) :]
    note = f"The best {shown} and the last {len(last)} of {len(places)} pictures" if last else ""
    places = places[:shown] + last
    side = _side(len(places), columns or _columns(len(places), 1))
    thumbnails = [_thumbnail(pictures[place.index], place.index, side) for place in places]
    largest = max(max(thumbnail.size) for thumbnail in thumbnails)
    cells = [_Cell(place, thumbnail, largest, decimals) for place, thumbnail in zip(places, thumbnails, strict=True)]
    columns = columns or _columns_for(cells)
    rows = [
        half[start : start + columns]
        for half in (cells[:shown], cells[shown:])
        for start in range(0, len(half), columns)
    ]
    return _draw(rows, note)


def strip_sheet(
    images: PictureInput | Iterable[PictureInput],
    scores: Sequence[float],
    percentiles: Sequence[float | None] | None = None,
    *,
    columns: int = 0,
    **captions: Any,
) -> PIL.Image.Image:
    """A contact sheet to be seen small, as on a node: large captions, each with the picture's number.

    Args:
        images: As for `contact_sheet`.
        scores: One per picture, higher is better; NaN is not scored.
        percentiles: One per picture, 0 to 100, or None for what has none.
        columns: Pictures a row; 0 makes the sheet about 4 : 3.
        notes: What else the caption of each picture says.
        numbers: What the pictures are called; without, they are counted from 0 in input order.
        best_first: Their indexes in order, where scores alone do not say it; all of them.

    Returns:
        RGB, best first; the best has a frame. Of more than `MOST_SHOWN` pictures only the best.

    Raises:
        ValueError: No picture, another number of scores or percentiles than pictures, `columns` below 0,
            or a malformed picture.
        PictureError: A file cannot be read.
    """
    pictures = as_picture_list(images)
    percentiles = [None] * len(pictures) if percentiles is None else percentiles
    _check(len(pictures), len(scores), len(percentiles), columns)
    side = side_in_a_sheet(len(pictures), columns)
    cells = _strip_cells(pictures, scores, percentiles, side, **captions)
    note = f"The best {MOST_SHOWN} of {len(cells)} pictures" if len(cells) > MOST_SHOWN else ""
    cells = cells[:MOST_SHOWN]
    columns = columns or _columns_for(cells)
    return _draw([cells[start : start + columns] for start in range(0, len(cells), columns)], note)


def side_in_a_sheet(count: int, columns: int = 0) -> int:
    """Longest side of a thumbnail in `strip_sheet`: with more pictures smaller, and the sheet of about one size.

    Example:
        >>> [side_in_a_sheet(count) for count in (1, 2, 8, 100)]
        [512, 512, 256, 112]
    """
    return max(SMALLEST, min(LARGEST, STRIP_WIDTH // min(columns or _columns(count, CELL_ASPECT), count)))


def captioned_pictures(
    images: PictureInput | Iterable[PictureInput],
    scores: Sequence[float],
    percentiles: Sequence[float | None] | None = None,
    *,
    side: int = SIDE_IN_A_STRIP,
    **captions: Any,
) -> list[PIL.Image.Image]:
    """The cells of a strip one by one, for programs that show pictures in a row of their own.

    Args:
        images: As for `contact_sheet`.
        scores: One per picture, higher is better; NaN is not scored.
        percentiles: One per picture, 0 to 100, or None for what has none.
        side: The longest side of a thumbnail.
        **captions: notes, numbers and best_first, as for `strip_sheet`.

    Returns:
        RGB, best first; the best has a frame, and each says its number.

    Raises:
        ValueError: No picture, another number of scores or percentiles than pictures, or a malformed picture.
        PictureError: A file cannot be read.
    """
    pictures = as_picture_list(images)
    percentiles = [None] * len(pictures) if percentiles is None else percentiles
    _check(len(pictures), len(scores), len(percentiles), 0)
    cells = _strip_cells(pictures, scores, percentiles, side, **captions)
    edge = max(3, cells[0].largest // 100)
    drawn = []
    for cell in cells:
        canvas = PIL.Image.new("RGB", (cell.width + 2 * edge, cell.height + edge), PAPER)
        cell.draw(canvas, edge, edge + cell.thumbnail.height, cell.width)
        drawn.append(canvas)
    return drawn


@dataclass(frozen=True)
class _Place:
    rank: int | None  # from 1; None if not scored
    index: int
    score: float
    percentile: float | None


def _check(pictures: int, scores: int, percentiles: int, columns: int) -> None:
    if not pictures:
        raise MaAgiqaError("Expected at least one picture, got none.")
    if scores != pictures:
        raise MaAgiqaError(f"Expected one score for each of {pictures} pictures, got {scores} scores.")
    if percentiles != pictures:
        raise MaAgiqaError(f"Expected one percentile for each of {pictures} pictures, got {percentiles}.")
    if columns < 0:
        raise MaAgiqaError(f"Expected columns of at least 1, or 0 for as many as fit, got {columns}.")


def _places(scores: Sequence[float], percentiles: Sequence[float | None]) -> list[_Place]:
    ranking = order_by_score(range(len(scores)), scores)
    ranks = [*enumerate(ranking.kept, start=1), *((None, index) for index in ranking.failed)]
    return [_Place(rank, index, scores[index], percentiles[index]) for rank, index in ranks]


def _columns_for(cells: "Sequence[_Cell]") -> int:
    """As many as make a sheet of these about 4 : 3."""
    return _columns(len(cells), max(cell.width for cell in cells) / mean(cell.height for cell in cells))


def _columns(count: int, cell_aspect: float) -> int:
    """Columns of a sheet that is near `SHEET_ASPECT` and leaves little of its last row empty."""

    def misfit(columns: int) -> float:
        rows = math.ceil(count / columns)
        empty = 1 - count / (rows * columns)
        return abs(math.log(cell_aspect * columns / rows / SHEET_ASPECT)) + empty

    return min(range(1, count + 1), key=misfit)


def _side(count: int, columns: int) -> int:
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    return max(SMALLEST, min(LARGEST, SHEET_WIDTH // columns, SHEET_HEIGHT // rows))


def _thumbnail(image: PictureInput, index: int, side: int) -> PIL.Image.Image:
    picture = decode(image, index)
    if picture.pixels is None:
        raise PictureError(index, picture.path, picture.error or "it cannot be read")
    pixels = picture.pixels
    if pixels.is_floating_point():
        pixels = (pixels * 255).round().byte()
    thumbnail = PIL.Image.fromarray(np.ascontiguousarray(pixels.movedim(0, -1).cpu().numpy()))
    # halved first by averaging where it is far too large: as good at this size, and five times as fast as Lanczos alone
    thumbnail.thumbnail((side, side), PIL.Image.Resampling.HAMMING, reducing_gap=1.0)
    return thumbnail


def _strip_cells(
    pictures: Sequence[PictureInput],
    scores: Sequence[float],
    percentiles: Sequence[float | None],
    side: int,
    notes: Sequence[str] = (),
    numbers: Sequence[int] = (),
    best_first: Sequence[int] | None = None,
) -> list["_Cell"]:
    places = _places(scores, percentiles)
    if best_first is not None:
        places = [_Place(rank, i, scores[i], percentiles[i]) for rank, i in enumerate(best_first, start=1)]
    thumbnails = [_thumbnail(pictures[place.index], place.index, side) for place in places]
    largest = max(max(thumbnail.size) for thumbnail in thumbnails)
    least, most = LETTERS_OF_A_STRIP
    letters = max(least, min(most, round(28 / math.sqrt(len(places)))))
    decimals = decimals_of(scores)
    cells = []
    for place, thumbnail in zip(places, thumbnails, strict=True):
        number, note = numbers[place.index] if numbers else place.index, notes[place.index] if notes else ""
        cells.append(_Cell(place, thumbnail, largest, decimals, letters, number, note))
    return cells


@dataclass(frozen=True)
class _Cell:
    """One thumbnail with the two lines under it."""

    place: _Place
    thumbnail: PIL.Image.Image
    largest: int  # longest side of all thumbnails, which sets the size of the letters
    decimals: int
    letters: int = LETTERS_OF_A_SHEET
    number: int | None = None  # in a caption
    note: str = ""

    @property
    def font_size(self) -> int:
        return max(14, self.largest // self.letters)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        if self.place.rank is None:
            return (f"picture {self.place.index}", "not scored")
        score = f"#{self.place.rank}   {self.place.score:.{self.decimals}f}"
        share = better_than(self.place.percentile)
        numbered = "" if self.number is None else f"no. {self.number}"
        percentage = "" if share is None else f"better than {share} %"
        return (score, ", ".join(filter(None, (numbered, percentage, self.note))))

    @cached_property
    def width(self) -> int:
        large, small = _font(self.font_size), _font(self.font_size - 2)
        text = max(large.getlength(self.lines[0]), small.getlength(self.lines[1]))
        return max(self.thumbnail.width, math.ceil(text))

    @property
    def height(self) -> int:
        return self.thumbnail.height + self.caption_height

    @property
    def caption_height(self) -> int:
        return round(self.font_size * (2.9 if self.lines[1] else 1.6))

    def draw(self, sheet: PIL.Image.Image, left: int, bottom: int, width: int) -> None:
        """Puts the cell into a space `width` wide, the thumbnails of a row standing on one line."""
        canvas = PIL.ImageDraw.Draw(sheet)
        middle = left + width // 2
        x, y = middle - self.thumbnail.width // 2, bottom - self.thumbnail.height
        best = self.place.rank == 1
        if best:
            edge = max(3, self.largest // 100)
            right = x + self.thumbnail.width + edge - 1
            canvas.rectangle((x - edge, y - edge, right, bottom + edge - 1), fill=ORANGE)
        sheet.paste(self.thumbnail, (x, y))
        size = self.font_size
        canvas.text((middle, bottom + size), self.lines[0], ORANGE if best else INK, _font(size), anchor="mm")
        canvas.text((middle, bottom + 2.2 * size), self.lines[1], GREY, _font(size - 2), anchor="mm")


def _draw(rows: list[list[_Cell]], note: str) -> PIL.Image.Image:
    cells = [cell for row in rows for cell in row]
    size = cells[0].font_size
    gap, margin = size, size
    column = max(cell.width for cell in cells)
    caption = max(cell.caption_height for cell in cells)
    heights = [max(cell.thumbnail.height for cell in row) + caption for row in rows]
    top = margin + (2 * size if note else 0)
    width = max(
        2 * margin + max(map(len, rows)) * (column + gap) - gap, math.ceil(_font(size).getlength(note)) + 2 * margin
    )
    sheet = PIL.Image.new("RGB", (width, top + sum(heights) + gap * (len(rows) - 1) + margin // 2), PAPER)
    if note:
        PIL.ImageDraw.Draw(sheet).text((margin, margin + size / 2), note, GREY, _font(size), anchor="lm")
    for row, height in zip(rows, heights, strict=True):
        bottom = top + max(cell.thumbnail.height for cell in row)
        for place, cell in enumerate(row):
            cell.draw(sheet, margin + place * (column + gap), bottom, column)
        top += height + gap
    return sheet


@cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)
