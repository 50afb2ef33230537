"""White of grey pictures beyond 8 bits: declared, or the only one possible, or refused; never guessed from the peak."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ma_agiqa_core.pictures.reading import UnreadablePictureError, read_picture, to_rgb

PHOTOMETRIC, MAX, S_MAX = 262, 281, 341
RAMP = np.linspace(0, 1, 400).reshape(20, 20)


def tiff(path: Path, values: np.ndarray, **tags: Any) -> Path:
    """An uncompressed grey TIFF of any kind of number, written by hand."""
    kinds = {"u": 1, "i": 2, "f": 3}
    data = values.tobytes()
    entries: list[tuple[int, int, bytes]] = []

    def add(tag: int, kind: int, code: str, value: float) -> None:
        entries.append((tag, kind, struct.pack(f"<{code}", value).ljust(4, b"\0")))

    height, width = values.shape
    bits = tags.pop("bits", values.itemsize * 8)
    for tag, number in ((256, width), (257, height), (258, bits), (259, 1), (277, 1), (278, height)):
        add(tag, 3, "H", number)
    add(PHOTOMETRIC, 3, "H", tags.pop("photometric", 1))
    add(339, 3, "H", kinds[values.dtype.kind])
    if "maximum" in tags:
        add(MAX, 3, "H", tags["maximum"])
    if "s_maximum" in tags:
        add(S_MAX, 11, "f", tags["s_maximum"])
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    add(273, 4, "L", start)
    add(279, 4, "L", len(data))
    rows = b"".join(struct.pack("<HHL", tag, kind, 1) + value for tag, kind, value in sorted(entries))
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4) + data)
    return path


def grey(picture: PIL.Image.Image) -> np.ndarray:
    return np.asarray(picture)[..., 0]


def refusal(values: np.ndarray) -> str:
    with pytest.raises(UnreadablePictureError) as raised:
        to_rgb(PIL.Image.fromarray(values))
    return str(raised.value)


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("overshoot", [1.0005, 1.004, 1.1, 1.25])
def test_one_float_a_little_above_white_changes_no_other_pixel(tmp_path: Path, white: int, overshoot: float) -> None:
    values = (RAMP * white).astype(np.float32)
    before = grey(read_picture(tiff(tmp_path / "a.tif", values)))
    values[0, 0] = white * overshoot
    after = grey(read_picture(tiff(tmp_path / "b.tif", values)))
    np.testing.assert_array_equal(before, np.rint(RAMP * 255))
    assert after[0, 0] == 255
    np.testing.assert_array_equal(after.ravel()[1:], before.ravel()[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_no_value_of_one_pixel_changes_the_others_without_a_word(dtype: type, white: int) -> None:
    if dtype is np.int32 and white == 1:
        pytest.skip("two shades")
    values: np.ndarray = (RAMP * white).astype(dtype)
    before = grey(to_rgb(PIL.Image.fromarray(values)))
    read = 0
    for factor in [*np.geomspace(1e-5, 1e5, 400), *-np.geomspace(1e-5, 1e5, 100)]:
        changed = values.copy()
        changed[5, 5] = np.clip(white * factor, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
        try:
            after = grey(to_rgb(PIL.Image.fromarray(changed)))
        except UnreadablePictureError:
            continue
        read += 1
        assert np.count_nonzero(before != after) <= 1
    assert read > 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP * 2, "floats from 0 to 2, and nothing says which of them is white: save it with 8 or 16 bits"),
        (RAMP * 40, "floats from 0 to 40,"),
        (RAMP * 4095, "floats from 0 to 4095,"),
        (RAMP * 1e6, "floats from 0 to 1e+06,"),
        (RAMP * 2 - 1, "floats from -1 to 1,"),
        (np.full((2, 2), np.nan), "has no finite values"),
    ],
)
def test_floats_of_which_none_is_known_to_be_white(values: np.ndarray, message: str) -> None:
    assert refusal(values.astype(np.float32)).startswith(message)


@pytest.mark.parametrize("peak", [1, 40, 4095, 1_000_000])
def test_integers_of_which_none_is_known_to_be_white(peak: int) -> None:
    assert refusal((RAMP * peak).astype(np.int32)).startswith(f"integers from 0 to {peak:.6g}, and nothing says")


@pytest.mark.parametrize("white", [255, 65535, 2**32 - 1])
def test_unsigned_32_bit_tiff(tmp_path: Path, white: int) -> None:
    picture = read_picture(tiff(tmp_path / "a.tif", np.rint(RAMP * white).astype(np.uint32)))
    np.testing.assert_allclose(grey(picture), RAMP * 255, atol=1)


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (RAMP * 65535, {}),
        (RAMP * 4095, {"maximum": 4095}),
        (RAMP * 1023, {"maximum": 1023}),
    ],
)
def test_16_bit_tiff_is_as_deep_as_it_says(tmp_path: Path, values: np.ndarray, tags: dict[str, float]) -> None:
    picture = read_picture(tiff(tmp_path / "a.tif", np.rint(values).astype(np.uint16), **tags))
    np.testing.assert_allclose(grey(picture), RAMP * 255, atol=1)


@pytest.mark.parametrize("maximum", [700, 4000, 65000])
def test_a_maximum_that_is_a_statistic_does_not_brighten(tmp_path: Path, maximum: int) -> None:
    values = np.rint(RAMP * 700).astype(np.uint16)
    picture = read_picture(tiff(tmp_path / "a.tif", values, maximum=maximum))
    np.testing.assert_array_equal(grey(picture), np.rint(values / 257))


@pytest.mark.parametrize(("top", "maximum"), [(0.5, 0.5), (1.0, 1.0), (1000.0, 1000.0), (500.0, 1000.0)])
def test_float_tiff_that_declares_its_white(tmp_path: Path, top: float, maximum: float) -> None:
    values = (RAMP * top).astype(np.float32)
    picture = read_picture(tiff(tmp_path / "a.tif", values, s_maximum=maximum))
    np.testing.assert_allclose(grey(picture), values * 255 / max(maximum, 1), atol=1)


def test_12_bit_tiff(tmp_path: Path) -> None:
    packed = bytes([0x00, 0x0F, 0xFF, 0x7F, 0xF0, 0x10])  # 0, 4095, 2047, 16
    path = tmp_path / "a.tif"
    tiff(path, np.zeros((1, 4), np.uint16), bits=12)
    path.write_bytes(path.read_bytes()[:-8] + packed + b"\0\0")
    assert grey(read_picture(path))[0].tolist() == [0, 255, 127, 1]


def test_signed_16_bit_tiff(tmp_path: Path) -> None:
    values = np.array([[-5, 0, 16384, 32767]], np.int16)
    assert grey(read_picture(tiff(tmp_path / "a.tif", values)))[0].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(("dtype", "white"), [(np.uint16, 65535), (np.float32, 1)])
def test_tiff_whose_zero_is_white(tmp_path: Path, dtype: type, white: int) -> None:
    values: np.ndarray = (RAMP * white).astype(dtype)
    picture = read_picture(tiff(tmp_path / "a.tif", values, photometric=0))
    np.testing.assert_allclose(grey(picture), 255 - RAMP * 255, atol=1)


def test_tags_survive_in_an_image_that_was_opened_by_the_caller() -> None:
    tags = ImageFileDirectory_v2()
    tags[MAX] = 4095
    file = io.BytesIO()
    PIL.Image.fromarray(np.array([[0, 4095]], np.uint16)).save(file, "TIFF", tiffinfo=tags)
    assert grey(to_rgb(PIL.Image.open(file)))[0].tolist() == [0, 255]
