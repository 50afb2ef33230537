"""Copies of a picture, and groups of groups."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ma_agiqa_core.learning.copies import COPIES, clusters, joined_groups, thumbnail


@pytest.fixture
def scenes() -> list[torch.Tensor]:
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return list(F.interpolate(coarse, size=(96, 96), mode="bicubic").clamp(0, 1))


def test_another_size_and_rounding_are_the_same_picture(scenes):
    smaller = F.interpolate(scenes[0][None], size=(60, 60), mode="bicubic", antialias=True)[0].clamp(0, 1)
    noisy = (scenes[1] + 0.02 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    found = clusters(np.stack([thumbnail(rgb) for rgb in [*scenes, smaller, noisy]]))
    assert found.tolist() == [0, 1, 2, 0, 1]


def test_what_was_darkened_is_a_copy_but_not_the_same(scenes):
    thumbnails = np.stack([thumbnail(rgb) for rgb in [*scenes, scenes[0] * 0.6]])
    assert clusters(thumbnails).tolist() == [0, 1, 2, 3]
    assert clusters(thumbnails, alike=COPIES).tolist() == [0, 1, 2, 0]


def test_groups_that_share_a_picture_are_one():
    prompts, copies = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3])
    assert joined_groups(prompts, copies).tolist() == [0, 0, 0, 1, 2]
