"""Natural-scene statistics: what tells a clean photograph's luminance and chrominance from a damaged one's.

The core is that of BRISQUE (Mittal, Moorthy & Bovik, 2012) and NIQE (Mittal, Soundararajan & Bovik, 2013):
mean-subtracted, contrast-normalised (MSCN) luminance and the products of its neighbours, described by asymmetric
generalised Gaussians.
What we add: a third scale, the two opponent-colour planes, the distribution of local contrast (so that a blurred
background does not make a sharp subject look blurred), the 8-pixel grid of block coders, the diagonal high band where
noise and checkerboards live, and colour. Scales are made by 2 × 2 averaging instead of bicubic resizing.

On a processor the time goes into memory, not into arithmetic. So maps are made a strip of rows at a time, small enough
for the cache, and reduced to the sums of cells by products with thin matrices (`scene_maps.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .scene_maps import Buffers, Scene, halve, natural_scene

SCALES = 3
BLOCK = 96  # px at full resolution, as in NIQE
MIN_SIDE = 32  # px; smaller pictures are continued by mirroring

# BT.601 luma; red-green and yellow-blue of the opponent space used by IL-NIQE (Zhang, Zhang & Bovik, 2015)
_LUMA = (0.299, 0.587, 0.114)
_RED_GREEN = (0.7071, -0.7071, 0.0)
_YELLOW_BLUE = (0.4082, 0.4082, -0.8165)
_EPS = 1e-6
_GRID_ROWS = 64  # of a strip

_FIT = ("shape", "mean", "left", "right")
_COEFFICIENTS = ("mscn", "across", "down", "diagonal", "antidiagonal")
_PLANES = ("red_green", "yellow_blue")
LUMA_FEATURES = tuple(f"luma{s}.{c}.{f}" for s in (0, 1) for c in _COEFFICIENTS for f in _FIT)
"""The columns that BRISQUE and NIQE have: luminance at two scales."""

BLOCK_FEATURES = tuple(
    name
    for s in range(SCALES)
    for name in (
        *(f"luma{s}.{c}.{f}" for c in _COEFFICIENTS for f in _FIT),
        *((f"chroma{s}.{p}.{f}" for p in _PLANES for f in ("shape", "variance")) if s else ()),
        *((f"chroma{s}.{p}.contrast" for p in _PLANES) if s else ()),
    )
)
"""The columns of the block features; also columns of the picture's features."""

FEATURES: tuple[str, ...] = (
    *("grid.across", "grid.down", "band.diagonal", "band.straight", "band.noise"),
    *(f"colour.{f}" for f in ("mean", "deviation", "colourfulness", "saturation", "saturation_deviation")),
    *("colour.black", "colour.white"),
    *(
        name
        for s in range(SCALES)
        for name in (
            *(f"luma{s}.{c}.{f}" for c in _COEFFICIENTS for f in _FIT),
            *(f"contrast{s}.{f}" for f in ("low", "median", "high", "flat")),
            *((f"chroma{s}.{p}.{f}" for p in _PLANES for f in ("shape", "variance")) if s else ()),
            *((f"chroma{s}.{p}.contrast" for p in _PLANES) if s else ()),
        )
    ),
)
"""The columns of the picture's features."""


