"""Pictures in: every kind of input the scorers accept becomes an RGB tensor, or a reason why not.

Files and PIL images can be broken, and then that picture alone carries an error. Arrays and tensors of
the wrong layout, range or dtype are mistakes in the calling program: `ValueError`, whatever else happens.
"""

import ctypes
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np
import PIL.Image
import torch

from ..errors import MaAgiqaError, NotAPictureError, PictureError
from .prefetch import prefetch
from .reading import (
    MAX_PICTURE_PIXELS,
    PIXELS_AHEAD,
    UnreadablePictureError,
    load_image,
    pixel_count,
    read_picture,
    read_picture_bytes,
    to_rgb,
)

__all__ = [
    "MAX_PICTURE_PIXELS",
    "PIXELS_AHEAD",
    "Picture",
    "PictureError",
    "PictureInput",
    "Pictures",
    "UnreadablePictureError",
    "as_picture_list",
    "decode",
    "decode_bytes",
    "iterate_pictures",
    "load_image",
    "path_of",
    "pixel_count",
    "read_picture",
    "to_rgb",
]

PictureInput: TypeAlias = str | os.PathLike[str] | PIL.Image.Image | np.ndarray | torch.Tensor

Pictures: TypeAlias = PictureInput | Sequence[PictureInput]
"""One picture, a sequence of pictures or, alone, one float tensor (B, 3, H, W) RGB in [0, 1]."""

_NO_SEQUENCES = (bytes, bytearray, memoryview, io.IOBase, Mapping, Set)  # iterable, but not over pictures in order

ROUNDING_TOLERANCE = 1e-3
"""How far a float tensor may leave [0, 1] and still be clipped silently: rounding, not another range."""

