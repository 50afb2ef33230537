"""From a picture file or PIL image of any format and mode to plain 8-bit RGB, or one line why not.

First frame, EXIF orientation applied, alpha over white, ICC profile left alone. Pillow's global
settings and Python's warning filters stay as the caller has them.
"""

import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import PIL.Image
from PIL import ExifTags, ImageCms

from .errors import UnreadablePictureError

MAX_PICTURE_PIXELS = 178_956_970
"""Pillow's own hard limit, checked here from the header whatever `PIL.Image.MAX_IMAGE_PIXELS` says."""

_TOO_LARGE = f"larger than {MAX_PICTURE_PIXELS:,} pixels (decompression bomb limit)".replace(",", " ")
_MODES_BEYOND_8_BITS = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
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
    with _failures_explained():
        status = Path(os.fsdecode(path)).stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadablePictureError("is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise UnreadablePictureError("not a regular file")
        if status.st_size == 0:
            raise UnreadablePictureError("file is empty")
        with Path(os.fsdecode(path)).open("rb") as file:
            image = _open(file)
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise UnreadablePictureError(_TOO_LARGE)
            _load(image)
            return to_rgb(image)


def load_image(image: PIL.Image.Image) -> PIL.Image.Image:
    """The same image, its pixels read from the file that the caller opened it from.

    Raises:
        UnreadablePictureError: It has no pixels, or its file is broken or closed.
    """
    # The same image may be given twice and meet two decoding threads; Pillow cannot load it in both.
    with _failures_explained(), _loading:
        if 0 in image.size:
            raise UnreadablePictureError("has no pixels")
        image.load()
        return image


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The current frame of a PIL image of any mode, upright, as RGB over white.

    Grey of more than 8 bits keeps its shades: 16-bit values are divided by 257, and where values go
    beyond 16 bits the brightest becomes white. White in a float picture is 1, 255 or 65535, the first
    that no value exceeds.
    """
    image.load()
    if image.mode in _MODES_BEYOND_8_BITS:
        rgb = _shades(image).convert("RGB")
    elif image.mode == "LAB":
        rgb = _lab_to_rgb(image)
    elif image.has_transparency_data and image.mode in _MODES_WITH_TRANSPARENCY:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        rgb = PIL.Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba)
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    orientation = _orientation(image)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _shades(image: PIL.Image.Image) -> PIL.Image.Image:
    values = np.asarray(image).astype(np.float32)
    peak = float(values.max(where=np.isfinite(values), initial=0))
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((white for white in whites if peak <= white), peak)
    shades = np.nan_to_num(values, nan=0, posinf=white, neginf=0) * (255 / white)
    grey = np.rint(shades.clip(0, 255)).astype(np.uint8)
    if "transparency" in image.info:  # the one value that a 16-bit PNG declares transparent
        grey[values == image.info["transparency"]] = 255
    return PIL.Image.fromarray(grey)


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


def _open(file: IO[bytes]) -> PIL.Image.Image:
    """`PIL.Image.open` without its warning above 89 megapixels.

    Warning filters belong to the whole process: silencing that one from decoding threads would race with
    everybody else's `catch_warnings`. Asking Pillow's registered plugins directly never warns.
    """
    PIL.Image.preinit()
    PIL.Image.init()
    prefix = file.read(16)
    # Plugins that know their signature come first: the others try to read anything.
    for name in sorted(PIL.Image.ID, key=lambda name: PIL.Image.OPEN[name][1] is None):
        factory, accepts = PIL.Image.OPEN[name]
        if accepts is None or accepts(prefix) is True:
            file.seek(0)
            try:
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # not of this format after all
                continue
    raise PIL.UnidentifiedImageError


def _load(image: PIL.Image.Image) -> None:
    quiet_up_to = PIL.Image.MAX_IMAGE_PIXELS
    if quiet_up_to is None or image.width * image.height <= quiet_up_to:
        image.load()
        return
    with (
        _silencing,
        warnings.catch_warnings(),
    ):  # some plugins warn again; too rare to race
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        image.load()


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
        return "not a picture Pillow can read"
    if isinstance(error, PIL.Image.DecompressionBombError):
        return _TOO_LARGE
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, EOFError | struct.error) or "truncated" in text.lower() or "not enough" in text:
        return "truncated file"
    return f"cannot be decoded, perhaps damaged: {text or type(error).__name__}"
