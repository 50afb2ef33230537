"""Descriptions in the place of pixels."""

import dataclasses

import pytest
import torch

from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.model.description_tokens import GRID, WIDTH, DescriptionTokens

CONFIG = MaAgiqaConfig(
    backbone="lite@1", stage_widths=(16, 8), swin_heads=(2, 2), window_size=2, swin_mlp_width=16, semantic_dim=0,
    description_columns=10,
)  # fmt: skip


def test_one_score_a_description_that_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = MaAgiqa(CONFIG).eval()
    descriptions = torch.randn(3, 10)
    with torch.no_grad():
        together = model(descriptions)
        alone = torch.cat([model(row[None]) for row in descriptions])
    assert torch.allclose(together, alone, atol=1e-5)
    assert len(together.unique()) == 3


def test_columns_are_standardised_and_clipped():
    tokens = DescriptionTokens(CONFIG).eval()
    tokens.mean.fill_(2)
    tokens.deviation.fill_(0.5)
    assert tokens.standardise(torch.full((1, 10), 3.0)).unique().tolist() == [2.0]
    assert tokens.standardise(torch.full((1, 10), 1e6)).unique().tolist() == [4.0]
    assert tokens(torch.zeros(2, 10)).shape == (2, GRID[0] * GRID[1], WIDTH)


def test_pixels_are_refused():
    with pytest.raises(MaAgiqaError, match=r"float descriptions \(B, 10\), got .*features of lite@1"):
        MaAgiqa(CONFIG)(torch.zeros(1, 3, 224, 224))


def test_configs_without_the_field_are_of_pixels():
    values = dataclasses.replace(CONFIG, description_columns=0).to_dict()
    del values["description_columns"]
    assert MaAgiqaConfig.from_dict(values).description_columns == 0
