"""The PNG text chunk `ma_agiqa`: how a picture was scored and, where known, how it was made.

The chunk is JSON in ASCII, so that every reader of PNG text gets it right. Other chunks, such as ComfyUI's `prompt`
and `workflow`, are left as they are.
"""

import inspect
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from ..atomic_write import atomic_write
from ..errors import MaAgiqaError, first_line
from ..ranking import order
from ..scorers.scorer import ScorerInfo

CHUNK = "ma_agiqa"
FORMAT = 1
_IF_KNOWN = ("seed", "pipeline", "steps", "guidance", "prompt")


@dataclass(frozen=True)
class PictureMetadata:
    """What the chunk says.

    Attributes:
        score: Higher is better.
        percentile: 0 to 100, or None if the scorer was not calibrated.
        model: Name of the scorer; None if not known.
        revision: Of the scorer's weights and settings; None if not known.
        rank: Place among the pictures it was compared with; 1 is best.
        index: Which of them it was, from 0 in the order in which they were made or given.
        seed: Of the generator that the picture began with, as are the following None if not known.
        pipeline: Class of the diffusers pipeline.
        steps: Number of inference steps.
        guidance: Guidance scale.
        prompt: What the picture was to show.
    """

    score: float
    percentile: float | None
    model: str | None
    revision: str | None
    rank: int
    index: int
    seed: int | None = None
    pipeline: str | None = None
    steps: int | None = None
    guidance: float | None = None
    prompt: str | None = None

    def to_json(self) -> str:
        """One ASCII line; what is not known of the picture's making is left out."""
        known = {name: value for name, value in asdict(self).items() if value is not None or name not in _IF_KNOWN}
        return json.dumps({"format": FORMAT, **known}, allow_nan=False)


def add_metadata(chunks: PngInfo, metadata: PictureMetadata) -> PngInfo:
    """Adds the chunk to those that are going to be written; gives `chunks` back."""
    chunks.add_text(CHUNK, metadata.to_json())
    return chunks


def metadata_of_scores(scores: Sequence[float], info: ScorerInfo | None = None) -> list[PictureMetadata | None]:
    """The chunk of every picture of a group, whose ranks are among each other.

    Args:
        scores: One per picture, higher is better.
        info: Of the scorer; without it model and percentiles are not known.

    Returns:
        In input order; None for a picture whose score is not finite.
    """
    place = {index: place for place, index in enumerate(order(scores), start=1)}
    return [
        PictureMetadata(
            score=score,
            percentile=info.percentile_if_known(score) if info else None,
            model=info.name if info else None,
            revision=info.revision if info else None,
            rank=place[index],
            index=index,
        )
        if math.isfinite(score)
        else None
        for index, score in enumerate(scores)
    ]


def save_picture(
    image: PIL.Image.Image,
    path: str | os.PathLike[str],
    metadata: PictureMetadata | None,
    chunks: PngInfo | None = None,
    compress_level: int = 6,
) -> Path:
    """Writes a PNG with the chunk; the file appears whole or not at all.

    Args:
        image: What to save.
        path: A file there is replaced.
        metadata: None writes no chunk of ours.
        chunks: Written with the picture; ours is added to them.
        compress_level: 0 to 9, of the PNG; larger is smaller and slower, never worse.
    """
    path = Path(path)
    if metadata is not None:
        chunks = add_metadata(PngInfo() if chunks is None else chunks, metadata)
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks, compress_level=compress_level)
    return path


def read_metadata(image: str | os.PathLike[str] | PIL.Image.Image) -> PictureMetadata | None:
    """What the chunk of a PNG says; None if it has none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no whole picture, or the chunk is not one of ours, or of a later format.
    """
    text = image.info.get(CHUNK) if isinstance(image, PIL.Image.Image) else _text_of_file(image)
    if text is None:
        return None
    try:
        known: dict[str, Any] = json.loads(text)
        version = known.pop("format")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise MaAgiqaError(f"Expected JSON with a format in the chunk {CHUNK!r}, got {text!r:.80}.") from None
    if version != FORMAT:
        raise MaAgiqaError(f"Expected format {FORMAT} in the chunk {CHUNK!r}, got {version!r:.80}. Update ma-agiqa.")
    kinds = {field.name: inspect.formatannotation(field.type) for field in fields(PictureMetadata)}
    values = {name: value for name, value in known.items() if name in kinds}
    try:
        found = PictureMetadata(**values)
    except TypeError as error:
        raise MaAgiqaError(
            f"Expected score, model, rank and index in the chunk {CHUNK!r}, got {text!r:.200}."
        ) from error
    for name, value in values.items():
        if not _is_of(kinds[name], value):
            raise MaAgiqaError(f"Expected {kinds[name]} as {name} in the chunk {CHUNK!r}, got {value!r:.80}.")
    return found


def _is_of(kind: str, value: object) -> bool:
    """Whether a value read from a file is what a field holds; JSON of Python's may also hold NaN and Infinity."""
    if value is None:
        return "None" in kind
    if kind.startswith("str"):
        return isinstance(value, str)
    if isinstance(value, float):
        return kind.startswith("float") and math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _text_of_file(path: str | os.PathLike[str]) -> Any:
    try:
        with PIL.Image.open(path) as opened:
            opened.load()  # text may stand behind the pixels
            return opened.info.get(CHUNK)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken data
        raise MaAgiqaError(f"Expected a whole picture, got {os.fspath(path)!r}: {first_line(error)}") from error