_BAND = 2**22  # pixels copied at a time; more than that is large


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded input.

    Attributes:
        index: Its place among the given pictures, from 0.
        path: Its path, or None if it was not given as one.
        pixels: (3, H, W) RGB, uint8 in 0..255, or float32 in [0, 1] where a float tensor was given;
            possibly a view in another memory order. None if the picture cannot be read.
        error: Why `pixels` is None, in one line without the path; else None.
        given: What it was given as.
    """

    index: int
    path: str | None
    pixels: torch.Tensor | None
    error: str | None
    given: object = None

    @property
    def width(self) -> int:
        return 0 if self.pixels is None else self.pixels.shape[2]

    @property
    def height(self) -> int:
        return 0 if self.pixels is None else self.pixels.shape[1]


def as_picture_list(images: PictureInput | Iterable[PictureInput]) -> list[PictureInput]:
    """Whatever `Scorer.score` accepts as a list of single pictures; arrays and tensors are checked.

    Args:
        images: A path, a PIL image, an (H, W, 3) uint8 array or a (3, H, W) float tensor in [0, 1]; a
            sequence of these; or, alone, one float tensor (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: An array or tensor of another layout, range or dtype.
        TypeError: Something that is not a picture.
    """
    if isinstance(images, torch.Tensor) and images.ndim == 4:
        return list(_float_pixels(images, "(B, 3, H, W)", ""))
    if _is_one_picture(images):
        pictures = [images]
    elif isinstance(images, Iterable) and not isinstance(images, _NO_SEQUENCES):
        pictures = list(images)
    else:
        raise NotAPictureError(f"Expected a picture or a sequence of pictures, got {type(images).__name__}.")
    for index, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray | torch.Tensor) or not _is_one_picture(picture):
            _pixels(picture, index)
    return pictures


def decode(image: PictureInput, index: int = 0) -> Picture:
    """Decodes one input; what cannot be read comes back with its `error`.

    Raises:
        ValueError: An array or tensor of a wrong layout, range or dtype.
        TypeError: Something that is not a picture.
    """
    path = path_of(image)
    try:
        picture = Picture(index, path, _pixels(image, index), None, image)
    except UnreadablePictureError as error:
        return Picture(index, path, None, str(error), image)
    if path is not None and picture.width * picture.height > _BAND:
        _return_freed_memory()
    return picture


def decode_bytes(content: bytes, index: int = 0, path: str | None = None) -> Picture:
    """`decode` of a picture's file that is in memory.

    Args:
        content: Of the file.
        index: Its place among the given pictures.
        path: What the picture is called; nothing is read from there.
    """
    try:
        return Picture(index, path, _byte_pixels(_as_array(read_picture_bytes(content)), ""), None)
    except UnreadablePictureError as error:
        return Picture(index, path, None, str(error))


def iterate_pictures(
    images: Iterable[PictureInput], *, workers: int | None = None, ahead: int | None = None
) -> Iterator[Picture]:
    """Decodes in threads ahead of the consumer, in input order.

    Endless iterables are fine. An iterator that is left early stops its threads without waiting for them. A list of a
    single picture, or of arrays and tensors alone, needs no threads: each is decoded when it is asked for.
    Of large pictures fewer are held, down to one: no more than `PIXELS_AHEAD`.

    Args:
        images: Single pictures of any accepted kind.
        workers: Decoding threads; default one per processor, at most 4.
        ahead: Pictures held or being decoded before they are asked for; default `2 * workers`.

    Raises:
        ValueError: `workers` or `ahead` below 1; while iterating, a malformed array or tensor.
    """
    workers = min(4, os.cpu_count() or 1) if workers is None else workers
    ahead = 2 * workers if ahead is None else ahead
    if workers < 1 or ahead < 1:
        raise MaAgiqaError(f"Expected workers and ahead of at least 1, got {workers} and {ahead}.")
    pictures = as_picture_list(images) if _is_one_picture(images) else images
    if isinstance(pictures, Sequence) and not _is_work_for_threads(pictures):
        return (decode(picture, index) for index, picture in enumerate(pictures))
    return prefetch(
        enumerate(pictures),
        lambda numbered: decode(numbered[1], numbered[0]),
        workers,
        ahead,
        weigh=lambda numbered: _pixels_to_decode(numbered[1]),
        most=PIXELS_AHEAD,
    )


def _is_work_for_threads(pictures: Sequence[PictureInput]) -> bool:
    """Of one picture nothing is made ahead, and pixels that are there are only looked at."""
    return len(pictures) > 1 and not all(isinstance(one, np.ndarray | torch.Tensor) for one in pictures)


def _pixels_to_decode(image: PictureInput) -> int:
    if isinstance(image, PIL.Image.Image):
        return image.width * image.height
    return pixel_count(image) if isinstance(image, str | os.PathLike) else 0


def path_of(image: object) -> str | None:
    """The path of a picture that was given as one, else None."""
    return os.fsdecode(image) if isinstance(image, str | os.PathLike) else None


def _is_one_picture(image: object) -> TypeGuard[PictureInput]:
    return isinstance(image, str | os.PathLike | PIL.Image.Image | np.ndarray | torch.Tensor)


def _pixels(image: object, index: int) -> torch.Tensor:
    where = f" as picture {index}"
    if isinstance(image, torch.Tensor):
        return _float_pixels(image, "(3, H, W)", where)
    if isinstance(image, np.ndarray):
        return _byte_pixels(image, where)
    if isinstance(image, PIL.Image.Image):
        return _byte_pixels(_as_array(to_rgb(load_image(image))), where)
    if isinstance(image, str | os.PathLike):
        return _byte_pixels(_as_array(read_picture(image)), where)
    raise NotAPictureError(f"Expected a path, a PIL image, an array or a tensor{where}, got {type(image).__name__}.")


def _as_array(rgb: PIL.Image.Image) -> np.ndarray:
    """`np.array` of a large image needs three times its size on the way: band by band it does not."""
    rows = max(_BAND // rgb.width, 1)
    if rows >= rgb.height:
        return np.array(rgb)
    array = np.empty((rgb.height, rgb.width, 3), np.uint8)
    for top in range(0, rgb.height, rows):
        array[top : top + rows] = np.asarray(rgb.crop((0, top, rgb.width, min(top + rows, rgb.height))))
    return array


def _return_freed_memory() -> None:
    """glibc keeps what a thread has freed for that thread: a decoded picture for each of them, if it is large."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _byte_pixels(array: np.ndarray, where: str) -> torch.Tensor:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise MaAgiqaError(
            f"Expected a uint8 array (H, W, 3) in RGB{where}, got {_described(array)}. {_array_fix(array)}"
        )
    writable = np.require(array, requirements=["C", "W"])  # torch takes no negative strides
    return torch.from_numpy(writable).movedim(-1, 0)


