"""Swin stages: which patches see each other, and training's stochastic depth."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ma_agiqa_core.model import MaAgiqaConfig
from ma_agiqa_core.model.swin import DropPath, SwinStage, WindowAttention


@pytest.mark.parametrize("grid", [(8, 8), (6, 10), (7, 9), (4, 4), (5, 5)])
@pytest.mark.parametrize("shift", [0, 2])
def test_patches_attend_within_their_window(grid: tuple[int, int], shift: int) -> None:
    """Also where the window does not divide the grid: windows at the edges hold fewer patches."""
    torch.manual_seed(0)
    attention = WindowAttention(12, grid, heads=3, window=4, shift=shift).double()
    torch.nn.init.normal_(attention.position_bias)
    x = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.float64)

    found = attention(x)

    assert torch.allclose(found, patch_by_patch(attention, x, grid, shift), atol=1e-12)


def patch_by_patch(attention: WindowAttention, x: Tensor, grid: tuple[int, int], shift: int) -> Tensor:
    """Window 4: a patch attends to those with the same numbers of window down and across."""
    H, W = grid
    places = [(row, column) for row in range(H) for column in range(W)]
    q, k, v = attention.qkv(x).unflatten(2, (3, attention.heads, -1)).unbind(2)  # (B, N, heads, c)
    out = torch.empty_like(q)
    for i, (row, column) in enumerate(places):
        window = ((row - shift) // 4, (column - shift) // 4)
        others = [j for j, (r, c) in enumerate(places) if ((r - shift) // 4, (c - shift) // 4) == window]
        rows = [(row - places[j][0] + 3) * 7 + column - places[j][1] + 3 for j in others]
        logits = (q[:, i, None] * k[:, others]).sum(3) / k.shape[3] ** 0.5 + attention.position_bias[rows]
        out[:, i] = (logits.softmax(1)[..., None] * v[:, others]).sum(1)
    return attention.proj(out.flatten(2))


def test_window_shrinks_to_the_grid_and_is_not_shifted_then(tiny_config: MaAgiqaConfig) -> None:
    stage: Any = SwinStage(dataclasses.replace(tiny_config, window_size=7), 8, (4, 4))

    windows = [block.attention.order.shape for layer in stage.layers for block in layer.blocks]

    assert windows == [(1, 16)] * 4
    assert not any(block.attention.is_masked for layer in stage.layers for block in layer.blocks)


def test_every_second_block_is_shifted_and_depth_is_more_and_more_stochastic() -> None:
    stage: Any = SwinStage(MaAgiqaConfig(), 16, (28, 28))
    blocks = [block for layer in stage.layers for block in layer.blocks]

    assert [block.attention.is_masked for block in blocks] == [False, True, False, True]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    assert stage.dropout.p == 0.1


def test_stochastic_depth_skips_whole_pictures_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 3, 2)

    dropped = drop.train()(x)

    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.04)
    assert torch.equal(drop.eval()(x), x)


def test_layer_output_is_scaled_and_added(tiny_config: MaAgiqaConfig) -> None:
    torch.manual_seed(0)
    stage: Any = SwinStage(dataclasses.replace(tiny_config, swin_depths=(1,), swin_heads=(2,)), 8, (4, 4)).eval()
    x = torch.randn(1, 16, 8)

    maps = stage.layers[0].conv(stage.layers[0].blocks[0](x).mT.reshape(1, 8, 4, 4))

    assert torch.allclose(stage(x), x + 0.8 * maps.relu().flatten(2).mT, atol=1e-6)
