"""What of a PNG, JPEG, WebP or AVIF file decides its pixels: metadata, whole, broken or huge, never reaches Pillow.

Pillow gives up pictures whose pixels are whole: above its limits for ICC profiles and text, which are settings of the
whole process, and where metadata is damaged. So it is given the file without them; only the orientation is read, here.
"""

import io
import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TypeAlias

from ..errors import UnreadablePictureError

MOST_METADATA = 2**20
"""Bytes of one piece of metadata that are searched for the orientation, decompressed."""

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # EXIF 2.32
_FORMATS_OF_NUMBERS = {1: "B", 3: "H", 4: "L"}  # TIFF 6.0: the types BYTE, SHORT, LONG
_IN_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_EXIF_ITEM = re.compile(rb"infe[\2\3]...(?:..){1,2}..(Exif)", re.DOTALL)  # ISO 14496-12, ItemInfoEntry
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP (WebP container specification, VP8X)

Part: TypeAlias = bytes | tuple[int, int]
"""Bytes, or where they lie in the file: from, to."""


@dataclass(frozen=True)
class PixelParts:
    """A picture file without its metadata.

    Attributes:
        file: What is left; reads from the file it was made of.
        orientation: 1 to 8 as in EXIF, None if there is none, or if the file is left as it is.
    """

    file: IO[bytes]
    orientation: int | None


def pixel_parts(file: IO[bytes]) -> PixelParts:
    """The file without metadata; files of other formats as they are.

    Raises:
        UnreadablePictureError: A WebP file ends before its pixels do.
    """
    file.seek(0)
    start = file.read(16)
    if start.startswith(_PNG):
        parts, orientation = _parts_of_png(file)
    elif start.startswith(_JPEG):
        parts, orientation = _parts_of_jpeg(file)
    elif start[:4] == b"RIFF" and start[8:12] == b"WEBP" and len(start) == 16:
        parts, orientation = _parts_of_webp(file)
    elif start[4:8] == b"ftyp":
        parts, orientation = _parts_of_avif(file), None
    else:
        return PixelParts(file, None)
    return PixelParts(io.BufferedReader(_Spliced(file, parts)), orientation)


def _parts_of_png(file: IO[bytes]) -> tuple[list[Part], int | None]:
    """Critical chunks and the transparency; chunks that cannot be followed are left to Pillow up to the first IDAT."""
    end, place = _size(file), len(_PNG)
    parts: list[Part] = [(0, place)]
    found: list[int | None] = []
    has_pixels = False
    while place < end:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            parts += [] if has_pixels else [(place, end)]
            break
        (length,), kind = struct.unpack(">I", head[:4]), head[4:]
        after = place + 12 + length
        if kind[:1].isupper() or kind == b"tRNS":
            parts.append((place, min(after, end)))
            has_pixels |= kind == b"IDAT"
        elif kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            found.append(_orientation_in_png(kind, file.read(min(length, MOST_METADATA))))
        if kind == b"IEND":
            break
        place = after
    return parts, next(filter(None, found), None)


