"""What nodes show on themselves: pictures, best first, each with its rank and score, the best one framed."""

import math
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ...ma_agiqa_core.ranking import order
from ...ma_agiqa_core.report.contact_sheet import SIDE_IN_A_STRIP, captioned_pictures, side_in_a_sheet, strip_sheet
from .images import as_pil
from .scores import ScoreOf

QUALITY = 85  # of JPEG: a strip is looked at and thrown away, and PNG would take longer than all the rest
MOST_CANDIDATES = 64
ROWS = 128  # at a time: they stay in the processor's cache
SHOWN = SHEET, SINGLE, NOTHING = ("one sheet", "single pictures", "nothing")
_LETTERS = 5


def score_strip(
    thumbnails: Sequence[Any],
    scores: Sequence[ScoreOf],
    is_captioned: bool = True,
    show: str = SHEET,
    columns: int = 0,
    **captions: Any,
) -> dict[str, list[Any]]:
    """Saves what a node shows among ComfyUI's temporary files, best first; what its `ui` takes.

    All that a node shows is listed among ComfyUI's assets, and the first picture may be the cover of the job.

    Args:
        thumbnails: As `thumbnail` makes them.
        scores: One per picture.
        is_captioned: Whether rank, score and number stand below each picture; without, pictures are single.
        show: One of `SHOWN`.
        columns: Of a sheet; 0 for as many as fit.
        captions: What else `strip_sheet` of the core takes: notes, numbers, best_first.

    Raises:
        ValueError: `show` is another word.
    """
    if show not in SHOWN:
        raise ValueError(f"Expected show {', '.join(SHOWN)}, got {show!r}. Choose one of them.")
    if show == NOTHING:
        return {}
    percentiles = [score.percentile for score in scores]
    if not is_captioned:
        ranked = captions.get("best_first") or order(scores)
        rest = [index for index in range(len(scores)) if index not in ranked]  # without a score
        drawn = [plain(thumbnails[index]) for index in (*ranked, *rest)]
    elif show == SINGLE:
        drawn = captioned_pictures(thumbnails, scores, percentiles, **captions)
    else:
        drawn = [strip_sheet(thumbnails, scores, percentiles, columns=columns, **captions)]
    # browsers keep what they have seen under a name, and these numbers start again at every restart
    prefix = f"ma_agiqa_{''.join(random.choices(string.ascii_lowercase, k=_LETTERS))}"
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_temp_directory())
    shown = []
    for number, picture in enumerate(drawn, start=counter):
        file = Path(folder, f"{name}_{number:05}_.jpg")
        picture.save(file, quality=QUALITY)
        shown.append({"filename": file.name, "subfolder": subfolder, "type": "temp"})
    return {"images": shown}


def side_of(count: int, is_captioned: bool, show: str = SHEET, columns: int = 0) -> int:
    """Longest side of the thumbnails that `score_strip` will show."""
    return side_in_a_sheet(count, columns) if is_captioned and show == SHEET else SIDE_IN_A_STRIP


def picture_of(entry: dict[str, str]) -> PIL.Image.Image:
    """A picture that `score_strip` saved."""
    file = Path(folder_paths.get_temp_directory(), entry["subfolder"], entry["filename"])
    with PIL.Image.open(file) as picture:
        picture.load()
    return picture


class ShownCandidate(NamedTuple):
    """One candidate of a best-of-N run: how it looked and scored when it was last seen."""

    thumbnail: Any
    number: int
    score: ScoreOf
    dropped_after: int | None  # steps; None if it was finished
    steps: int


def candidates_strip(candidates: Sequence[ShownCandidate], is_captioned: bool = True) -> dict[str, list[Any]]:
    """The strip of all candidates: the finished ones best first, then those that were dropped, the last ones first."""
    best_first = sorted(
        range(len(candidates)),
        key=lambda place: (-(candidates[place].dropped_after or math.inf), -candidates[place].score),
    )[:MOST_CANDIDATES]
    shown = [candidates[place] for place in best_first]
    return score_strip(
        [candidate.thumbnail for candidate in shown],
        [candidate.score for candidate in shown],
        is_captioned,
        notes=[
            f"dropped after {candidate.dropped_after} of {candidate.steps}" if candidate.dropped_after else ""
            for candidate in shown
        ],
        numbers=[candidate.number for candidate in shown],
        best_first=range(len(shown)),
    )


def thumbnail(picture: Tensor, side: int = SIDE_IN_A_STRIP) -> Any:
    """A picture [H, W, C], small enough to be kept: an array [h, w, 3] of uint8, or a PIL image with alpha.

    Halved while it is twice as large as its thumbnail: a third of the time of converting all of it. While it is four
    times as large, only every second pixel of every second row is looked at.

    Args:
        picture: As `flattened` gives it.
        side: Longest one of the thumbnail that will be made of it.
    """
    pixels = picture.cpu()
    while max(pixels.shape[:2]) >= 4 * side and min(pixels.shape[:2]) >= 2:
        pixels = pixels[::2, ::2]
    if max(pixels.shape[:2]) >= 2 * side and min(pixels.shape[:2]) >= 2:
        pixels = torch.cat([_halved(rows) for rows in pixels.split(ROWS)])
    image = as_pil(pixels)
    return np.asarray(image) if image.mode == "RGB" else image


def plain(thumbnail: Any) -> PIL.Image.Image:
    """A thumbnail as RGB, alpha over white."""
    image = thumbnail if isinstance(thumbnail, PIL.Image.Image) else PIL.Image.fromarray(thumbnail)
    if image.mode == "RGBA":
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((SIDE_IN_A_STRIP, SIDE_IN_A_STRIP))
    return image


def _halved(rows: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; of an odd size the last is left out."""
    height, width = rows.shape[0] // 2 * 2, rows.shape[1] // 2 * 2
    sums = rows[:height:2].float() + rows[1:height:2]
    return (sums[:, :width:2] + sums[:, 1:width:2]).mul_(0.25)
