"""Pictures whose pixels are whole are read, whatever their metadata is; and only by plug-ins that read pictures."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import PIL.Image
import pytest
from PIL import PngImagePlugin

from ma_agiqa_core.pictures.reading import UnreadablePictureError, load_image, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
TURNED = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
BOMB = zlib.compress(bytes(300_000_000), 1)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def encoded(fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(file, fmt, **options)
    return file.getvalue()


def pixels(path: Path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    return np.asarray(read_picture(path))


def reason(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UnreadablePictureError) as raised:
        read_picture(path)
    return str(raised.value)


CHUNKS = {
    "3 MB ICC profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000))),
    "compressed workflow": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"abcdefg" * 300_000)),
    "compressed international workflow": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"abcdefg" * 300_000)),
    "70 MB of text": chunk(b"tEXt", b"workflow\0" + bytes(70_000_000)),
    "bomb": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "bomb in XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "wrong checksum": chunk(b"tEXt", b"a\0b", crc=1),
    "short gAMA": chunk(b"gAMA", b"x"),
    "unknown compression": chunk(b"iCCP", b"x\0\7abc"),
    "short animation": chunk(b"acTL", b"x"),
    "broken EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "no data": chunk(b"zTXt", b""),
}


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_png_with_any_metadata(tmp_path: Path, name: str, is_behind: bool) -> None:
    data = encoded("PNG")
    place = len(data) - 12 if is_behind else 33  # before IEND, or behind the head
    settings = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", data[:place] + CHUNKS[name] + data[place:]), PIXELS)
    assert settings == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def test_a_bomb_eats_no_memory_whatever_the_caller_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**31)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2**40)
    data = encoded("PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + CHUNKS["bomb"] + chunk(b"zTXt", b"a\0\0" + BOMB) + data[33:])
    tracemalloc.start()
    read_picture(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_png_opened_by_the_caller_with_much_text_behind_the_pixels() -> None:
    data = encoded("PNG")
    image = PIL.Image.open(io.BytesIO(data[:-12] + CHUNKS["compressed workflow"] + data[-12:]))
    np.testing.assert_array_equal(np.asarray(load_image(image)), PIXELS)
    assert "load_end" not in vars(image)


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"eXIf", TURNED),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n26\n" + TURNED.hex().encode())),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<rdf tiff:Orientation="6"/>'),
    ],
)
def test_orientation_of_a_png(tmp_path: Path, metadata: bytes) -> None:
    data = encoded("PNG")
    for place in (33, len(data) - 12):
        found = pixels(tmp_path / "a.png", data[:place] + metadata + data[place:])
        np.testing.assert_array_equal(found, np.rot90(PIXELS, -1))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


@pytest.mark.parametrize(
    "metadata",
    [
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE1, b"Exif\0\0" + TURNED[:-12] + b"\xff" * 4),
        segment(0xE2, b"MPF\0II*\0garbage"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\xff"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<cut"),
        segment(0xFE, b"comment"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_jpeg_with_broken_metadata(tmp_path: Path, metadata: bytes) -> None:
    data = encoded("JPEG")
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(pixels(tmp_path / "a.jpg", data[:2] + metadata + data[2:]), expected)


@pytest.mark.parametrize("is_cut", [False, True])
def test_webp_with_broken_metadata(tmp_path: Path, is_cut: bool) -> None:
    data = encoded("WEBP", lossless=True, exif=b"Exif\0\0" + b"x" * 100, xmp=b"<cut", icc_profile=b"no profile")
    np.testing.assert_array_equal(pixels(tmp_path / "a.webp", data[:-50] if is_cut else data), PIXELS)


def test_avif_with_broken_exif(tmp_path: Path) -> None:
    if "AVIF" not in PIL.Image.SAVE:
        pytest.skip("this Pillow cannot write AVIF")
    exif = PIL.Image.Exif()
    exif[0x010F] = "maker"
    data = encoded("AVIF", exif=exif.tobytes(), quality=100)
    expected = pixels(tmp_path / "a.avif", data)
    place = data.rindex(b"MM\0*")
    np.testing.assert_array_equal(pixels(tmp_path / "b.avif", data[:place] + b"junk" + data[place + 4 :]), expected)


def test_damaged_pixels_are_still_refused(tmp_path: Path) -> None:
    data = bytearray(encoded("PNG"))
    data[60:90] = bytes(30)
    assert "perhaps damaged" in reason(tmp_path / "a.png", bytes(data))
    assert reason(tmp_path / "b.jpg", encoded("JPEG")[:-60]) == "truncated file"
    assert reason(tmp_path / "c.webp", encoded("WEBP")[:-60]) == "truncated file"


# --- reasons ---


@pytest.mark.parametrize("text", [b"hi", b"BM", b"P1", b"P1 is first", b"\n", b"#define x", b"GI", b"\x89PNG"])
def test_short_texts_are_no_pictures(tmp_path: Path, text: bytes) -> None:
    assert reason(tmp_path / "a.png", text) == "not a picture Pillow can read"


@pytest.mark.parametrize(
    "fmt", ["AVIF", "BMP", "DDS", "GIF", "ICO", "JPEG", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_of_a_few_bytes_only_what_is_true_is_said(tmp_path: Path, fmt: str) -> None:
    if fmt not in PIL.Image.SAVE:
        pytest.skip(f"this Pillow cannot write {fmt}")
    data = encoded(fmt)
    for count in range(1, 33):
        said = reason(tmp_path / "a", data[:count])
        assert said in ("not a picture Pillow can read", "truncated file") or said.startswith(
            f"cannot be read as {fmt}"
        )
        assert count > 2 or said == "not a picture Pillow can read"


def test_random_bytes_are_no_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    said = {reason(tmp_path / "a.jpg", random.bytes(count)) for count in [*range(1, 80), *[4000] * 20]}
    assert said == {"not a picture Pillow can read"}


# --- plug-ins ---


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n",
        b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, 60) + bytes(200),
        b"\xd7\xcd\xc6\x9a\0\0" + bytes(80),
        b"GRIB" + bytes(80),
        b"\x89HDF\r\n\x1a\n" + bytes(80),
        b"\0\0\1\xb3" + bytes(80),
    ],
)
def test_no_plug_in_that_starts_a_program_is_asked(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append(arguments))
    assert reason(tmp_path / "a.png", data) == "not a picture Pillow can read"
    assert not started


def one_pixel(colour: str, module: str) -> Any:
    """What a plug-in registers."""

    def factory(file: IO[bytes], name: str | bytes) -> PIL.Image.Image:
        return PIL.Image.new("RGB", (1, 1), colour)

    factory.__module__ = module
    return factory


@pytest.fixture
def _pillow_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the plug-in: reads any HEIC as one red pixel, once it is registered."""
    module: Any = ModuleType("pillow_heif")
    factory = one_pixel("red", "pillow_heif")
    module.register_heif_opener = lambda: PIL.Image.register_open(
        "HEIF", factory, lambda prefix: prefix[4:12] == b"ftypheic"
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(PIL.Image, "ID", PIL.Image.ID[:])
    monkeypatch.setattr(PIL.Image, "OPEN", dict(PIL.Image.OPEN))


HEIC = b"\0\0\0\x18ftypheic" + bytes(40)


def test_heic_without_its_plug_in_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(tmp_path / "a.heic", HEIC) == "HEIC needs a plug-in: pip install pillow-heif"
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert (
        reason(tmp_path / "a.jxl", b"\xff\x0a" + bytes(40)) == "JPEG XL needs a plug-in: pip install pillow-jxl-plugin"
    )


@pytest.mark.usefixtures("_pillow_heif")
def test_an_installed_plug_in_is_used(tmp_path: Path) -> None:
    assert pixels(tmp_path / "a.heic", HEIC).tolist() == [[[255, 0, 0]]]


@pytest.mark.usefixtures("_pillow_heif")
def test_a_plug_in_that_the_user_registered_is_asked(tmp_path: Path) -> None:
    PIL.Image.register_open("OWN", one_pixel("lime", "other"), lambda prefix: prefix.startswith(b"own!"))
    assert pixels(tmp_path / "a.own", b"own! picture").tolist() == [[[0, 255, 0]]]
