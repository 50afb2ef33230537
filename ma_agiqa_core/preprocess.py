"""Pictures as the networks saw them in training: 8-bit RGB in, normalised batches out.

The visual branch saw pictures resized by OpenCV's INTER_CUBIC (a = -0.75, no antialiasing, border repeated),
the language model pictures padded to a square and resized by Pillow for CLIP. Both round to 8 bits.

OpenCV has two implementations. Its x86 wheels, with which the models were trained, use Intel's IPP, which computes with
real weights; that one is followed here. Elsewhere OpenCV rounds the weights to 11 bits: one grey level of
difference in about 5 % of the values of noise.
"""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from .compute.caller_state import as_loaded
from .errors import MaAgiqaError
from .pictures.inputs import PictureError, PictureInput, as_picture_list, iterate_pictures

CUBIC_A = -0.75  # of OpenCV; Pillow has -0.5
OPENAI_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # what a CLIP processor takes if its config has none
OPENAI_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ROWS_AT_ONCE = 256  # of a tall picture, widened to a square


@as_loaded(float32_by_default=False)
def visual_pixels(
    images: PictureInput | Sequence[PictureInput], *, size: int = 224, device: str | torch.device = "cpu"
) -> Tensor:
    """Pictures for the visual branch.

    Args:
        images: As `Scorer.score` takes them, of any sizes.
        size: Height and width of the result; not checked against any model.
        device: Where to resize, and where the result is.

    Returns:
        (B, 3, size, size) float32 RGB in [-1, 1].

    Raises:
        PictureError: A picture cannot be read.
        ValueError: A malformed array or tensor.

    Example:
        >>> import numpy as np
        >>> from ma_agiqa_core.preprocess import visual_pixels
        >>> white = np.full((30, 40, 3), 255, np.uint8)
        >>> black = np.zeros((64, 64, 3), np.uint8)
        >>> visual_pixels([white, black], size=2)[:, 0]
        tensor([[[ 1.,  1.],
                 [ 1.,  1.]],
        <BLANKLINE>
                [[-1., -1.],
                 [-1., -1.]]])
    """
    resized: list[Tensor] = []
    for picture in iterate_pictures(as_picture_list(images)):  # one by one: in full size they may not fit into memory
        if picture.pixels is None:
            raise PictureError(picture.index, picture.path, picture.error or "unknown")
        resized.append(visual_pixels_of([picture.pixels], size, device))
    return torch.cat(resized) if resized else visual_pixels_of([], size, device)


def visual_pixels_of(pixels: Sequence[Tensor], size: int, device: str | torch.device) -> Tensor:
    """`visual_pixels` of decoded pictures: (3, H, W) RGB each, uint8 or float in [0, 1]."""
    if not pixels:
        return torch.empty(0, 3, size, size, dtype=torch.float32, device=device)
    resized = torch.stack([resize_cubic(to_bytes(picture).to(device), (size, size)) for picture in pixels])
    return normalised(resized)


def normalised(pixels: Tensor) -> Tensor:
    """uint8 as the visual branch takes it, in scoring and in training: float32 in [-1, 1]."""
    return pixels.float().div_(255).sub_(0.5).div_(0.5)


