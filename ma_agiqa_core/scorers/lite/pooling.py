"""Means over the cells of a grid that covers maps of any size, on every device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cell_means(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """`F.adaptive_avg_pool2d`, which Apple's graphics processor only has for sizes that the grid divides.

    Args:
        maps: (B, C, H, W), floating point.
        grid: Cells down and across, each at least 1. Where it does not divide the size, cells share rows and columns.

    Returns:
        (B, C, *grid).
    """
    if maps.device.type != "mps":
        return F.adaptive_avg_pool2d(maps, grid)
    return window_means(window_means(maps, -2, grid[0]), -1, grid[1])


def window_means(values: Tensor, dim: int, count: int) -> Tensor:
    """The means of `count` equal windows along a dimension, from edge to edge as adaptive pooling has them."""
    length = values.shape[dim]
    bounds = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    return torch.stack([values.narrow(dim, start, end - start).mean(dim) for start, end in bounds], dim)