def _orientation_in_png(kind: bytes, data: bytes) -> int | None:
    if kind == b"eXIf":
        return exif_orientation(data)
    keyword, _, rest = data.partition(b"\0")
    if keyword not in (b"XML:com.adobe.xmp", b"Raw profile type exif"):  # the second is ImageMagick's
        return None
    is_compressed, text = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
    if kind == b"iTXt":
        is_compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    if is_compressed:
        try:
            text = zlib.decompressobj().decompress(text, MOST_METADATA)
        except zlib.error:
            return None
    if keyword.startswith(b"XML"):
        return _xmp_orientation(text)
    try:
        return exif_orientation(bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii")))
    except ValueError:
        return None


def _parts_of_jpeg(file: IO[bytes]) -> tuple[list[Part], int | None]:
    """All but comments and application segments, of which Adobe's says how colours are stored."""
    end, place = _size(file), 2
    parts: list[Part] = [(0, 2)]
    in_exif: list[int | None] = []
    in_xmp: list[int | None] = []
    while place < end:
        file.seek(place)
        head = file.read(4)
        marker = head[1] if len(head) == 4 and head[0] == 0xFF else 0
        (length,) = struct.unpack(">H", head[2:]) if marker else (0,)
        after = place + 2 + length
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if marker == 0xDA:  # the pixels begin
            break
        if marker in (0, 0xFF) or length < 2 or after > end:  # Pillow may know what to make of it
            return [(0, end)], next(filter(None, in_exif + in_xmp), None)
        data = file.read(min(length - 2, MOST_METADATA)) if is_metadata else b""
        is_adobe = marker == 0xEE and data.startswith(b"Adobe") and len(data) >= 12
        if not is_metadata or is_adobe:
            parts.append((place, after))
        elif marker == 0xE1 and data.startswith(_EXIF):
            in_exif.append(exif_orientation(data))
        elif marker == 0xE1 and data.startswith(_XMP):
            in_xmp.append(_xmp_orientation(data))
        place = after
    parts.append((place, end))
    return parts, next(filter(None, in_exif + in_xmp), None)


def _parts_of_webp(file: IO[bytes]) -> tuple[list[Part], int | None]:
    end, place = _size(file), 12
    parts: list[Part] = []
    orientation = None
    while place + 8 <= end:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(8))
        after = place + 8 + length + length % 2
        if kind in _WEBP_PIXELS:
            if place + 8 + length > end:
                raise UnreadablePictureError("truncated file")
            if kind == b"VP8X" and length:
                flags = file.read(1)[0] & ~_WEBP_METADATA_FLAGS
                parts += [(place, place + 8), bytes([flags]), (place + 9, after)]
            else:
                parts += [(place, min(after, end)), *([b"\0"] if after > end else [])]
        elif kind == b"EXIF":
            orientation = exif_orientation(file.read(min(length, MOST_METADATA)))
        place = after
    size = sum(_length(part) for part in parts)
    return [struct.pack("<4sI4s", b"RIFF", 4 + size, b"WEBP"), *parts], orientation


def _parts_of_avif(file: IO[bytes]) -> list[Part]:
    """All, with the EXIF item under a name that no reader knows; how it is turned, AVIF says elsewhere."""
    end, place = _size(file), 0
    while place + 8 <= end:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"meta":
            items = _EXIF_ITEM.finditer(file.read(min(length, MOST_METADATA)))
            renamed = [place + 8 + item.start(1) for item in items]
            cuts = [0, *(cut for name in renamed for cut in (name, name + 4)), end]
            kept: list[Part] = [(cuts[number], cuts[number + 1]) for number in range(0, len(cuts), 2)]
            return [part for pair in zip(kept, [*[b"skip"] * len(renamed), b""], strict=True) for part in pair]
        if length < 8:  # to the end of the file, or of 64 bits: the pixels
            break
        place += length
    return [(0, end)]


def exif_orientation(data: bytes) -> int | None:
    """What EXIF data says, whatever is broken behind it; 1 to 8, or None."""
    tiff = data.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}L", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHL", tiff, entry)
            if tag == _ORIENTATION and kind in _FORMATS_OF_NUMBERS:
                (value,) = struct.unpack_from(order + _FORMATS_OF_NUMBERS[kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else None
    except struct.error:  # it ends before
        return None
    return None


def _xmp_orientation(data: bytes) -> int | None:
    match = _IN_XMP.search(data)
    return None if match is None else int(match[1])


def _size(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)


def _length(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


class _Spliced(io.RawIOBase):
    """Parts of a file, and bytes in their place, as one file."""

    def __init__(self, file: IO[bytes], parts: Iterable[Part]) -> None:
        self._file = file
        self._parts: list[Part] = []
        self._starts: list[int] = []
        self._end = self._place = 0
        for part in parts:
            self._add(part)

    def _add(self, part: Part) -> None:
        last = self._parts[-1] if self._parts else b""
        if isinstance(part, tuple) and isinstance(last, tuple) and last[1] == part[0]:  # a PNG has thousands of IDAT
            self._parts[-1] = (last[0], part[1])
        elif _length(part) > 0:
            self._parts.append(part)
            self._starts.append(self._end)
        self._end += _length(part)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence], 0)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._place >= self._end or not buffer:
            return 0
        number = bisect_right(self._starts, self._place) - 1
        part, inside = self._parts[number], self._place - self._starts[number]
        most = min(len(buffer), _length(part) - inside)
        if isinstance(part, bytes):
            data = part[inside : inside + most]
        else:
            self._file.seek(part[0] + inside)
            data = self._file.read(most)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
