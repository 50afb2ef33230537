"""Small JPEG copies of pictures, made in worker threads and carried inside the report as data: URIs."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from ..pictures.prefetch import prefetch
from ..pictures.reading import PIXELS_AHEAD, UnreadablePictureError, pixel_count, read_picture

# (at most this many pictures, longest side in pixels, JPEG quality): few pictures get large previews,
# 2,000 take about 8 kB each.
SIZES = ((60, 640, 82), (240, 448, 80), (800, 320, 76))
SMALLEST = (224, 72)


@dataclass(frozen=True)
class Thumbnail:
    """A preview, or the reason there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    error: str | None = None


def preview_size(count: int) -> tuple[int, int]:
    """Longest side and JPEG quality of each of `count` previews."""
    return next(((side, quality) for most, side, quality in SIZES if count <= most), SMALLEST)


def make_thumbnails(paths: Sequence[str], *, workers: int | None = None) -> Iterator[Thumbnail]:
    """Previews in the order of `paths`; an unreadable file gives its reason, never an exception."""
    side, quality = preview_size(len(paths))
    workers = workers or min(4, os.cpu_count() or 1)
    return prefetch(
        paths,
        lambda path: make_thumbnail(path, side, quality),
        workers,
        2 * workers,
        weigh=pixel_count,
        most=PIXELS_AHEAD,
    )


def make_thumbnail(path: str, side: int, quality: int) -> Thumbnail:
    """One picture, upright, at most `side` pixels wide and high, on white where it is transparent."""
    try:
        picture = read_picture(path)
    except UnreadablePictureError as error:
        return Thumbnail(error=str(error))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=quality, optimize=True)
    encoded = base64.b64encode(jpeg.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", picture.width, picture.height)
