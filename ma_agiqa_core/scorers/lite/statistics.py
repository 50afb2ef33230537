"""Natural-scene statistics of a picture at its native resolution.

The features of BRISQUE (Mittal, Moorthy & Bovik, 2012) and NIQE (Mittal, Soundararajan & Bovik, 2013): mean-subtracted,
contrast-normalised (MSCN) luminance and the products of its neighbours, described by asymmetric generalised Gaussians.
What we add: a third scale, the two opponent-colour planes, the distribution of local contrast (so that a blurred
background does not make a sharp subject look blurred), the 8-pixel grid of block coders, the diagonal high band where
noise and checkerboards live, and colour. Scales are made by 2 × 2 averaging instead of bicubic resizing.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .pooling import cell_means

SCALES = 3
BLOCK = 96  # px at full resolution, as in NIQE
MIN_SIDE = 32  # px; smaller pictures are continued by mirroring

# BT.601 luma; red-green and yellow-blue of the opponent space used by IL-NIQE (Zhang, Zhang & Bovik, 2015)
_OPPONENT = ((0.299, 0.587, 0.114), (0.7071, -0.7071, 0.0), (0.4082, 0.4082, -0.8165))
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, down, both diagonals
_EPS = 1e-6

_FIT = ("shape", "mean", "left", "right")
_COEFFICIENTS = ("mscn", "across", "down", "diagonal", "antidiagonal")
BLOCK_FEATURES = tuple(f"luma{s}.{c}.{f}" for s in (0, 1) for c in _COEFFICIENTS for f in _FIT)
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
            *((f"chroma{s}.{p}.{f}" for p in ("red_green", "yellow_blue") for f in ("shape", "variance")) if s else ()),
            *((f"chroma{s}.{p}.contrast" for p in ("red_green", "yellow_blue")) if s else ()),
        )
    ),
)
"""The columns of the picture's features."""


def _gaussian_window() -> tuple[float, ...]:
    taps = [math.exp(-0.5 * (t / (7 / 6)) ** 2) for t in range(4)]
    return tuple(tap / (taps[0] + 2 * sum(taps[1:])) for tap in taps)


_WINDOW = _gaussian_window()  # centre, and one side


