"""The pictures of one folder with the scores that their files carry, as Save Scored Images and best_of_n write them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from torch import Tensor

from ..errors import MaAgiqaError
from ..pictures.folders import PICTURE_SUFFIXES
from ..pictures.inputs import decode
from ..ranking import order_by_score
from ..records.png_metadata import PictureMetadata, read_metadata
from ..report.names import decimals_of, readable
from ..scorers.scorer import ScorerInfo

BY_NAME, NEWEST, BEST = "name", "newest first", "best score first"
ORDERS = (BY_NAME, NEWEST, BEST)


@dataclass(frozen=True)
class ScoredFile:
    """One file.

    Attributes:
        path: Where it lies.
        metadata: What it says of its score; None if it says nothing.
    """

    path: Path
    metadata: PictureMetadata | None


@dataclass(frozen=True)
class ScoredFolder:
    """What was read of a folder.

    Attributes:
        files: Those that could be read, in order.
        pixels: Their pictures, (3, H, W) RGB uint8.
        scores: Those that the files carry; NaN where there is none.
        broken: Names of files that cannot be read, each with the reason.
    """

    files: tuple[ScoredFile, ...]
    pixels: tuple[Tensor, ...]
    scores: tuple[float, ...]
    broken: tuple[str, ...]


def read_folder(
    folder: str | os.PathLike[str], *, order_by: str = BY_NAME, most: int = 64, info: ScorerInfo | None = None
) -> ScoredFolder:
    """Reads the pictures in a folder, not those in its subfolders.

    Args:
        folder: Its path.
        order_by: One of `ORDERS`; files without a score stand last where scores give the order.
        most: How many files to read at most.
        info: Of the scorer whose scores are wanted; those of others count as none. None takes what is there.

    Raises:
        ValueError: No picture there, none that can be read, an unknown order, or, without `info`, scores of several
            scorers.
    """
    if order_by not in ORDERS:
        raise MaAgiqaError(f"Expected the order {', '.join(ORDERS)}, got {order_by!r}.")
    files = [ScoredFile(path, _metadata(path)) for path in picture_files(folder)]
    if not files:
        raise MaAgiqaError(f"Expected pictures in {str(folder)!r}, got none. Choose the folder that they are in.")
    if order_by == NEWEST:
        files.sort(key=lambda file: file.path.stat().st_mtime_ns, reverse=True)
    elif order_by == BEST:
        files.sort(key=lambda file: -math.inf if math.isnan(score := _score(file, info)) else score, reverse=True)
    chosen, pixels, broken = [], [], []
    for number, file in enumerate(files[:most]):
        picture = decode(file.path, number)
        if picture.pixels is None:
            broken.append(f"{readable(file.path.name)}: {picture.error}")
        else:
            chosen.append(file)
            pixels.append(picture.pixels)
    if not chosen:
        raise MaAgiqaError(f"Expected pictures that can be read in {str(folder)!r}, got {'; '.join(broken):.300}.")
    if info is None:
        _check_of_one_scorer(chosen, folder)
    scores = tuple(_score(file, info) for file in chosen)
    return ScoredFolder(tuple(chosen), tuple(pixels), scores, tuple(broken))


def picture_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files in a folder that are named as pictures, by name; empty where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(path for path in found if path.suffix.lower() in PICTURE_SUFFIXES)


def folder_report(folder: ScoredFolder, scores: Sequence[float]) -> str:
    """A line for each picture, best first: its place, its number from 0, its score and its file; then what is broken.

    Args:
        folder: As read.
        scores: One per picture; those that are not in the files were made now. NaN stands last.
    """
    carried = sum(not math.isnan(score) for score in folder.scores)
    lines = [f"{len(scores)} pictures, {carried} with a score in the file"]
    decimals = decimals_of(scores)
    best_first = order_by_score(range(len(scores)), scores)
    for rank, row in enumerate(best_first.kept, start=1):
        lines.append(f"#{rank}  no. {row}  {scores[row]:.{decimals}f}  {readable(folder.files[row].path.name)}")
    lines += [f"-  no. {row}  not scored  {readable(folder.files[row].path.name)}" for row in best_first.failed]
    return "\n".join([*lines, *(f"cannot be read: {broken}" for broken in folder.broken)])


def _metadata(path: Path) -> PictureMetadata | None:
    """Without the pixels: the chunk stands before them. A file that cannot be read says nothing here."""
    try:
        with PIL.Image.open(path) as opened:
            return read_metadata(opened)
    except Exception:  # Pillow's openers raise nearly every kind on broken data; reading the pixels says why
        return None


def _score(file: ScoredFile, info: ScorerInfo | None) -> float:
    known = file.metadata
    if known is None or (info is not None and (known.model, known.revision) != (info.name, info.revision)):
        return math.nan
    return known.score


def _check_of_one_scorer(files: Sequence[ScoredFile], folder: str | os.PathLike[str]) -> None:
    """Scores of different scorers are on different scales."""
    names = sorted({str(file.metadata.model) for file in files if file.metadata is not None})
    if len(names) > 1:
        raise MaAgiqaError(
            f"Expected scores of one scorer in {str(folder)!r}, got those of {', '.join(names)}, which are on "
            "different scales. Connect the scorer whose scores you want: it scores the other pictures."
        )
