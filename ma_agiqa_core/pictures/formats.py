"""Which formats are opened, by which of Pillow's plug-ins, and which plug-in is missing for a picture.

Only formats that people keep pictures in, and whatever plug-in was registered with Pillow from outside: some of
Pillow's own start a program (EPS: Ghostscript), ask the system to draw (WMF), open further files, or read data that
are no pictures.
"""

import importlib
import struct
import threading
from collections.abc import Iterator
from typing import IO

import PIL.Image

from ..errors import UnreadablePictureError
from .plug_ins import AVIF, HEIC, JPEG_XL, PlugIn

# fmt: off
FORMATS = frozenset({
    "AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MSP", "PCX", "PNG", "PPM",
    "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
})
"""Pillow's names of the formats that are opened. Every one is decoded by Pillow itself, in this process."""
# fmt: on

NOT_A_PICTURE = "not a picture Pillow can read"
_LONG_SIGNATURES = {"AVIF", "DDS", "GIF", "ICNS", "JPEG", "JPEG2000", "PNG", "PSD", "QOI", "TIFF", "WEBP"}
_registering = threading.Lock()


def open_picture(file: IO[bytes]) -> PIL.Image.Image:
    """`PIL.Image.open` for these formats, without its warning above 89 megapixels.

    Warning filters belong to the whole process: silencing that one from decoding threads would race with
    everybody else's `catch_warnings`. Asking Pillow's registered plug-ins directly never warns.

    Raises:
        UnreadablePictureError: No plug-in opens it.
    """
    PIL.Image.preinit()
    PIL.Image.init()
    file.seek(0)
    prefix = file.read(16)
    needed = _plug_in_for(prefix)
    if needed is not None and needed.is_installed:
        _register(needed)
    reason = NOT_A_PICTURE if needed is None else f"{needed.format} needs a plug-in: pip install {needed.package}"
    for name in _asked():
        factory, accepts = PIL.Image.OPEN[name]
        if not _accepts(accepts, prefix):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (UnreadablePictureError, PIL.Image.DecompressionBombError, MemoryError):
            raise
        except Exception as error:  # not of this format after all, or damaged in its head
            if accepts is not None and (needed is None or _is_foreign(name)):
                reason = _why_not(name, error)
    raise UnreadablePictureError(reason)


def _asked() -> Iterator[str]:
    """Plug-ins that know their signature come first: the others try to read anything."""
    for name in sorted(PIL.Image.ID, key=lambda name: PIL.Image.OPEN[name][1] is None):
        if name in FORMATS or _is_foreign(name):
            yield name


def _is_foreign(name: str) -> bool:
    return not getattr(PIL.Image.OPEN[name][0], "__module__", "").startswith("PIL.")


def _accepts(accepts: object, prefix: bytes) -> bool:
    try:
        return accepts is None or (callable(accepts) and accepts(prefix) is True)
    except Exception:  # the file is too short for this question
        return False


def _why_not(name: str, error: Exception) -> str:
    """Of a file that begins like this format; two letters can begin anything."""
    text = " ".join(str(error).split())
    is_cut = isinstance(error.__cause__ or error, EOFError | struct.error) or text == "Truncated File Read"
    if is_cut:
        return "truncated file" if name in _LONG_SIGNATURES else NOT_A_PICTURE
    if name not in _LONG_SIGNATURES and not isinstance(error, OSError):
        return NOT_A_PICTURE
    return f"cannot be read as {name}: {text or type(error).__name__}"


def _plug_in_for(prefix: bytes) -> PlugIn | None:
    if prefix.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return JPEG_XL
    brand = prefix[8:12] if prefix[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return None if _reads_avif(prefix) else AVIF
    return HEIC if brand[:3] in (b"hei", b"hev", b"mif", b"msf") else None


def _reads_avif(prefix: bytes) -> bool:
    return any("AVIF" in name and _accepts(PIL.Image.OPEN[name][1], prefix) for name in PIL.Image.ID)


def _register(plug_in: PlugIn) -> None:
    with _registering:
        try:
            module = importlib.import_module(plug_in.module)
        except ImportError as error:
            raise UnreadablePictureError(f"{plug_in.format}: {plug_in.package} cannot be imported: {error}") from error
        register = getattr(module, "register_heif_opener", None)
        if register is not None and "HEIF" not in PIL.Image.OPEN:
            register()