def describe(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of a batch of pictures of one size.

    Args:
        rgb: (B, 3, H, W) float32, RGB in [0, 1].

    Returns:
        FEATURES of the whole picture (B, 96), and BLOCK_FEATURES of its N blocks of about 96 × 96 px (B, N, 72), both
        float32. What a picture gives does not depend on the others in the batch.
    """
    rgb = mirror_to(rgb, MIN_SIDE)
    grid = block_grid(rgb)
    luma = luminance(rgb)
    half = halve(rgb)
    features = [_grid_steps(luma), _high_band(luma), _colour(halve(half))]
    buffers = Buffers(rgb)
    scenes, contrasts = [], []  # of luminance and, where a scale has it, of chroma
    for scale in range(SCALES):
        scenes.append([natural_scene(luma[:, None], grid, products=True, buffers=buffers)])
        contrasts.append(_local_contrast(scenes[scale][0].deviation[:, 0]))
        if scale > 0:  # at full resolution files keep little chroma, and it costs most there
            chroma = torch.stack([_weighted(half, plane, 255.0) for plane in (_RED_GREEN, _YELLOW_BLUE)], 1)
            scenes[scale].append(natural_scene(chroma, grid, products=False, buffers=buffers))
            half = halve(half)
        luma = halve(luma)
    fits = _fit_scenes([scene for of_scale in scenes for scene in of_scale])
    blocks = []
    for of_scale, contrast in zip(scenes, contrasts, strict=True):
        fit = next(fits).flatten(2)  # (B, 1 + N, 20), first of the whole picture, then of the blocks
        features += [fit[:, 0], contrast]
        blocks.append(fit[:, 1:])
        for scene in of_scale[1:]:
            colour = scene.contrast()
            colour = torch.cat([colour.mean(1, keepdim=True), colour], 1).add(0.1).log()
            both = torch.cat([next(fits)[..., [0, 2]].flatten(2), colour], 2)
            features.append(both[:, 0])
            blocks.append(both[:, 1:])
    return torch.cat(features, 1), torch.cat(blocks, 2)


def _fit_scenes(scenes: list[Scene]) -> Iterator[Tensor]:
    """Of each scene the fit of the whole picture and of its N blocks, (B, 1 + N, maps, 4); one fit of all at once."""
    moments = torch.cat([scene.moments for scene in scenes], 2)
    fits = _aggd(torch.cat([moments.mean(1, keepdim=True), moments], 1))
    return iter(fits.split([scene.moments.shape[2] for scene in scenes], 2))


def block_grid(rgb: Tensor) -> tuple[int, int]:
    """Blocks down and across a picture (..., H, W)."""
    return max(round(rgb.shape[-2] / BLOCK), 1), max(round(rgb.shape[-1] / BLOCK), 1)


def luminance(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, H, W) in -127.5..127.5: near 0, since squares of small numbers are exacter."""
    return _weighted(rgb, _LUMA, 255.0).sub_(127.5)


def _weighted(rgb: Tensor, weights: tuple[float, float, float], scale: float) -> Tensor:
    """(B, 3, H, W) -> (B, H, W), a weighted sum of the channels."""
    red, green, blue = rgb.unbind(1)
    return (red * (weights[0] * scale)).add_(green, alpha=weights[1] * scale).add_(blue, alpha=weights[2] * scale)


def mirror_to(rgb: Tensor, side: int) -> Tensor:
    """Continues a picture that is smaller than `side` by mirroring it, as often as needed."""
    for dim in (-2, -1):
        length = rgb.shape[dim]
        if length < side:
            place = torch.arange(side, device=rgb.device) % (2 * length)
            rgb = rgb.index_select(dim, torch.minimum(place, 2 * length - 1 - place))
    return rgb


@cache
@torch.inference_mode(False)  # kept for calls outside it
def _shape_table() -> tuple[Tensor, Tensor]:
    """The ratio E|x|² / Ex² of a generalised Gaussian, and the shape it belongs to (0.2 .. 10 as in BRISQUE)."""
    shape = torch.linspace(0.2, 10.0, 4000, dtype=torch.float64, device="cpu")
    log_ratio = 2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape)
    return log_ratio.exp().float(), shape.float()


def _aggd(moments: Tensor) -> Tensor:
    """Moment fit of an asymmetric generalised Gaussian (Lasmar, Stitou & Berthoumieu, 2009).

    Args:
        moments: (..., C, 4), as `natural_scene` gives them.

    Returns:
        (..., C, 4): shape, mean, left variance, right variance.
    """
    absolute, square, negative_square, negative = moments.unbind(-1)
    left = negative_square / negative.clamp_min(_EPS)
    right = (square - negative_square).clamp_min(0) / (1 - negative).clamp_min(_EPS)
    gamma = (left.clamp_min(_EPS) / right.clamp_min(_EPS)).sqrt().clamp(0.05, 20.0)
    ratio = absolute**2 / square.clamp_min(_EPS)
    ratio = ratio * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
    ratios, shapes = (table.to(moments.device) for table in _shape_table())
    upper = torch.searchsorted(ratios, ratio.contiguous()).clamp(1, len(shapes) - 1)
    between = ((ratio - ratios[upper - 1]) / (ratios[upper] - ratios[upper - 1])).clamp(0, 1)
    shape = torch.lerp(shapes[upper - 1], shapes[upper], between)
    spread = torch.lgamma(2 / shape) - 0.5 * (torch.lgamma(1 / shape) + torch.lgamma(3 / shape))
    mean = (right.sqrt() - left.sqrt()) * spread.exp()
    return torch.stack([shape, mean, left, right], -1)


