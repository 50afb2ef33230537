"""Every kind of input, malformed ones refused by name, and decoding ahead."""

import gc
import io
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ma_agiqa_core.pictures import inputs as images
from ma_agiqa_core.pictures.inputs import PictureError, as_picture_list, decode, iterate_pictures

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(COLOURS).save(path)
    return path


# --- one input ---


def test_all_kinds_of_one_picture_give_the_same_pixels(file: Path) -> None:
    tensor = torch.from_numpy(COLOURS).permute(2, 0, 1).float() / 255
    expected = torch.from_numpy(COLOURS).permute(2, 0, 1)
    for image in (file, str(file), PIL.Image.open(file), PIL.Image.fromarray(COLOURS), COLOURS):
        picture = decode(image, 3)
        assert picture.pixels is not None
        assert picture.pixels.dtype == torch.uint8
        assert torch.equal(picture.pixels, expected)
        assert (picture.index, picture.width, picture.height, picture.error) == (3, 7, 5, None)
        assert picture.path == (str(file) if isinstance(image, str | Path) else None)
    pixels = decode(tensor).pixels
    assert pixels is not None
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_tensors_become_float32(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0.0, 0.25, 1.0], dtype=dtype)[:, None, None].expand(3, 2, 2).requires_grad_()
    pixels = decode(tensor).pixels
    assert pixels is not None
    assert pixels.dtype == torch.float32
    assert not pixels.requires_grad
    assert pixels[:, 0, 0].tolist() == [0.0, 0.25, 1.0]


def test_rounding_beyond_the_range_is_clipped() -> None:
    pixels = decode(torch.tensor([-9e-4, 0.5, 1 + 9e-4])[:, None, None]).pixels
    assert pixels is not None
    assert pixels.flatten().tolist() == [0.0, 0.5, 1.0]


def test_arrays_of_any_memory_order() -> None:
    flipped = COLOURS[::-1, :, ::-1]
    frozen = COLOURS.copy()
    frozen.flags.writeable = False
    for array in (flipped, frozen, np.asfortranarray(COLOURS)):
        pixels = decode(array).pixels
        assert pixels is not None
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), array)


def test_unreadable_files_and_images_carry_their_error(tmp_path: Path) -> None:
    picture = decode(tmp_path / "missing.png", 2)
    assert (picture.pixels, picture.error, picture.width, picture.height) == (None, "no such file", 0, 0)
    assert decode(PIL.Image.new("RGB", (0, 3))).error == "has no pixels"


