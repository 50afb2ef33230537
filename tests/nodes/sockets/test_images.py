"""Pictures in and out of the nodes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def pictures(pack_module: Callable[[str], Any]) -> Any:
    return pack_module("nodes.sockets.images")


def test_flattened_batches_and_lists_in_input_order(pictures: Any, batch: torch.Tensor) -> None:
    other = torch.full((1, 8, 9, 3), 0.25)
    flat = pictures.flattened([batch[:2], other, batch[2:]])
    assert [tuple(picture.shape) for picture in flat] == [(24, 32, 3)] * 2 + [(8, 9, 3)] + [(24, 32, 3)] * 3
    assert torch.equal(torch.stack(flat[3:]), batch[2:])


@pytest.mark.parametrize("images", [[], [torch.zeros(0, 8, 8, 3)], [None]])
def test_no_picture_is_refused(pictures: Any, images: Any) -> None:
    with pytest.raises(ValueError, match="Expected at least one picture, got an empty batch"):
        pictures.flattened(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["a"], r"^Expected images \[batch, height, width, 3\], got str\. Connect an IMAGE output\.$"),
        ([torch.zeros(2, 3, 8, 9)], r"got a tensor \(2, 3, 8, 9\)"),
        ([torch.zeros(1, 0, 8, 3)], r"^Expected pictures with a height and a width, got \(0, 8, 3\) as 0\.$"),
        ([torch.zeros(2, 4, 4, 3), torch.full((1, 5, 5, 3), torch.inf)], r"NaN or infinite ones in picture 2 \(the"),
    ],
)
def test_what_is_no_picture_is_refused(pictures: Any, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pictures.flattened(images)


def test_a_single_picture_without_a_batch_will_do(pictures: Any) -> None:
    assert [tuple(picture.shape) for picture in pictures.flattened([torch.zeros(4, 5, 3)])] == [(4, 5, 3)]


def test_for_the_core_pictures_are_rgb_in_range_and_not_copied_without_need(pictures: Any) -> None:
    ready, grey = torch.rand(4, 5, 3), torch.full((2, 2, 1), 0.5)
    bright = torch.tensor([-0.5, 0.5, 2.0]).expand(3, 3, 3)
    given = pictures.for_core([ready, grey, bright])
    assert given[0].data_ptr() == ready.data_ptr()
    assert torch.equal(given[0], ready.movedim(-1, 0))
    assert torch.equal(given[1], torch.full((3, 2, 2), 0.5))
    assert given[2][:, 0, 0].tolist() == [0.0, 0.5, 1.0]


def test_equal_sizes_come_out_as_one_batch_others_each_on_its_own(pictures: Any, batch: torch.Tensor) -> None:
    (together,) = pictures.as_image_output(list(batch))
    assert torch.equal(together, batch)
    apart = pictures.as_image_output([batch[0], torch.zeros(8, 8, 3), batch[1]])
    assert [tuple(picture.shape) for picture in apart] == [(1, 24, 32, 3), (1, 8, 8, 3), (1, 24, 32, 3)]
    mixed = pictures.as_image_output([torch.zeros(8, 8, 3), torch.zeros(8, 8, 4)])  # with and without alpha
    assert len(mixed) == 2


def test_no_picture_blocks_the_whole_output(pictures: Any) -> None:
    from comfy_execution.graph_utils import ExecutionBlocker

    blocked = pictures.as_image_output([])
    assert isinstance(blocked, ExecutionBlocker)
    assert blocked.message is None  # silently


def test_one_value_of_an_input_that_came_as_a_list(pictures: Any) -> None:
    assert pictures.one([3], "top k") == 3
    assert pictures.one([3, 3], "top k") == 3
    assert pictures.one([], "scorer") is pictures.one(None, "scorer") is None
    with pytest.raises(ValueError, match=r"^Expected one value for 'top k', got a list of 2\. Connect a single one\.$"):
        pictures.one([3, 4], "top k")


def test_prompts(pictures: Any) -> None:
    assert pictures.prompts_for(["a cat"], 3) == "a cat"
    assert pictures.prompts_for(["a", "b"], 2) == ["a", "b"]
    assert pictures.prompts_for(["", " "], 5) is pictures.prompts_for(None, 2) is None
    with pytest.raises(ValueError, match=r"^Expected one prompt, or one for each of 3 pictures, got 2\."):
        pictures.prompts_for(["a", "b"], 3)
