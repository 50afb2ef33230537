"""What of ComfyUI's conditioning belongs to some candidates."""

from typing import Any

import pytest
import torch

from ma_agiqa_core.comfyui.conditioning import conditioning_rows


def numbered(*shape: int) -> torch.Tensor:
    """Row i is full of i."""
    return torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)).expand(shape)


def rows_of(tensor: torch.Tensor) -> list[int]:
    return [int(row.flatten()[0]) for row in tensor]


def test_what_holds_for_all_is_left_alone():
    options = {"pooled_output": torch.rand(1, 8), "guidance": 3.5, "area": (8, 8, 0, 0), "mask": torch.rand(1, 8, 8)}
    text = torch.rand(1, 7, 16)

    ((tensor, chosen),) = conditioning_rows([[text, options]], [1, 3], 4)

    assert tensor is text
    assert chosen == options
    assert chosen is not options


def test_every_candidate_keeps_its_rows():
    options: dict[str, Any] = {
        "pooled_output": numbered(4, 8),
        "mask": numbered(4, 8, 8),
        "concat_latent_image": numbered(4, 4, 8, 8),
        "reference_latents": [numbered(4, 4, 8, 8), torch.zeros(1, 4, 8, 8)],
    }

    first, second = conditioning_rows([[numbered(4, 7, 16), options], [None, {}]], [1, 3], 4)

    assert rows_of(first[0]) == [1, 3]
    assert [rows_of(first[1][name]) for name in ("pooled_output", "mask", "concat_latent_image")] == [[1, 3]] * 3
    assert [rows_of(latents) for latents in first[1]["reference_latents"]] == [[1, 3], [0]]
    assert second == [None, {}]
    assert rows_of(options["pooled_output"]) == [0, 1, 2, 3]


def test_fewer_rows_are_repeated_in_turn():
    ((tensor, _),) = conditioning_rows([[numbered(2, 7, 16), {}]], [1, 2, 3], 4)

    assert rows_of(tensor) == [1, 0, 1]


def test_pictures_to_inpaint_that_are_not_one_for_each_are_refused():
    with pytest.raises(ValueError, match="concat_latent_image of the conditioning for one picture or for each of 4"):
        conditioning_rows([[None, {"concat_latent_image": numbered(2, 4, 8, 8)}]], [0], 4)


class Control:
    def __init__(self, hints: int, previous: Any = None, extra: int = 0) -> None:
        self.cond_hint_original = torch.zeros(hints, 3, 8, 8)
        self.extra_concat_orig = [torch.zeros(extra, 1, 8, 8)] if extra else []
        self.previous_controlnet = previous


def test_a_controlnet_with_one_picture_is_taken_along():
    control = Control(1, Control(1))

    assert conditioning_rows([[None, {"control": control}]], [0], 4)[0][1]["control"] is control


@pytest.mark.parametrize("control", [Control(4), Control(1, Control(4)), Control(1, extra=4)])
def test_a_controlnet_with_several_is_refused(control):
    with pytest.raises(ValueError, match=r"all candidates, got 4\. Give it a single picture"):
        conditioning_rows([[None, {"control": control}]], [0], 4)
