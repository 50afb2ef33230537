"""Every format, mode and kind of damage; expected colours are computed by hand, not by Pillow."""

import colorsys
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ExifTags, ImageCms

from ma_agiqa_core.pictures.reading import UnreadablePictureError, load_image, read_picture, to_rgb

PIL.Image.init()  # so that PIL.Image.SAVE is complete
TOO_LARGE = "larger than 178 956 970 pixels (decompression bomb limit)"


def noise(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, image: PIL.Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def encoded(image: PIL.Image.Image, fmt: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, transparent: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    body = header + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pixel(mode: str, value: object) -> list[int]:
    image = PIL.Image.new(mode, (1, 1), value)  # type: ignore[arg-type]
    return np.asarray(to_rgb(image))[0, 0].tolist()


def reason(path: Path | str) -> str:
    with pytest.raises(UnreadablePictureError) as raised:
        read_picture(path)
    return str(raised.value)


# --- formats ---


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "PPM", "TGA", "QOI", "PCX", "SGI"])
@pytest.mark.parametrize("name", ["picture", "picture.jpg"])
def test_lossless_formats_give_exact_pixels_whatever_the_name(tmp_path: Path, fmt: str, name: str) -> None:
    if fmt == "QOI" and "QOI" not in PIL.Image.SAVE:
        pytest.skip("this Pillow cannot write QOI")
    path = saved(tmp_path / name, PIL.Image.fromarray(noise()), format=fmt)
    picture = read_picture(path)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), noise())


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "GIF", "AVIF", "JPEG2000"])
def test_lossy_formats(tmp_path: Path, fmt: str) -> None:
    if fmt not in PIL.Image.SAVE:
        pytest.skip(f"this Pillow cannot write {fmt}")
    flat = np.full((32, 48, 3), (200, 60, 30), np.uint8)
    picture = read_picture(saved(tmp_path / "x", PIL.Image.fromarray(flat), format=fmt))
    assert (picture.mode, picture.size) == ("RGB", (48, 32))
    np.testing.assert_allclose(np.asarray(picture), flat, atol=8)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0)))
    np.testing.assert_allclose(np.asarray(read_picture(path))[8, 8], [0, 255, 255], atol=3)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_animations(tmp_path: Path, fmt: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path / "x", frames[0], format=fmt, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(np.asarray(read_picture(path))[4, 4], [255, 0, 0], atol=3)


def test_transparent_gif(tmp_path: Path) -> None:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path / "x.gif", image, transparency=0)
    np.testing.assert_array_equal(np.asarray(read_picture(path))[0], [[255, 255, 255], [200, 100, 50]])


@pytest.mark.parametrize(("alpha", "left"), [(0, [255, 255, 255]), (bytes([128, 255]), [132, 137, 142])])
def test_palette_png_with_transparency(tmp_path: Path, alpha: int | bytes, left: list[int]) -> None:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = np.asarray(read_picture(saved(tmp_path / "x.png", image, transparency=alpha)))[0]
    np.testing.assert_allclose(pixels, [left, [200, 100, 50]], atol=1)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_files_keep_their_shades(tmp_path: Path, suffix: str) -> None:
    if suffix == "jp2" and "JPEG2000" not in PIL.Image.SAVE:
        pytest.skip("this Pillow cannot write JPEG 2000")
    shades = np.array([[0, 128, 129, 256, 257, 20000, 32768, 65535]] * 8, np.uint16)
    path = tmp_path / f"x.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 8 8 65535\n" + shades.astype(">u2").tobytes())
    else:
        saved(path, PIL.Image.fromarray(shades))
    expected = np.rint(shades / 257)
    np.testing.assert_array_equal(np.asarray(read_picture(path))[..., 1], expected)


def test_16_bit_colour_png(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 32896, 0)))
    np.testing.assert_allclose(np.asarray(read_picture(path))[0, 0], [255, 128, 0], atol=1)


@pytest.mark.parametrize(
    ("depth", "rows", "key", "expected"),
    [
        (16, struct.pack(">2H", 1000, 40000), 1000, [255, 156]),
        (8, bytes([10, 20]), 10, [255, 20]),
        (1, bytes([0b01000000]), 0, [255, 255]),
    ],
)
def test_transparent_shade_of_a_grey_png(
    tmp_path: Path, depth: int, rows: bytes, key: int, expected: list[int]
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, depth, 0, b"\0" + rows, struct.pack(">H", key)))
    assert np.asarray(read_picture(path))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, fmt: str, orientation: int) -> None:
    corners = np.zeros((32, 48, 3), np.uint8)
    corners[:16, :24], corners[:16, 24:], corners[16:, :24] = 60, 120, 180
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path / "x", PIL.Image.fromarray(corners), format=fmt, exif=exif)
    upright = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.swapaxes(0, 1),
        6: np.rot90(corners, -1),  # the camera was held upright: turn clockwise
        7: corners[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(corners),
    }[orientation]
    np.testing.assert_allclose(np.asarray(read_picture(path), int), upright, atol=12)


def test_broken_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", PIL.Image.new("RGB", (8, 8), "red"), exif=b"Exif\0\0garbage that is no TIFF")
    assert read_picture(path).size == (8, 8)


