"""What the tiny pipelines are made of: random weights, pictures and masks."""

from typing import Any

import torch

SIDE = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.-'"
LENGTH = 12  # tokens of a prompt
PROMPTS = ("a red cube", "two cats", "mist")
NEGATIVE_PROMPTS = ("blurred", "dark", "flat grey")


def generators(rows: int, seed: int = 0) -> list[torch.Generator]:
    """One generator per row, seeds `seed`, `seed + 1`, ..."""
    return [torch.Generator("cpu").manual_seed(seed + row) for row in range(rows)]


def awaken(model: Any, seed: int) -> Any:
    """Random weights through which every input reaches the output; everything in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data.normal_(0, fan_in**-0.5, generator=generator)
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.1, generator=generator)
        elif name.endswith("weight"):  # of a norm
            parameter.data.fill_(1)
    return model.eval().requires_grad_(False)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 7) -> torch.Tensor:
    """Random pictures, (count, 3, SIDE, SIDE) in [0, 1]."""
    return torch.rand((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


def masks(count: int) -> torch.Tensor:
    """White where an inpainting pipeline paints: a left part, wider from row to row, (count, 1, SIDE, SIDE)."""
    edge = SIDE // 4 + 2 * torch.arange(count).view(count, 1, 1, 1)
    return (torch.arange(SIDE).expand(count, 1, SIDE, SIDE) < edge).float()


def pil(picture: torch.Tensor) -> Any:
    """One picture, (3, H, W) in [0, 1], as a PIL image."""
    import PIL.Image

    return PIL.Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy())


PICTURES = {"image": pictures, "mask_image": masks}