def to_bytes(pixels: Tensor) -> Tensor:
    """RGB as uint8 in 0..255: floats in [0, 1] are rounded, uint8 comes back as it is."""
    if pixels.dtype == torch.uint8:
        return pixels
    return pixels.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def resize_cubic(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """OpenCV's INTER_CUBIC, as its x86 wheels compute it: about one value in 50 000 is a grey level off.

    Pictures with a side below 4 pixels are the exception: there those wheels round the weights as well.
    Sums and products are taken one by one in float32: every device gives the same.

    Args:
        pixels: (3, H, W) uint8; any memory order, fastest where a pixel's channels lie side by side.
        size: Height and width of the result.

    Returns:
        (3, *size) uint8 on the device of `pixels`.

    Raises:
        ValueError: Not three channels of uint8, or an empty picture or size.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.numel() or min(size) < 1:
        raise MaAgiqaError(f"Expected uint8 (3, H, W) and a size, got {pixels.dtype} {tuple(pixels.shape)} and {size}.")
    rows = _interpolate(pixels.movedim(0, -1), 0, size[0])  # rows first: whole rows are fast to gather
    return _interpolate(rows, 1, size[1]).round_().clamp_(0, 255).to(torch.uint8).movedim(-1, 0)


def _interpolate(values_hwc: Tensor, dim: int, size: int) -> Tensor:
    places, weights = _taps(values_hwc.shape[dim], size, values_hwc.device)
    total: Tensor | None = None
    for place, weight in zip(places, weights, strict=True):
        term = values_hwc.index_select(dim, place).float().mul_(weight.view(-1, *[1] * (2 - dim)))
        total = term if total is None else total.add_(term)
    assert total is not None  # there are four taps
    return total


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for calls outside it
def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which four source values each target value is made of, and how: (4, target) int64 and float32."""
    centre = (torch.arange(target, dtype=torch.float64, device="cpu") + 0.5) * (source / target) - 0.5
    first = centre.floor()
    right = centre - first  # how far the centre is from its left neighbour
    left = 1 - right
    weights = torch.stack([_far_weight(right), _near_weight(right), _near_weight(left), _far_weight(left)])
    places = (first.long() + torch.arange(-1, 3, device="cpu")[:, None]).clamp(0, source - 1)
    return places.to(device), weights.float().to(device)


def _near_weight(distance: Tensor) -> Tensor:
    """Keys' cubic at a distance of up to 1."""
    return ((CUBIC_A + 2) * distance - (CUBIC_A + 3)) * distance**2 + 1


def _far_weight(distance: Tensor) -> Tensor:
    """Keys' cubic one pixel further, at 1 + `distance`."""
    return CUBIC_A * distance * (1 - distance) ** 2


@dataclass(frozen=True)
class ClipPreprocessing:
    """The language model's way in, as mPLUG-Owl2's published code has it.

    Pads to a square with the mean colour, resizes with Pillow's bicubic filter and normalises.

    Attributes:
        size: Height and width of the result.
        image_mean: Of the channels of training pictures in [0, 1]; also the colour of the padding.
        image_std: Of the same.

    Raises:
        ValueError: A size below 1, means outside [0, 1] or deviations that are not above 0.
    """

    size: int = 448
    image_mean: tuple[float, float, float] = OPENAI_CLIP_MEAN
    image_std: tuple[float, float, float] = OPENAI_CLIP_STD

    def __post_init__(self) -> None:
        if self.size < 1:
            raise MaAgiqaError(f"Expected a size of at least 1, got {self.size}.")
        if not all(0 <= mean <= 1 for mean in self.image_mean):
            raise MaAgiqaError(f"Expected image_mean in [0, 1], got {self.image_mean}.")
        if not all(0 < std < math.inf for std in self.image_std):
            raise MaAgiqaError(f"Expected image_std above 0, got {self.image_std}.")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ClipPreprocessing":
        """Reads the contents of a CLIP processor's preprocessor_config.json, old style or new.

        Raises:
            ValueError: Settings that would give other pixels than this class.
        """
        for step in ("do_resize", "do_rescale", "do_normalize"):
            _require(config.get(step, True) is True, step, "true", config)
        _require(not config.get("do_pad"), "do_pad", "false or none", config)
        _require(config.get("resample", 3) == 3, "resample", "3 (bicubic)", config)
        is_known = math.isclose(_number(config.get("rescale_factor", 1 / 255)), 1 / 255, rel_tol=1e-6)
        _require(is_known, "rescale_factor", "1/255", config)
        size = _square(config.get("size"))
        _require(size is not None, "size", "a whole number, one shortest_edge or a square", config)
        crop = _square(config.get("crop_size", size)) if config.get("do_center_crop", True) else size
        _require(crop == size, "crop_size", f"of the size, {size},", config)
        assert size is not None  # required above
        mean = _three_numbers(config, "image_mean", OPENAI_CLIP_MEAN)
        return cls(size, mean, _three_numbers(config, "image_std", OPENAI_CLIP_STD))

    def __call__(self, pictures: Sequence[Tensor], device: str | torch.device, dtype: torch.dtype) -> Tensor:
        """Makes a batch.

        Args:
            pictures: (3, H, W) RGB each, uint8 or float in [0, 1], of any sizes.
            device: Device of the result; Pillow works on the processor, a few pictures at a time.
            dtype: Precision of the result; computed in float32.

        Returns:
            (B, 3, size, size), normalised.
        """
        if not pictures:
            return torch.empty(0, 3, self.size, self.size, device=device, dtype=dtype)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1, len(pictures)), thread_name_prefix="resize") as pool:
            squares = list(pool.map(self._square_bytes, pictures))
        pixels = torch.from_numpy(np.stack(squares)).to(device).movedim(-1, 1).contiguous().float().div_(255)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
            for values in (self.image_mean, self.image_std)
        )
        return pixels.sub_(mean).div_(std).to(dtype)

    def _square_bytes(self, picture: Tensor) -> np.ndarray:
        """(size, size, 3): what comes out of padding the whole picture to a square and resizing that.

        The square itself is never made: of a picture of 1000 × 20 000 it would have 400 megapixels. Pillow
        resizes along the rows and then along the columns, each rounded to 8 bits, so the rows may be done
        some at a time, and rows of one colour not at all.
        """
        image = PIL.Image.fromarray(to_bytes(picture).movedim(0, -1).cpu().numpy())
        colour = tuple(int(mean * 255) for mean in self.image_mean)
        width, height = image.size
        edge = max(image.size)
        narrow = PIL.Image.new("RGB", (self.size, edge), colour)
        if width == edge:
            narrow.paste(_bicubic(image, (self.size, height)), (0, (edge - height) // 2))
        else:
            for top in range(0, height, ROWS_AT_ONCE):
                rows = image.crop((0, top, width, min(top + ROWS_AT_ONCE, height)))
                strip = PIL.Image.new("RGB", (edge, rows.height), colour)
                strip.paste(rows, ((edge - width) // 2, 0))
                narrow.paste(_bicubic(strip, (self.size, rows.height)), (0, top))
        return np.asarray(_bicubic(narrow, (self.size, self.size)))


def _bicubic(image: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    return image.resize(size, PIL.Image.Resampling.BICUBIC)


def _require(is_so: bool, key: str, expected: str, config: Mapping[str, Any]) -> None:
    if not is_so:
        raise MaAgiqaError(
            f"Expected {key} {expected} in preprocessor_config.json, got {config.get(key)!r}. "
            "Use the file that came with the model."
        )


def _square(size: Any) -> int | None:
    """The edge of a square in the forms that CLIP's configs have it in; None for anything else."""
    edges = set(size.values()) if isinstance(size, Mapping) else {size} if isinstance(size, int) else set()
    is_square = not isinstance(size, Mapping) or set(size) in ({"shortest_edge"}, {"height", "width"})
    edge = edges.pop() if len(edges) == 1 else None
    return edge if is_square and isinstance(edge, int) and not isinstance(edge, bool) and edge > 0 else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _three_numbers(
    config: Mapping[str, Any], key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    values = config.get(key, default)
    numbers = [_number(value) for value in values] if isinstance(values, list | tuple) else []
    _require(len(numbers) == 3 and all(map(math.isfinite, numbers)), key, "three numbers", config)
    red, green, blue = numbers
    return red, green, blue
