"""Maps of natural-scene statistics, made a strip of rows at a time and reduced to the means of cells at once.

A map of a megapixel leaves the processor's caches, and every pass over it then costs ten times as much; freshly taken
memory of that size also faults page by page. Strips stay in the cache and their memory is used again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

STRIP = {"cpu": 1 << 16}  # numbers in a map of a strip, or up to three times as many where a row of cells has them
STRIP_ELSEWHERE = 1 << 24  # a graphics card wants few large steps
FEWEST_ROWS = 8
TERMS = 5  # sums of each map, see `_terms`
REACH = 3  # px that the window reaches to each side
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, down, both diagonals


@dataclass(frozen=True)
class Scene:
    """What `natural_scene` finds in B pictures of P planes, in N cells.

    Attributes:
        moments: (B, N, C, 4), means of |x|, x², x² where negative, and x < 0 of each map x: the coefficients, and with
            products the four products with their neighbours too.
        deviation: (B, P, H, W), the local standard deviation.
        grid: Cells down and across.
    """

    moments: Tensor
    deviation: Tensor
    grid: tuple[int, int]

    def contrast(self) -> Tensor:
        """The means of the deviation in the cells: (B, N, P)."""
        down, across = (
            _cells(side, count, self.deviation)
            for side, count in zip(self.deviation.shape[-2:], self.grid, strict=True)
        )
        return (down @ self.deviation @ across.T).flatten(2).transpose(1, 2)


class Buffers:
    """Memory that is used again: tensors by name, each as large as the largest that was asked for so far.

    What `take` returns holds anything, until the same name is taken again.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = self._like.new_empty(size)
        return flat[:size].view(shape)


def natural_scene(planes: Tensor, grid: tuple[int, int], *, products: bool, buffers: Buffers | None = None) -> Scene:
    """MSCN coefficients (window 7 px, sigma 7/6 px, constant 1) of planes, and what `Scene` tells of them.

    Args:
        planes: (B, P, H, W) float32; values of 0..255, or that moved to be near 0.
        grid: Cells down and across. Cells share no pixels; where the grid does not divide the size they differ by one.
        products: Whether to multiply each coefficient with its four neighbours. There is one plane then, and the last
            row and the outer columns only serve as neighbours.
        buffers: Memory to use, of several calls.
    """
    buffers = buffers or Buffers(planes)
    B, P, H, W = planes.shape
    rows, columns = (H - 1, W - 2) if products else (H, W)
    down, across = _cells(rows, grid[0], planes), _cells(columns, grid[1], planes).T
    most = STRIP.get(planes.device.type, STRIP_ELSEWHERE) / (B * P * W)  # rows
    deviation = torch.empty_like(planes, memory_format=torch.contiguous_format)
    C = P * (5 if products else 1)
    sums = planes.new_zeros(C, TERMS, B, grid[0], columns)
    for cells, start, stop in _strips(rows, grid[0], most):
        weights = down[cells, start:stop].expand(B, -1, -1)
        mscn = _mscn(planes, start, stop + products, deviation[..., start : stop + products, :], buffers)
        maps = _with_neighbour_products(mscn, buffers) if products else mscn.unbind(1)
        memory = [buffers.take(name, B, stop - start, columns) for name in ("low", "square")]
        for of_map, one in zip(sums[:, :, :, cells].unbind(), maps, strict=True):
            for of_term, term in zip(of_map.unbind(), _terms(one, *memory), strict=True):
                of_term.baddbmm_(weights, term)
    total, low, square, low_square, low_sign = (sums @ across).unbind(1)  # (C, B, *grid)
    moments = torch.stack([total - 2 * low, square, low_square, -low_sign], -1)
    return Scene(moments.flatten(2, 3).permute(1, 2, 0, 3), deviation, grid)


