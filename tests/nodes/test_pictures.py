"""Pictures in and out of the nodes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def pictures(pack_module: Callable[[str], Any]) -> Any:
    return pack_module("nodes.pictures")


def test_flattened_batches_and_lists_in_input_order(pictures: Any, batch: torch.Tensor) -> None:
    other = torch.full((1, 8, 9, 3), 0.25)
    flat = pictures.flattened([batch[:2], other, batch[2:]])
    assert [tuple(picture.shape) for picture in flat] == [(24, 32, 3)] * 2 + [(8, 9, 3)] + [(24, 32, 3)] * 3
    assert torch.equal(torch.stack(flat[3:]), batch[2:])


@pytest.mark.parametrize("images", [[], [torch.zeros(0, 8, 8, 3)], [None]])
def test_no_picture_is_refused(pictures: Any, images: Any) -> None:
    with pytest.raises(ValueError, match="Expected at least one picture, got an empty batch"):
        pictures.flattened(images)
