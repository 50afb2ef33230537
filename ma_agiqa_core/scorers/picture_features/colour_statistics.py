"""Colour, light and where they are, as 103 numbers: what lite leaves out, since it is a matter of taste.

Hue is the angle in the plane of two opponent colours, so that warm and cold lie opposite each other; grey pixels, whose
hue means nothing, weigh nothing in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..lite.pooling import cell_means

HUES = 12  # bins around the circle
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # quantiles of light, saturation and chroma
SIDE = 96  # px: it is seen as small as this, where noise and texture are gone
CELLS = 3  # along a side, for where light and colour are
COARSE = 12  # px: as small as this only large areas are left
COLOUR_PARTS = {
    "light": len(SHARES) + 2,
    "colour": 2 * len(SHARES) + 4,
    "hues": 4 * HUES + 1,
    "places": 3 * CELLS**2,
}
"""The columns, part by part: how light, how colourful, of which hues, and where."""
_EPS = 1e-6

# Luma of BT.601, red-green and yellow-blue, each orthogonal to grey
_PLANES = ((0.299, 0.587, 0.114), (0.7071, -0.7071, 0.0), (0.4082, 0.4082, -0.8165))


def describe_colours(rgb: Tensor) -> Tensor:
    """Numbers for pictures of one size.

    Args:
        rgb: (B, 3, H, W) float32, RGB in [0, 1].

    Returns:
        (B, 103) float32, most of them in [-1, 1].
    """
    H, W = rgb.shape[-2:]
    small = cell_means(rgb, (min(H, SIDE), min(W, SIDE)))
    light, red_green, yellow_blue = torch.einsum("pc,bchw->pbhw", small.new_tensor(_PLANES), small)
    chroma = (red_green**2 + yellow_blue**2).sqrt()
    saturation = 1 - small.amin(1) / small.amax(1).clamp_min(_EPS)
    shares = small.new_tensor(SHARES)
    quantiles = [torch.quantile(plane.flatten(1), shares, dim=1).T for plane in (light, saturation, chroma)]
    moments = [
        torch.stack([plane.flatten(1).mean(1), plane.flatten(1).std(1, correction=0)], 1)
        for plane in (light, red_green, yellow_blue)
    ]
    planes = torch.stack([light, red_green, yellow_blue], 1)
    cells = cell_means(planes, (CELLS, CELLS)).flatten(2)
    places = (cells - cells.mean(2, keepdim=True)).flatten(1)
    hues = _hue_histogram(red_green, yellow_blue)
    one_hue = hues.square().sum(1, keepdim=True)
    coarse = _hue_histogram(*(cell_means(planes[:, 1:], (COARSE, COARSE))).unbind(1))
    top, left = small.shape[-2] // 4, small.shape[-1] // 4
    middle = planes[:, 1:, top : small.shape[-2] - top, left : small.shape[-1] - left]
    middle_hues = _hue_histogram(*middle.unbind(1))
    even_hues = _hue_histogram(red_green, yellow_blue, _evenness(light))
    of_light, of_colour = [quantiles[0], moments[0]], [*quantiles[1:], *moments[1:]]
    return torch.cat([*of_light, *of_colour, hues, coarse, middle_hues, even_hues, one_hue, places], 1)


def _evenness(light: Tensor) -> Tensor:
    """(B, H, W) -> (B, H, W): 1 inside of even areas, near 0 at edges and in texture."""
    steps = F.pad(light.diff(dim=1).abs(), (0, 0, 0, 1)) + F.pad(light.diff(dim=2).abs(), (0, 1))
    return torch.exp(-steps / 0.03)


def _hue_histogram(red_green: Tensor, yellow_blue: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, HUES): the share of the colour at each hue, between two bins by distance; small in grey pictures.

    Args:
        red_green: (B, H, W).
        yellow_blue: (B, H, W).
        weight: (B, H, W) of each pixel, beside its chroma; None for 1.
    """
    chroma = (red_green**2 + yellow_blue**2).sqrt()
    weight = (chroma if weight is None else chroma * weight).flatten(1)
    place = (torch.atan2(yellow_blue, red_green) / (2 * math.pi) * HUES).remainder(HUES).flatten(1)
    left = place.floor()
    bins = torch.zeros(len(place), HUES, device=place.device)
    bins.scatter_add_(1, left.long() % HUES, weight * (1 - (place - left)))
    bins.scatter_add_(1, (left.long() + 1) % HUES, weight * (place - left))
    return bins / (weight.sum(1, keepdim=True) + 0.02 * weight.shape[1])
