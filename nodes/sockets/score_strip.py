"""What Score Images shows on itself: its pictures, best first, each with its rank and score, the best one framed."""

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from torch import Tensor

from ...ma_agiqa_core.report.contact_sheet import SIDE_IN_A_STRIP, captioned_pictures, strip_sheet
from ...ma_agiqa_core.scorers.scorer import ScorerInfo
from .images import as_pil

QUALITY = 85  # of JPEG: a strip is looked at and thrown away, and PNG would take longer than all the rest
ROWS = 128  # at a time: they stay in the processor's cache
SHOWN = SHEET, SINGLE, NOTHING = ("one sheet", "single pictures", "nothing")
_LETTERS = 5


def score_strip(
    pictures: Sequence[Tensor], scores: Sequence[float], info: ScorerInfo, show: str = SHEET, columns: int = 0
) -> dict[str, list[Any]]:
    """Saves what a node shows among ComfyUI's temporary files; what its `ui` takes, empty for `NOTHING`.

    All that a node shows is listed among ComfyUI's assets, and the first picture is the cover of the job.

    Args:
        pictures: [H, W, C] as `flattened` gives them.
        scores: One per picture.
        info: Of their scorer.
        show: One of `SHOWN`.
        columns: Of a sheet; 0 for as many as fit.

    Raises:
        ValueError: It is none of them.
    """
    if show not in SHOWN:
        raise ValueError(f"Expected show {', '.join(SHOWN)}, got {show!r}. Choose one of them.")
    if show == NOTHING:
        return {}
    percentiles = None if info.relative else [info.percentile(score) for score in scores]
    thumbnails = [_for_thumbnail(picture) for picture in pictures]
    draw = captioned_pictures if show == SINGLE else lambda *given: [strip_sheet(*given, columns=columns)]
    # browsers keep what they have seen under a name, and these numbers start again at every restart
    prefix = f"ma_agiqa_{''.join(random.choices(string.ascii_lowercase, k=_LETTERS))}"
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_temp_directory())
    shown = []
    for number, picture in enumerate(draw(thumbnails, scores, percentiles), start=counter):
        file = Path(folder, f"{name}_{number:05}_.jpg")
        picture.save(file, quality=QUALITY)
        shown.append({"filename": file.name, "subfolder": subfolder, "type": "temp"})
    return {"images": shown}


def _for_thumbnail(picture: Tensor) -> Any:
    """Halved while it is twice as large as its thumbnail: a third of the time of converting all of it.

    An array is not copied any more; a PIL image is laid over white.
    """
    pixels = picture.cpu()
    while max(pixels.shape[:2]) >= 2 * SIDE_IN_A_STRIP and min(pixels.shape[:2]) >= 2:
        pixels = torch.cat([_halved(rows) for rows in pixels.split(ROWS)])
    image = as_pil(pixels)
    return np.asarray(image) if image.mode == "RGB" else image


def _halved(rows: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; of an odd size the last is left out."""
    height, width = rows.shape[0] // 2 * 2, rows.shape[1] // 2 * 2
    sums = rows[:height:2].float() + rows[1:height:2]
    return (sums[:, :width:2] + sums[:, 1:width:2]).mul_(0.25)