@pytest.mark.parametrize("name", ["猫 и кот.png", "a b'c\"d$(e);&.png", "line\nbreak.png", "-rf.png", "%s{0}.png"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    if sys.platform == "win32" and set(name) & set('"\n'):
        pytest.skip("not a file name on Windows")
    PIL.Image.fromarray(COLOURS).save(tmp_path / name)
    picture = decode(tmp_path / name)
    assert (picture.error, picture.path) == (None, str(tmp_path / name))


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text here")
def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    PIL.Image.fromarray(COLOURS).save(path)
    assert decode(path).error is None


def test_picture_error_says_which_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(PictureError(4, "a\nb.png", "file is empty")))
    assert type(error) is PictureError
    assert issubclass(PictureError, ValueError)
    assert (error.index, error.path, error.reason) == (4, "a\nb.png", "file is empty")
    assert str(error) == "Picture 4 ('a\\nb.png') cannot be scored: file is empty."
    assert str(PictureError(0, None, "has no pixels")) == "Picture 0 cannot be scored: has no pixels."


# --- malformed input ---

MALFORMED: list[tuple[Any, str]] = [
    (torch.zeros(4, 6, 3), r"float32 of shape \(4, 6, 3\).* image\.movedim\(-1, 0\)"),
    (torch.zeros(6, 6), r"shape \(6, 6\).*expand\(3, -1, -1\)"),
    (torch.zeros(1, 6, 6), r"shape \(1, 6, 6\).*expand\(3, -1, -1\)"),
    (torch.zeros(4, 6, 6), r"shape \(4, 6, 6\).* three channels"),
    (torch.zeros(3), r"shape \(3,\)"),
    (torch.zeros(3, 0, 6), r"shape \(3, 0, 6\).* a height and a width"),
    (torch.zeros(3, 6, 6, dtype=torch.uint8), r"torch\.uint8 .*\.float\(\) / 255"),
    (torch.zeros(3, 6, 6, dtype=torch.complex64), r"torch\.complex64"),
    (torch.zeros(3, 6, 6, dtype=torch.bool), r"torch\.bool"),
    (torch.full((3, 6, 6), 200.0), r"values 200 to 200.* image / 255"),
    (torch.linspace(-1, 1, 108).reshape(3, 6, 6), r"values -1 to 1.* \(image \+ 1\) / 2"),
    (torch.full((3, 6, 6), 1.002), r"values 1\.002 to 1\.002"),
    (torch.full((3, 6, 6), -1e6), r"Rescale"),
    (torch.full((3, 6, 6), torch.nan), r"nan.* NaN"),
    (torch.full((3, 6, 6), torch.inf), r"inf"),
    (np.zeros((6, 6, 3), np.float32), r"float32 of shape \(6, 6, 3\).* \* 255"),
    (np.zeros((6, 6, 3), np.uint16), r"uint16"),
    (np.zeros((6, 6), np.uint8), r"\(6, 6\).*PIL\.Image\.fromarray"),
    (np.zeros((6, 6, 4), np.uint8), r"\(6, 6, 4\).*PIL\.Image\.fromarray"),
    (np.zeros((3, 6, 6), np.uint8), r"\(3, 6, 6\).*transpose\(1, 2, 0\)"),
    (np.zeros((2, 6, 6, 3), np.uint8), r"\(2, 6, 6, 3\).*list\(images\)"),
    (np.zeros((0, 6, 3), np.uint8), r"\(0, 6, 3\)"),
    (np.array([["a"]]), r"<U1 of shape \(1, 1\)"),
]


@pytest.mark.parametrize(("image", "message"), MALFORMED)
def test_malformed_pictures_are_refused_by_name(image: Any, message: str) -> None:
    for refuse in (decode, as_picture_list, lambda image: next(iterate_pictures([image]))):
        with pytest.raises(ValueError, match=f"Expected a .*got .*{message}"):
            refuse(image)
    with pytest.raises(ValueError, match="as picture 1"):
        as_picture_list([COLOURS, image])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 8, 9, 3), r"\(2, 8, 9, 3\).*ComfyUI's BHWC layout; use images\.movedim\(-1, 1\)"),
        (torch.zeros(2, 8, 9, 4), r"BHWC"),
        (torch.zeros(2, 1, 8, 9), r"three channels"),
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), r"torch\.uint8.* / 255"),
        (torch.full((2, 3, 8, 9), 255.0), r"image / 255"),
        (torch.zeros(2, 2, 3, 8, 9), r"\(2, 2, 3, 8, 9\)"),
    ],
)
def test_malformed_batches_are_refused_by_name(batch: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_picture_list(batch)


def test_a_batch_among_others_is_refused() -> None:
    with pytest.raises(ValueError, match=r"as picture 0.* alone, or its pictures one by one"):
        as_picture_list([torch.zeros(2, 3, 8, 8)])


@pytest.mark.parametrize("thing", [3, None, b"path.png", {"a.png": 1}, {"a.png"}])
def test_things_that_are_no_pictures(thing: Any) -> None:
    with pytest.raises(TypeError, match=type(thing).__name__):
        as_picture_list(thing)
    with pytest.raises(TypeError, match=f"as picture 1, got {type(thing).__name__}"):
        as_picture_list(["a.png", thing])


# --- lists of inputs ---


def test_as_picture_list(file: Path) -> None:
    image = PIL.Image.fromarray(COLOURS)
    for one in (file, str(file), image):
        assert as_picture_list(one) == [one]
    assert as_picture_list([]) == as_picture_list(()) == as_picture_list(torch.zeros(0, 3, 8, 8)) == []
    assert as_picture_list((file, image)) == [file, image]
    assert len(as_picture_list(COLOURS)) == len(as_picture_list(torch.zeros(3, 8, 8))) == 1
    assert [tuple(item.shape) for item in as_picture_list(torch.zeros(2, 3, 8, 9))] == [(3, 8, 9)] * 2  # type: ignore[union-attr]


# --- decoding ahead ---


def grey(shade: int) -> np.ndarray:
    return np.full((2, 2, 3), shade, np.uint8)


def shade(picture: images.Picture) -> int:
    assert picture.pixels is not None
    return int(picture.pixels[0, 0, 0])


def test_order_is_kept_however_long_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    first_may_finish = threading.Event()

    def decode_first_last(image: Any, index: int) -> images.Picture:
        if index == 0:
            assert first_may_finish.wait(10)
        elif index == 3:
            first_may_finish.set()
        return decode(image, index)

    monkeypatch.setattr(images, "decode", decode_first_last)
    decoded = iterate_pictures(map(grey, range(40)), workers=2, ahead=5)
    assert [(p.index, shade(p)) for p in decoded] == [(i, i) for i in range(40)]


def test_errors_are_items_among_others(file: Path, tmp_path: Path) -> None:
    pictures = list(iterate_pictures([file, tmp_path / "none.png", str(file)], workers=2))
    assert [picture.error for picture in pictures] == [None, "no such file", None]


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_no_more_than_ahead_is_taken_from_an_endless_source(ahead: int) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield grey(0)

    pictures = iterate_pictures(endless(), workers=2, ahead=ahead)
    assert taken == 0
    for received in range(1, 20):
        next(pictures)
        assert taken == received + ahead


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_abandoned_iterator_does_not_wait_and_its_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()

    def slow(image: Any, index: int) -> images.Picture:
        if index:
            stuck.wait(30)
        return decode(image, index)

    monkeypatch.setattr(images, "decode", slow)
    pictures = iterate_pictures(map(grey, range(100)), workers=2, ahead=6)
    next(pictures)
    start = time.perf_counter()
    del pictures
    gc.collect()
    assert time.perf_counter() - start < 25
    stuck.set()
    for thread in decoding_threads():
        thread.join(10)
    assert not decoding_threads()


def test_a_malformed_picture_stops_the_iteration_in_its_place() -> None:
    pictures = iterate_pictures([grey(1), torch.zeros(4, 4, 3), grey(2)], workers=2)
    assert shade(next(pictures)) == 1
    with pytest.raises(ValueError, match="as picture 1"):
        next(pictures)


def test_the_same_unloaded_image_many_times(tmp_path: Path) -> None:
    PIL.Image.effect_noise((400, 400), 50).convert("RGB").save(tmp_path / "x.png")
    with PIL.Image.open(tmp_path / "x.png") as image:
        decoded = list(iterate_pictures([image] * 12, workers=4))
    assert [picture.error for picture in decoded] == [None] * 12


def test_one_picture_instead_of_many(file: Path) -> None:
    assert [picture.path for picture in iterate_pictures(str(file))] == [str(file)]


def test_of_large_pictures_fewer_are_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXELS_AHEAD", 250)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        PIL.Image.new("RGB", (10, 10)).save(path)
    lock = threading.Lock()
    decoded: list[int] = []

    def counted(image: Any, index: int) -> images.Picture:
        with lock:
            decoded.append(index)
        return decode(image, index)

    monkeypatch.setattr(images, "decode", counted)
    pictures = iterate_pictures(paths, workers=4, ahead=8)
    for asked_for in range(12):
        assert next(pictures).index == asked_for
        with lock:
            assert max(decoded) <= asked_for + 3  # two have room; the next one to be asked for has it always
    assert sorted(decoded) == list(range(12))


def test_pictures_larger_than_the_bound_come_one_by_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXELS_AHEAD", 1)
    assert [picture.error for picture in iterate_pictures([file] * 9, workers=3, ahead=5)] == [None] * 9


@pytest.mark.parametrize("thing", [io.BytesIO(b"a\nb"), memoryview(b"ab"), {"a": 1}.keys(), np.bool_(True), object()])
def test_what_looks_like_a_sequence_and_is_none(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"or a sequence of pictures, got {type(thing).__name__}"):
        as_picture_list(thing)


def test_sequences_of_many_kinds(file: Path) -> None:
    for many in ((path for path in [file]), {"a": file}.values(), iter([file]), os.scandir(file.parent)):
        assert [os.fspath(path) for path in as_picture_list(many)] == [str(file)]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Pass paths and images as a list"):
        as_picture_list(np.array([str(file)]))
    assert decode("").error == "its path is empty"


@pytest.mark.parametrize("option", ["workers", "ahead"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"at least 1, got .*\b0\b"):
        iterate_pictures([], **{option: 0})


def test_large_pictures_are_copied_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_BAND", 21)  # three rows of seven pixels, and one band of two
    picture = decode(PIL.Image.fromarray(COLOURS))
    assert picture.pixels is not None
    np.testing.assert_array_equal(picture.pixels.movedim(0, -1).numpy(), COLOURS)
