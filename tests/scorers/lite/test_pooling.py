"""Means over cells: what torch's adaptive pooling gives, in windows of our own too."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from ma_agiqa_core.scorers.lite.pooling import cell_means, window_means

SIDES = (1, 2, 3, 7, 8, 13, 95, 129, 510, 511, 1023)
CELLS = (1, 2, 5, 8, 11)


@pytest.mark.parametrize("side", SIDES)
def test_windows_are_those_of_adaptive_pooling(side: int) -> None:
    torch.manual_seed(side)
    for other, down, across in product((1, 6, 31), CELLS, CELLS):
        maps = torch.randn(2, 3, side, other, dtype=torch.float64)
        wanted = F.adaptive_avg_pool2d(maps, (down, across))
        torch.testing.assert_close(window_means(window_means(maps, -2, down), -1, across), wanted)


def test_on_the_cpu_it_is_torchs_own_to_the_last_bit() -> None:
    maps = torch.rand(1, 2, 511, 510)
    assert cell_means(maps, (5, 5)).equal(F.adaptive_avg_pool2d(maps, (5, 5)))
