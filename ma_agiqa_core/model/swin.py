"""Swin stages at constant resolution (Liu et al., 2021, as MANIQA uses them): attention in windows of patches.

Each layer ends with a 3x3 convolution and adds its scaled output to its input. Unlike the published code, a grid that
the window does not divide is taken too: windows at its far edges then hold fewer patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MaAgiqaConfig
from .token_linear import TokenLinear

_APART = -100.0  # added to the logits of patches that only the cyclic shift brought together; as published


class SwinStage(nn.Module):
    """Dropout, then the layers.

    Args:
        config: Its `swin_*`, `window_size`, `dropout` and `drop_path` are used.
        width: Channels.
        grid: Patches down and across.
    """

    def __init__(self, config: MaAgiqaConfig, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.scale = config.swin_scale
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList()
        rates = torch.linspace(0, config.drop_path, sum(config.swin_depths), device="cpu").tolist()
        for depth, heads in zip(config.swin_depths, config.swin_heads, strict=True):
            window = min(config.window_size, *grid)
            shift = window // 2 if window < min(grid) else 0
            blocks = [
                SwinBlock(width, grid, heads, window, shift if i % 2 else 0, config.swin_mlp_width, rates.pop(0))
                for i in range(depth)
            ]
            self.layers.append(SwinLayer(blocks, width, grid))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = self.dropout(x)
        for layer in self.layers:
            x = self.scale * layer(x) + x
        return x


class SwinLayer(nn.Module):
    """Blocks, a 3x3 convolution over the grid, ReLU."""

    def __init__(self, blocks: list[SwinBlock], width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.blocks = nn.ModuleList(blocks)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        maps = x.unflatten(1, self.grid).permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        return F.relu(self.conv(maps)).permute(0, 2, 3, 1).flatten(1, 2)


class SwinBlock(nn.Module):
    """Window attention and an MLP, each normed before, with stochastic depth and a residual.

    Args:
        width: Channels.
        grid: Patches down and across.
        heads: Attention heads.
        window: Side of a window.
        shift: How far the windows are shifted down and right; 0 for the first block of a pair.
        mlp_width: Hidden width of the MLP.
        drop_path: Share of pictures that skip a branch in training.
    """

    def __init__(
        self, width: int, grid: tuple[int, int], heads: int, window: int, shift: int, mlp_width: int, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, grid, heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(TokenLinear(width, mlp_width), nn.GELU(), TokenLinear(mlp_width, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowAttention(nn.Module):
    """Multi-head attention among the patches of a window, with a learned bias for each relative position."""

    def __init__(self, width: int, grid: tuple[int, int], heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = TokenLinear(width, 3 * width)
        self.proj = TokenLinear(width, width)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        order, place, apart = _windows(grid, window, shift)
        self.order = nn.Buffer(order, persistent=False)  # (W, T): which patches are in which window; N: none
        self.place = nn.Buffer(place, persistent=False)  # (N,): where in the windows each patch is
        self.apart = nn.Buffer(apart, persistent=False)  # (W, T, T), added to the logits
        self.relative = nn.Buffer(_relative_positions(window), persistent=False)  # (T, T)
        self.is_padded = order.numel() > place.numel()
        self.is_masked = self.is_padded or shift > 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        B, _, C = x.shape
        W, T = self.order.shape
        if self.is_padded:
            x = F.pad(x, (0, 0, 0, 1))
        windows = x.index_select(1, self.order.flatten()).view(B * W, T, C)
        q, k, v = self.qkv(windows).view(B * W, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B*W, heads, T, c)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(B))
        tokens = self.proj(attended.transpose(1, 2).reshape(B, W * T, C))
        return tokens.index_select(1, self.place)

    def _bias(self, batch: int) -> Tensor:
        """(1 or B*W, heads, T, T), added to the logits."""
        bias = self.position_bias[self.relative].permute(2, 0, 1)[None]
        if not self.is_masked:
            return bias
        return (bias + self.apart[:, None]).repeat(batch, 1, 1, 1)


class DropPath(nn.Module):
    """Stochastic depth: in training a picture skips the branch with this probability; the others make up for it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


def _windows(grid: tuple[int, int], window: int, shift: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which patches share a window after a cyclic shift up and left.

    Returns:
        (W, T) patch numbers, N where a window has none; (N,) the place of each patch among these W*T; (W, T, T)
        what keeps patches apart that were not neighbours before the shift, and hides the places without a patch.
    """
    H, W = grid
    padded = (-(-H // window) * window, -(-W // window) * window)
    numbers = torch.full(padded, H * W, device="cpu")
    numbers[:H, :W] = torch.arange(H * W, device="cpu").view(H, W)
    regions = torch.zeros(padded, device="cpu")
    if shift:
        for edge in (window, shift):  # three bands down and three across
            regions[-edge:] += 1
            regions[:, -edge:] += 3
    numbers = numbers.roll((-shift, -shift), (0, 1))
    order, region = (_partition(plane, window) for plane in (numbers, regions))
    apart = (region[:, :, None] != region[:, None, :]) * _APART
    apart = apart.masked_fill((order == H * W)[:, None, :], -torch.inf)
    return order, order.flatten().argsort()[: H * W], apart


def _partition(plane: Tensor, window: int) -> Tensor:
    """(H, W) -> (windows, window * window)."""
    H, W = plane.shape
    return plane.view(H // window, window, W // window, window).transpose(1, 2).reshape(-1, window * window)


def _relative_positions(window: int) -> Tensor:
    """(T, T): for each pair of patches in a window the row of the bias table, by their distance down and across."""
    down, across = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(window, device="cpu")] * 2, indexing="ij"))
    side = 2 * window - 1
    down, across = (axis[:, None] - axis[None, :] + window - 1 for axis in (down, across))
    return down * side + across
