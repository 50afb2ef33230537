"""From a picture file or PIL image of any format and mode to plain 8-bit RGB, or one line why not.

First frame, EXIF orientation applied, alpha over white, ICC profile left alone. Pillow's global
settings and Python's warning filters stay as the caller has them.
"""

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import PIL.Image
from PIL import ExifTags, ImageCms
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import UnreadablePictureError
from .deep_shades import DEEP_MODES, eight_bit
from .formats import NOT_A_PICTURE, open_picture
from .pixel_parts import pixel_parts

MAX_PICTURE_PIXELS = 178_956_970
"""Pillow's own hard limit, checked here from the header whatever `PIL.Image.MAX_IMAGE_PIXELS` says."""

PIXELS_AHEAD = 2**26
"""Pixels decoded or being decoded before they are asked for: 67 million, 200 MB, twice that while they are decoded."""

_TOO_LARGE = f"larger than {MAX_PICTURE_PIXELS:,} pixels (decompression bomb limit)".replace(",", " ")
_MODES_WITH_TRANSPARENCY = {"1", "L", "P", "RGB", "LA", "La", "PA", "RGBA", "RGBa"}
_UPRIGHT = {  # EXIF orientation -> what turns the picture upright (EXIF 2.32, tag 0x0112)
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_loading = threading.Lock()
_silencing = threading.Lock()


def read_picture(path: str | os.PathLike[str]) -> PIL.Image.Image:
    """Reads one file as an RGB image.

    Raises:
        UnreadablePictureError: For whatever reason there are no pixels.
    """
    if not os.fspath(path):
        raise UnreadablePictureError("its path is empty")
    with _failures_explained():
        status = Path(os.fsdecode(path)).stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadablePictureError("is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):  # a pipe would block forever
            raise UnreadablePictureError("not a regular file")
        if status.st_size == 0:
            raise UnreadablePictureError("file is empty")
        with Path(os.fsdecode(path)).open("rb") as file:
            return _read(file)


def read_picture_bytes(content: bytes) -> PIL.Image.Image:
    """`read_picture` of a file that is in memory.

    Raises:
        UnreadablePictureError: For whatever reason there are no pixels.
    """
    with _failures_explained():
        if not content:
            raise UnreadablePictureError("file is empty")
        return _read(io.BytesIO(content))


def _read(file: IO[bytes]) -> PIL.Image.Image:
    parts = pixel_parts(file)
    image = open_picture(parts.file)
    if image.width * image.height > MAX_PICTURE_PIXELS:
        raise UnreadablePictureError(_TOO_LARGE)
    _load(image)
    return to_rgb(image, parts.orientation)


def pixel_count(path: str | os.PathLike[str]) -> int:
    """Width times height from the head of a file; 0 if it is no picture, or too large to be read."""
    try:
        if not Path(os.fsdecode(path)).is_file():
            return 0
        with Path(os.fsdecode(path)).open("rb") as file:
            return _count(file)
    except Exception:  # reading it will say why
        return 0


def pixel_count_of_bytes(content: bytes) -> int:
    """`pixel_count` of a file that is in memory."""
    try:
        return _count(io.BytesIO(content))
    except Exception:  # reading it will say why
        return 0


def _count(file: IO[bytes]) -> int:
    image = open_picture(pixel_parts(file).file)
    count = image.width * image.height
    return count if count <= MAX_PICTURE_PIXELS else 0


def load_image(image: PIL.Image.Image) -> PIL.Image.Image:
    """The same image, its pixels read from the file that the caller opened it from.

    Raises:
        UnreadablePictureError: It has no pixels, or its file is broken or closed.
    """
    # The same image may be given twice and meet two decoding threads; Pillow cannot load it in both.
    with _failures_explained(), _loading:
        if 0 in image.size:
            raise UnreadablePictureError("has no pixels")
        _load_without_metadata(image)
        return image


def to_rgb(image: PIL.Image.Image, orientation: int | None = None) -> PIL.Image.Image:
    """The current frame of a PIL image of any mode, upright, as RGB over white.

    Grey of more than 8 bits keeps its shades: white is what the file declares, 65535 for 16 bits; the whole rule is
    in `deep_shades`.

    Args:
        image: Loaded here, if it is not yet.
        orientation: As in EXIF, where it is known; else that of the image's own EXIF.

    Raises:
        UnreadablePictureError: Floats or 32-bit integers, and nothing says which value is white.
    """
    image.load()
    if image.mode in DEEP_MODES:
        rgb = eight_bit(image).convert("RGB")
    elif image.mode == "LAB":
        rgb = _lab_to_rgb(image)
    elif image.has_transparency_data and image.mode in _MODES_WITH_TRANSPARENCY:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        rgb = PIL.Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba)
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    orientation = _orientation(image) if orientation is None else orientation
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _lab_to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert rgb is not None  # it is None only when converting in place
    return rgb


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata is no reason to lose the picture
        return 1


def _load(image: PIL.Image.Image) -> None:
    quiet_up_to = PIL.Image.MAX_IMAGE_PIXELS
    if quiet_up_to is None or image.width * image.height <= quiet_up_to:
        _load_without_metadata(image)
        return
    with (
        _silencing,
        warnings.catch_warnings(),
    ):  # some plugins warn again; too rare to race
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        _load_without_metadata(image)


def _load_without_metadata(image: PIL.Image.Image) -> None:
    """`image.load()`, whatever is broken behind the pixels: text in a PNG, EXIF in a TIFF."""
    if not isinstance(image, PngImageFile | TiffImageFile):
        image.load()
        return
    load_end = image.load_end

    def forgiving() -> None:
        with suppress(Exception):
            load_end()

    vars(image)["load_end"] = forgiving  # of this one image: Pillow's settings are those of the process
    try:
        image.load()
    finally:
        vars(image).pop("load_end", None)


@contextmanager
def _failures_explained() -> Iterator[None]:
    try:
        yield
    except UnreadablePictureError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken data
        raise UnreadablePictureError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Any failure of the file system or of Pillow in words a user understands: one line, no path."""
    text = " ".join(str(error).split())
    if isinstance(error, PIL.UnidentifiedImageError):
        return NOT_A_PICTURE
    if isinstance(error, PIL.Image.DecompressionBombError):
        return _TOO_LARGE
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    is_cut = "truncated" in text.lower() and "chunk" not in text
    if isinstance(error, EOFError | struct.error) or is_cut or "not enough" in text:
        return "truncated file"
    return f"cannot be decoded, perhaps damaged: {text or type(error).__name__}"
