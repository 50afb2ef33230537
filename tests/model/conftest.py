"""A network small enough to run in milliseconds."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig

TINY = MaAgiqaConfig(
    backbone="vit_tiny_patch16_224",
    image_size=64,  # 4 x 4 patches
    backbone_blocks=(0, 2),
    stage_widths=(16, 8),
    swin_heads=(2, 4),
    window_size=2,
    swin_mlp_width=12,
    semantic_dim=10,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_config() -> MaAgiqaConfig:
    return TINY


@pytest.fixture
def tiny_model() -> MaAgiqa:
    """Random weights, eval mode; heads scaled and shifted so that scores of pictures differ and no ReLU is dead."""
    torch.manual_seed(0)
    model = MaAgiqa(TINY).eval()
    last: Any = model.patch_quality.score[3]
    with torch.no_grad():
        last.weight *= 10
        last.bias += 2
        model.fusion.visual.weight *= 10
        model.fusion.score.weight *= 10
    return model
