"""Pictures as the judges' own code makes them ready, step by step: where it crops and where it rounds counts.

All take 8-bit RGB and give float32 (3, S, S), normalised. What torchvision does is left to torchvision.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ...errors import MaAgiqaError
from ...preprocess import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

LARGEST_RATIO = 200  # of the sides: the resized picture, before the crop, has that many times the pixels


def centre_crop(picture: PIL.Image.Image, size: int) -> Tensor:
    """CLIP's own transform, as ImageReward and LAION's predictor use it.

    The shortest side to `size` with Pillow's bicubic filter on 8 bits, and torchvision's crop of the centre, which
    starts at round(margin / 2): half a pixel further than that of transformers where the margin is odd.

    Raises:
        ValueError: One side is so much longer than the other that resizing it takes too much memory.
    """
    from torchvision.transforms import InterpolationMode, functional

    long, short = max(picture.size), min(picture.size)
    if long > LARGEST_RATIO * short:
        raise MaAgiqaError(
            f"it is {picture.width} × {picture.height} pixels, and sides may differ {LARGEST_RATIO} times: cut it first"
        )
    resized = functional.resize(picture, [size], InterpolationMode.BICUBIC)
    return normalised(functional.center_crop(resized, [size, size]), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


def squeezed(picture: PIL.Image.Image, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """To a square with Pillow's bicubic filter on 8 bits, whatever its shape."""
    return normalised(picture.resize((size, size), PIL.Image.Resampling.BICUBIC), mean, std)


def padded(picture: PIL.Image.Image, size: int) -> Tensor:
    """As HPSv2: the longest side to `size`, black around it, then normalised.

    The resize is on floats, bicubic and antialiased, and may leave 0..1. A picture whose longest side is `size` already
    is only padded; the published code forgets that.

    Raises:
        ValueError: So narrow that nothing of it is left.
    """
    from torchvision.transforms import InterpolationMode, functional

    pixels = _unit_range(picture)
    height, width = pixels.shape[1:]
    scale = size / float(max(height, width))
    rows, columns = round(height * scale), round(width * scale)
    if min(rows, columns) < 1:
        raise MaAgiqaError(f"it is {width} × {height} pixels, too narrow: resized to {size}, nothing is left of it")
    if (rows, columns) != (height, width):
        pixels = functional.resize(pixels, [rows, columns], InterpolationMode.BICUBIC, antialias=True)
    left, top = (size - columns) // 2, (size - rows) // 2
    pixels = functional.pad(pixels, [left, top, size - columns - left, size - rows - top])
    return functional.normalize(pixels, list(OPENAI_CLIP_MEAN), list(OPENAI_CLIP_STD), inplace=True)


def normalised(picture: PIL.Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """8 bits to (x / 255 - mean) / std."""
    from torchvision.transforms import functional

    return functional.normalize(_unit_range(picture), list(mean), list(std), inplace=True)


def _unit_range(picture: PIL.Image.Image) -> Tensor:
    array = np.array(picture.convert("RGB"))
    return torch.from_numpy(array).movedim(-1, 0).contiguous().float().div_(255)