def describe(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of a batch of pictures of one size.

    Args:
        rgb: (B, 3, H, W) float32, RGB in [0, 1].

    Returns:
        FEATURES of the whole picture (B, 96), and BLOCK_FEATURES of its N blocks of about 96 × 96 px (B, N, 40), both
        float32. What a picture gives does not depend on the others in the batch.
    """
    rgb = mirror_to(rgb, MIN_SIDE)
    planes = F.conv2d(rgb * 255.0, rgb.new_tensor(_OPPONENT).view(3, 3, 1, 1))
    luma, chroma = planes[:, :1], planes[:, 1:]
    grid = (max(round(rgb.shape[-2] / BLOCK), 1), max(round(rgb.shape[-1] / BLOCK), 1))
    features = [_block_grid(luma), _high_band(luma), _colour(rgb, chroma)]
    blocks = []
    for scale in range(SCALES):
        mscn, deviation = _mscn(luma)
        moments = _pooled_moments(_with_neighbour_products(mscn), grid if scale < 2 else (1, 1))
        features += [_aggd(moments.mean(1)).flatten(1), _local_contrast(deviation)]
        if scale < 2:
            blocks.append(_aggd(moments).flatten(2))
        if scale > 0:  # at full resolution files keep little chroma, and it costs most there
            mscn, deviation = _mscn(chroma)
            features.append(_aggd(_pooled_moments(mscn, (1, 1)).mean(1))[..., [0, 2]].flatten(1))
            features.append(deviation.mean((2, 3)).add(0.1).log())
        luma, chroma = F.avg_pool2d(luma, 2), F.avg_pool2d(chroma, 2)
    return torch.cat(features, 1), torch.cat(blocks, 2)


def mirror_to(rgb: Tensor, side: int) -> Tensor:
    """Continues a picture that is smaller than `side` by mirroring it, as often as needed."""
    for dim in (-2, -1):
        length = rgb.shape[dim]
        if length < side:
            place = torch.arange(side, device=rgb.device) % (2 * length)
            rgb = rgb.index_select(dim, torch.minimum(place, 2 * length - 1 - place))
    return rgb


def _mscn(planes: Tensor) -> tuple[Tensor, Tensor]:
    """MSCN coefficients and local standard deviation, each (B, C, H, W); window 7 px, sigma 7/6 px, constant 1."""
    mean = _gaussian(planes)
    deviation = (_gaussian(planes * planes) - mean * mean).clamp_min_(0).sqrt_()
    return (planes - mean).div_(deviation + 1.0), deviation


def _gaussian(x: Tensor) -> Tensor:
    # shifted sums: on a CPU much faster than a convolution with one channel a group
    side = F.pad(x, (3, 3, 3, 3), mode="replicate")
    for dim in (-1, -2):
        length = side.shape[dim] - 6
        total = side.narrow(dim, 3, length) * _WINDOW[0]
        for offset in (1, 2, 3):
            pair = side.narrow(dim, 3 - offset, length) + side.narrow(dim, 3 + offset, length)
            total.add_(pair, alpha=_WINDOW[offset])
        side = total
    return side


def _with_neighbour_products(mscn: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 5, H-1, W-2): the coefficients and their products with four neighbours."""
    H, W = mscn.shape[-2:]
    centre = mscn[..., : H - 1, 1 : W - 1]
    moved = [mscn[..., dy : H - 1 + dy, 1 + dx : W - 1 + dx] for dy, dx in _SHIFTS]
    return torch.cat([centre, *(centre * neighbour for neighbour in moved)], 1)


def _pooled_moments(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, N, C, 4): means of |x|, x², x² where negative, and x < 0, over N cells of the grid."""
    low = x.clamp_max(0)
    maps = (x.abs(), x * x, low * low, (x < 0).to(x.dtype))
    return torch.stack([cell_means(m, grid).flatten(2) for m in maps], -1).transpose(1, 2)


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
        moments: (..., C, 4), as `_pooled_moments` gives them.

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
    """(B, 1, H, W) -> (B, 4): three quantiles of the log local deviation over 8 × 8 px cells, and the flat share."""
    cells = F.avg_pool2d(deviation, min(8, *deviation.shape[-2:])).flatten(1)
    quantiles = torch.quantile(cells, cells.new_tensor([0.1, 0.5, 0.9]), dim=1).T
    flat = (cells < 1.0).to(cells.dtype).mean(1, keepdim=True)
    return torch.cat([quantiles.add(0.1).log(), flat], 1)


def _block_grid(luma: Tensor) -> Tensor:
    """How far the steps across an 8-pixel grid stand out, along rows and columns: strongest phase against median."""
    features = []
    for axis in (-1, -2):
        steps = luma.diff(dim=axis).abs().mean((1, -1 if axis == -2 else -2))  # (B, n)
        steps = steps[:, : steps.shape[1] // 8 * 8].unflatten(1, (-1, 8)).mean(1)
        features.append(((steps.amax(1) + 0.1) / (steps.median(1).values + 0.1)).log())
    return torch.stack(features, 1)


def _high_band(luma: Tensor) -> Tensor:
    """Haar high bands: log energy of the diagonal, of the straight ones, and the noise deviation by the median rule."""
    H, W = (side // 2 * 2 for side in luma.shape[-2:])
    a, b, c, d = (luma[:, 0, y:H:2, x:W:2] for y in (0, 1) for x in (0, 1))
    diagonal, across, down = ((a - b - c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2)
    noise = diagonal.flatten(1).abs().median(1).values / 0.6745  # Donoho & Johnstone, 1994
    energy = [diagonal.square().mean((1, 2)), (across.square() + down.square()).mean((1, 2))]
    return torch.stack([*(part.add(0.1).log() for part in energy), noise.add(0.1).log()], 1)


def _colour(rgb: Tensor, chroma: Tensor) -> Tensor:
    """Mean and deviation of grey, colourfulness (Hasler & Süsstrunk, 2003), saturation, clipped shares."""
    grey = rgb.mean(1)
    chroma = chroma.flatten(2) / 255.0
    colourful = chroma.std(2).norm(dim=1) + 0.3 * chroma.mean(2).norm(dim=1)
    high, low = rgb.amax(1), rgb.amin(1)
    saturation = ((high - low) / (high + 1e-3)).flatten(1)
    black, white = (low < 0.01).float().mean((1, 2)), (high > 0.99).float().mean((1, 2))
    parts = [
        grey.mean((1, 2)),
        grey.flatten(1).std(1),
        colourful,
        saturation.mean(1),
        saturation.std(1),
        black,
        white,
    ]
    return torch.stack(parts, 1)