def test_icc_profile_is_left_alone(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    path = saved(tmp_path / "x.png", PIL.Image.fromarray(noise()), icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(read_picture(path)), noise())


# --- modes ---


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (100, 51), [224, 224, 224]),  # 100 * 0.2 + 255 * 0.8
        ("La", (20, 51), [224, 224, 224]),  # the same, premultiplied
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBX", (1, 2, 3, 4), [1, 2, 3]),
        ("RGBA", (0, 100, 200, 102), [153, 193, 233]),  # 0.4 of it over white
        ("RGBA", (0, 100, 200, 0), [255, 255, 255]),
        ("RGBa", (0, 40, 80, 102), [153, 193, 233]),
        ("CMYK", (51, 102, 0, 51), [163, 122, 204]),  # (255 - c) (255 - k) / 255
        ("YCbCr", (128, 90, 160), [173, 118, 61]),  # ITU-R BT.601, as in JFIF
        (
            "HSV",
            (85, 128, 200),
            [round(255 * v) for v in colorsys.hsv_to_rgb(85 / 255, 128 / 255, 200 / 255)],
        ),
        ("LAB", (128, 168, 158), [188, 88, 71]),  # by Lindbloom's matrix from XYZ (D50) to sRGB
        ("I;16", 257, [1, 1, 1]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16B", 32896, [128, 128, 128]),
        ("I;16L", 32896, [128, 128, 128]),
        ("I", 40000, [156, 156, 156]),
        ("I", -5, [0, 0, 0]),
        ("F", 0.5, [128, 128, 128]),
        ("F", 77.0, [77, 77, 77]),
        ("F", 40000.0, [156, 156, 156]),
    ],
)
def test_modes(mode: str, value: object, expected: list[int]) -> None:
    np.testing.assert_allclose(pixel(mode, value), expected, atol=1)


@pytest.mark.parametrize("mode", PIL.Image.MODES)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    assert to_rgb(PIL.Image.new(mode, (3, 2))).mode == "RGB"


def test_palette_and_alpha() -> None:
    image = PIL.Image.new("PA", (1, 1), (0, 102))
    image.putpalette([0, 100, 200])
    np.testing.assert_allclose(np.asarray(to_rgb(image))[0, 0], [153, 193, 233], atol=1)


def test_odd_floats_do_no_harm() -> None:
    image = PIL.Image.fromarray(np.array([[np.nan, np.inf, -np.inf, 0.2]], np.float32))
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 255, 0, 51]


# --- damage ---


def test_reasons_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "svg.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert reason(tmp_path / "missing.png") == "no such file"
    assert reason(tmp_path / "empty.png") == "file is empty"
    assert reason(tmp_path / "text.jpg") == "not a picture Pillow can read"
    assert reason(tmp_path / "svg.png") == "not a picture Pillow can read"
    assert reason(tmp_path) == "is a folder, not a picture"
    assert "null" in reason("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "not a regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", PIL.Image.new("RGB", (2, 2)))
    path.chmod(0)
    assert reason(path) == "permission denied"


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_half_a_file_is_truncated(tmp_path: Path, fmt: str) -> None:
    data = encoded(PIL.Image.fromarray(noise(64, 64)), fmt)
    path = tmp_path / "x"
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) == "truncated file"


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "TGA", "ICO", "PCX"])
def test_any_damage_is_either_read_or_explained_in_one_line(tmp_path: Path, fmt: str) -> None:
    data = encoded(PIL.Image.fromarray(noise(20, 24)), fmt)
    random = np.random.default_rng(1)
    path = tmp_path / "x"
    for cut in {*range(1, 40), *random.integers(1, len(data), 20).tolist()}:
        damaged = bytearray(data[:cut] if cut % 2 else data)
        for place in random.integers(0, len(damaged), 5):
            damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            outcome = read_picture(path).mode
        except UnreadablePictureError as error:
            outcome = str(error)
        assert outcome
        assert "\n" not in outcome
        assert str(path) not in outcome


@pytest.mark.parametrize("side", [13_378, 60_000])
def test_bombs_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, b""))
    assert reason(path) == TOO_LARGE


def test_large_pictures_below_the_limit_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 200)  # stands for 89 megapixels
    image = PIL.Image.new("RGB", (20, 15))
    paths = [saved(tmp_path / f"x.{suffix}", image) for suffix in ("png", "jpg", "tif", "gif", "bmp", "webp")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {read_picture(path).size for path in paths} == {(20, 15)}


def test_pillows_settings_stay_as_they_are(tmp_path: Path) -> None:
    program = """
import sys, warnings, PIL.Image, PIL.ImageFile, torch
def state(): return PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:]
before = state()
from ma_agiqa_core.pictures.inputs import read_picture
read_picture(sys.argv[1])
assert state() == before
"""
    path = saved(tmp_path / "x.png", PIL.Image.new("RGB", (2, 2)))
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


# --- PIL images that somebody else opened ---


def test_image_that_turns_out_broken(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(PIL.Image.fromarray(noise(64, 64)), "JPEG")[:800])
    with PIL.Image.open(path) as image, pytest.raises(UnreadablePictureError, match=r"^truncated file$"):
        load_image(image)


def test_image_that_was_closed(tmp_path: Path) -> None:
    with PIL.Image.open(saved(tmp_path / "x.png", PIL.Image.new("RGB", (2, 2)))) as image:
        pass
    with pytest.raises(UnreadablePictureError, match="cannot be decoded"):
        load_image(image)


def test_image_without_pixels() -> None:
    with pytest.raises(UnreadablePictureError, match="has no pixels"):
        load_image(PIL.Image.new("RGB", (0, 5)))


def test_current_frame_of_an_opened_animation(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    path = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    with PIL.Image.open(path) as image:
        image.seek(1)
        assert np.asarray(to_rgb(load_image(image)))[4, 4].tolist() == [0, 255, 0]
        assert image.tell() == 1