def _array_fix(array: np.ndarray) -> str:
    if array.dtype.kind in "OSU":
        return "Pass paths and images as a list: array.tolist()."
    if array.ndim == 4:
        return "Pass a batch of arrays as a list: list(images)."
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        return "It looks like (3, H, W); use image.transpose(1, 2, 0)."
    if array.dtype != np.uint8 and array.dtype.kind == "f":
        return "For values in [0, 1] use (image * 255).round().astype('uint8')."
    return "Use PIL.Image.fromarray for grey, alpha and 16 bit."


def _float_pixels(tensor: torch.Tensor, layout: str, where: str) -> torch.Tensor:
    """float32 in [0, 1], on the tensor's own device; refuses all but `layout`."""
    pixels = tensor.detach().float() if tensor.is_floating_point() else tensor
    if fix := _layout_fix(tuple(tensor.shape), len(layout.split(","))) or _range_fix(pixels):
        raise MaAgiqaError(f"Expected a float tensor {layout} RGB in [0, 1]{where}, got {_described(tensor)}. {fix}")
    return pixels.clamp(0, 1)


def _layout_fix(shape: tuple[int, ...], rank: int) -> str | None:
    if len(shape) == rank and shape[-3] == 3:
        return "Give it a height and a width." if 0 in shape[-2:] else None
    if len(shape) == 4 and shape[1] == 3:
        return "Pass a batch alone, or its pictures one by one: [*images]."
    if len(shape) == 4 and shape[-1] in (1, 3, 4):
        return "It looks like ComfyUI's BHWC layout; use images.movedim(-1, 1)."
    if len(shape) == 3 and shape[-1] in (3, 4):
        return "It looks like (H, W, 3); use image.movedim(-1, 0)."
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return "Repeat a grey channel: image.expand(3, -1, -1)."
    return "Pass three channels, red, green and blue, before height and width."


def _range_fix(pixels: torch.Tensor) -> str | None:
    if not pixels.is_floating_point():
        return "Use image.float() / 255 for 8-bit values."
    if pixels.numel() == 0:
        return None
    by_pixel = pixels.movedim(-3, -1)  # how ComfyUI's lie in memory: read out of order they take 15 times as long
    low, high = (by_pixel if by_pixel.is_contiguous() else pixels).aminmax()
    if low.isnan():
        return "Find out where the NaN comes from."
    if low >= -ROUNDING_TOLERANCE and high <= 1 + ROUNDING_TOLERANCE:
        return None
    if low >= -1 - ROUNDING_TOLERANCE and high <= 1 + ROUNDING_TOLERANCE:
        return "It looks like [-1, 1]; use (image + 1) / 2."
    if low >= 0 and high <= 255:
        return "It looks like 0..255; use image / 255."
    return "Rescale it to [0, 1]."


def _described(values: np.ndarray | torch.Tensor) -> str:
    text = f"{values.dtype} of shape {tuple(values.shape)}"
    size = values.numel() if isinstance(values, torch.Tensor) else values.size
    try:
        return f"{text} with values {float(values.min()):.4g} to {float(values.max()):.4g}" if size else text
    except (TypeError, ValueError, RuntimeError):  # complex numbers, strings: no order
        return text
