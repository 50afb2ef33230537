"""Marks of a selection: the pictures that were kept are liked, the others are not. The node Mark Images calls this."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from ..arguments.options import shown
from ..errors import MaAgiqaError
from ..pictures.inputs import PictureInput, decode
from ..records.picture_state import DIGITS, picture_digest
from ..records.record import path_text, valid_text
from .pick import Mark, PickedPicture, Picks, now
from .picks_file import add_picks


def add_marks(
    file: Path,
    kept: Sequence[PictureInput],
    rejected: Sequence[PictureInput],
    *,
    prompt: str | None = None,
    scorer: str | None = None,
    pictures_folder: Path | None = None,
) -> Picks:
    """Adds a selection to a picks.json: a like for every picture that was kept, a dislike for every other.

    Args:
        file: The picks.json; it and its folder are made where there are none.
        kept: Paths of files; or PIL images, uint8 arrays (H, W, 3) and float tensors (3, H, W) RGB in [0, 1], which
            are saved as PNG, since a pick is learned from the picture itself.
        rejected: Likewise.
        prompt: What all of them were made from: pictures of one prompt are compared with each other.
        scorer: Name of the scorer whose scores were seen.
        pictures_folder: Where pictures that are no files are saved, each under its digest, so that the same picture is
            saved once. None takes the folder `picks_pictures` (after the file's name) beside the file.

    Returns:
        What was added.

    Raises:
        FileExistsError: Another process is adding to the file.
        ValueError: No pictures at all, one that cannot be read, or a file with other content.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from ma_agiqa_core.picks.marking import add_marks
        >>> from ma_agiqa_core.picks.picks_file import read_picks
        >>> red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "picks.json")
        ...     _ = add_marks(file, kept=[red], rejected=[blue], prompt="a wall")
        ...     [(mark.is_liked, mark.picture.prompt) for mark in read_picks(file).marks]
        [(True, 'a wall'), (False, 'a wall')]
    """
    if not len(kept) + len(rejected):
        raise MaAgiqaError("Expected pictures to mark, got none.")
    for name, pictures in (("kept", kept), ("rejected", rejected)):
        if isinstance(pictures, str | os.PathLike):
            raise MaAgiqaError(f"Expected {name} as a list of pictures, got {shown(pictures)}. Pass [path].")
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = pictures_folder or file.with_name(f"{file.stem}_pictures")
    date = now()
    marks = [
        Mark(_picked(picture, folder, prompt), is_liked, scorer and valid_text(scorer), date)
        for is_liked, pictures in ((True, kept), (False, rejected))
        for picture in pictures
    ]
    picks = Picks(tuple(marks))
    add_picks(file, picks)
    return picks


def _picked(picture: PictureInput, folder: Path, prompt: str | None) -> PickedPicture:
    path, digest = _on_disk(picture, folder)
    return PickedPicture(path_text(path.absolute()), digest, valid_text(prompt) if prompt else None)


def _on_disk(picture: PictureInput, folder: Path) -> tuple[Path, str]:
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture), picture_digest(picture)
        except (OSError, ValueError) as error:
            raise MaAgiqaError(f"Expected a picture to mark, got {shown(picture, 300)}: {error}.") from error
    content = io.BytesIO()
    _as_image(picture).save(content, "PNG", compress_level=4)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:DIGITS]
    file = folder / f"{digest}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.getvalue())
    return file, digest


def _as_image(picture: PIL.Image.Image | np.ndarray | torch.Tensor) -> PIL.Image.Image:
    decoded = decode(picture)
    if decoded.pixels is None:
        raise MaAgiqaError(f"Expected a picture to mark, got one that cannot be read: {decoded.error}.")
    pixels = decoded.pixels.cpu()
    if pixels.is_floating_point():
        pixels = (pixels * 255).round().to(torch.uint8)
    return PIL.Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