def _strips(rows: int, count: int, most: float) -> Iterator[tuple[slice, int, int]]:
    """Rows in strips: which of `count` rows of cells they are of, where they start and stop.

    Whole cells are together in `most` rows. Of a taller one the pieces, which all have margins to compute again, may be
    larger: sums of one row of cells cost half as much as those of two.
    """
    starts = [i * rows // count for i in range(count + 1)]
    first = 0
    while first < count:
        last = first + 1
        while last < count and starts[last + 1] - starts[first] <= most:
            last += 1
        height = starts[last] - starts[first]
        pieces = max(min(round(height / (2 * most)), height // FEWEST_ROWS), 1)
        for i in range(pieces):
            start, stop = (starts[first] + step * height // pieces for step in (i, i + 1))
            yield slice(first, last), start, stop
        first = last


def halve(planes: Tensor) -> Tensor:
    """Means of 2 × 2 pixels: (..., H, W) -> (..., H // 2, W // 2)."""
    H, W = (side // 2 * 2 for side in planes.shape[-2:])
    rows = planes[..., :H:2, :W] + planes[..., 1:H:2, :W]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _cells(length: int, count: int, like: Tensor) -> Tensor:
    """(count, length): the matrix that takes the means of `count` equal pieces."""
    return _cell_matrix(length, count, like.device, like.dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept for calls outside it
def _cell_matrix(length: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    place = torch.arange(length, device=device)
    start = torch.arange(count + 1, device=device) * length // count
    inside = (place >= start[:-1, None]) & (place < start[1:, None])
    return inside.to(dtype) / (start[1:] - start[:-1])[:, None]


def _mscn(planes: Tensor, start: int, stop: int, deviation: Tensor, buffers: Buffers) -> Tensor:
    """Coefficients of the rows from `start` to `stop`, (B, P, stop - start, W); fills in their local deviation."""
    padded = _with_margin(planes, start, stop, buffers)
    mean, square = _gaussian(padded, buffers).chunk(2, 1)
    torch.addcmul(square, mean, mean, value=-1.0, out=deviation).clamp_min_(0).sqrt_()
    torch.sub(planes[..., start:stop, :], mean, out=mean)
    return mean.div_(torch.add(deviation, 1.0, out=square))


def _with_margin(planes: Tensor, start: int, stop: int, buffers: Buffers) -> Tensor:
    """Rows with three more on every side, and their squares: (B, 2P, rows + 6, W + 6); edges are repeated."""
    B, P, H, W = planes.shape
    first, last = max(start - REACH, 0), min(stop + REACH, H)
    both = buffers.take("padded", B, 2 * P, stop - start + 2 * REACH, W + 2 * REACH)
    padded = both[:, :P]
    above = first - (start - REACH)
    below = above + last - first
    inner = padded[..., REACH:-REACH]
    inner[..., above:below, :] = planes[..., first:last, :]
    if above:
        inner[..., :above, :] = planes[..., :1, :]
    if below < inner.shape[-2]:
        inner[..., below:, :] = planes[..., -1:, :]
    padded[..., :REACH] = inner[..., :1]
    padded[..., -REACH:] = inner[..., -1:]
    torch.mul(padded, padded, out=both[:, P:])
    return both


def _gaussian_window() -> tuple[float, ...]:
    taps = [math.exp(-0.5 * (t / (7 / 6)) ** 2) for t in range(REACH + 1)]
    return tuple(tap / (taps[0] + 2 * sum(taps[1:])) for tap in taps)


_WINDOW = _gaussian_window()  # centre, and one side


def _gaussian(x: Tensor, buffers: Buffers) -> Tensor:
    """(..., H + 6, W + 6) -> (..., H, W), in the memory of x."""
    # shifted sums: on a CPU much faster than a convolution with one channel a group
    for dim, name in ((-2, "down"), (-1, "padded")):
        shape = list(x.shape)
        length = shape[dim] = x.shape[dim] - 2 * REACH
        total = torch.mul(x.narrow(dim, REACH, length), _WINDOW[0], out=buffers.take(name, *shape))
        for offset in range(1, REACH + 1):
            total.add_(x.narrow(dim, REACH - offset, length), alpha=_WINDOW[offset])
            total.add_(x.narrow(dim, REACH + offset, length), alpha=_WINDOW[offset])
        x = total
    return x


def _with_neighbour_products(mscn: Tensor, buffers: Buffers) -> Iterator[Tensor]:
    """(B, 1, H, W) -> five times (B, H-1, W-2): the coefficients and their products with four neighbours."""
    B, _, H, W = mscn.shape
    centre = mscn[:, 0, : H - 1, 1 : W - 1]
    yield centre
    product = buffers.take("product", B, H - 1, W - 2)
    for dy, dx in NEIGHBOURS:
        yield torch.mul(centre, mscn[:, 0, dy : H - 1 + dy, 1 + dx : W - 1 + dx], out=product)


def _terms(x: Tensor, low: Tensor, square: Tensor) -> Iterator[Tensor]:
    """One after the other, in the same memory: x, min(x, 0), x², min(x, 0)², and the sign of min(x, 0)."""
    yield x
    yield torch.clamp(x, max=0, out=low)
    yield torch.mul(x, x, out=square)
    yield torch.mul(low, low, out=square)
    yield low.sign_()