def _local_contrast(deviation: Tensor) -> Tensor:
    """(B, H, W) -> (B, 4): three quantiles of the log local deviation over 8 × 8 px cells, and the flat share."""
    h, w = (min(8, side) for side in deviation.shape[-2:])
    H, W = (side // cell * cell for side, cell in zip(deviation.shape[-2:], (h, w), strict=True))
    rows = deviation[:, :H].unflatten(1, (-1, h)).mean(2)
    cells = rows[..., :W].unflatten(2, (-1, w)).mean(3).flatten(1)
    quantiles = _quantiles(cells, (0.1, 0.5, 0.9))
    flat = (cells < 1.0).to(cells.dtype).mean(1, keepdim=True)
    return torch.cat([quantiles.add(0.1).log(), flat], 1)


def _grid_steps(luma: Tensor) -> Tensor:
    """How far the steps across an 8-pixel grid stand out, along rows and columns: strongest phase against median."""
    across, down = [], []
    for start in range(0, luma.shape[1], _GRID_ROWS):  # a strip at a time
        rows = luma[:, start : start + _GRID_ROWS + 1]
        down.append(rows.diff(dim=1).abs_().mean(2))
        own = rows[:, :_GRID_ROWS]
        across.append(own.diff(dim=2).abs_().sum(1))
    steps = torch.stack(across).sum(0) / luma.shape[1], torch.cat(down, 1)
    features = []
    for step in steps:  # (B, n)
        phases = step[:, : step.shape[1] // 8 * 8].unflatten(1, (-1, 8)).mean(1)
        features.append(((phases.amax(1) + 0.1) / (phases.median(1).values + 0.1)).log())
    return torch.stack(features, 1)


def _high_band(luma: Tensor) -> Tensor:
    """Haar high bands: log energy of the diagonal, of the straight ones, and the noise deviation by the median rule."""
    H, W = (side // 2 * 2 for side in luma.shape[-2:])
    top, bottom = luma[:, :H:2, :W], luma[:, 1:H:2, :W]
    total, difference = top + bottom, top - bottom
    across = (total[..., ::2] - total[..., 1::2]).flatten(1)
    down = (difference[..., ::2] + difference[..., 1::2]).flatten(1)
    diagonal = (difference[..., ::2] - difference[..., 1::2]).flatten(1)  # all twice as large as they should be
    noise = _median(diagonal.abs()) / (2 * 0.6745)  # Donoho & Johnstone, 1994
    energy = [diagonal.square().mean(1) / 4, (across.square().mean(1) + down.square().mean(1)) / 4]
    return torch.stack([*(part.add(0.1).log() for part in energy), noise.add(0.1).log()], 1)


def _median(values: Tensor) -> Tensor:
    """(B, n) -> (B,), the lower of the two middle ones where n is even, as torch's."""
    return _ordered(values, [(values.shape[1] - 1) // 2])[:, 0]


def _quantiles(values: Tensor, shares: tuple[float, ...]) -> Tensor:
    """(B, n) -> (B, Q), between two values on the straight line, as torch's."""
    places = [share * (values.shape[1] - 1) for share in shares]
    lower, upper = _ordered(values, [*map(math.floor, places), *map(math.ceil, places)]).chunk(2, 1)
    return torch.lerp(lower, upper, values.new_tensor([place % 1 for place in places]))


def _ordered(values: Tensor, places: list[int]) -> Tensor:
    """(B, n) -> (B, P), those at `places` when each row is sorted."""
    if values.device.type != "cpu":
        return values.sort(1).values[:, places]
    # numpy's search is several times as fast as torch's median and sort
    return torch.from_numpy(np.partition(values.detach().numpy(), sorted(set(places)), axis=1)[:, places])


def _colour(rgb: Tensor) -> Tensor:
    """Mean and deviation of grey, colourfulness (Hasler & Süsstrunk, 2003), saturation, clipped shares.

    Args:
        rgb: (B, 3, H, W), the picture at a quarter of its size: colour needs no more.
    """
    rgb = rgb.flatten(2)
    grey = rgb.mean(1)
    chroma = [_weighted(rgb[..., None], plane, 1.0)[..., 0] for plane in (_RED_GREEN, _YELLOW_BLUE)]
    spread = torch.stack([_deviation(plane) for plane in chroma], 1).norm(dim=1)
    colourful = spread + 0.3 * torch.stack([plane.mean(1) for plane in chroma], 1).norm(dim=1)
    red, green, blue = rgb.unbind(1)
    high, low = red.maximum(green).maximum(blue), red.minimum(green).minimum(blue)
    saturation = (high - low).div_(high + 1e-3)
    black, white = (low < 0.01).float().mean(1), (high > 0.99).float().mean(1)
    parts = [grey.mean(1), _deviation(grey), colourful, saturation.mean(1), _deviation(saturation), black, white]
    return torch.stack(parts, 1)


def _deviation(values: Tensor) -> Tensor:
    """`std(1)`, whose one pass is slower than these two: (B, n) -> (B,)."""
    centred = values - values.mean(1, keepdim=True)
    return (centred.square_().sum(1) / (values.shape[1] - 1)).sqrt()
