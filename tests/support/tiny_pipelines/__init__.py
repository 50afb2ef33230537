"""Tiny random pipelines of every family, 16 pixels wide, and every scheduler; conftest.py has the fixture.

The sizes are small because a whole call is to take milliseconds. The weights are redrawn (`awaken`) because
diffusers' initial ones leave many inputs without effect (zero convolutions, gates): a row with another row's prompt,
mask or control picture must come out as another picture here, or the tests would miss it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from .families import TinyFamily
from .flux import FLUX
from .making import LENGTH, PICTURES, PROMPTS, SIDE, generators, masks, pictures, random
from .modular import MODULAR, shared_modular
from .others import OTHERS, REFUSED
from .qwen import QWEN
from .schedulers import FLOW_SCHEDULERS, SCHEDULERS, STABLE_SCHEDULERS
from .texts import text
from .unets import UNETS, controlnet, sdxl_unet
from .wide import WIDE
from .z_image import Z_IMAGE

__all__ = [
    "FAMILIES",
    "FLOW_SCHEDULERS",
    "LENGTH",
    "MODULAR",
    "PICTURES",
    "PROMPTS",
    "REFUSED_FAMILIES",
    "SCHEDULERS",
    "SIDE",
    "STABLE_SCHEDULERS",
    "controlnet",
    "generators",
    "masks",
    "pictures",
    "random",
    "sdxl_unet",
    "shared_modular",
    "text",
]

FAMILIES: dict[str, TinyFamily] = {**UNETS, **FLUX, **QWEN, **Z_IMAGE, **OTHERS, **WIDE}
REFUSED_FAMILIES: dict[str, TinyFamily] = REFUSED


def pictures_of(output: Any) -> Any:
    """The rows of a pipeline's result, whatever the family calls it."""
    return output.images if hasattr(output, "images") else output.frames


@cache
def shared(name: str) -> Any:
    """One pipeline of this family for all tests that leave it as it was."""
    pipe = {**FAMILIES, **REFUSED_FAMILIES}[name].make()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def available() -> list[str]:
    """The families that the installed diffusers has: the youngest are missing in older releases."""

    def is_here(name: str) -> bool:
        try:
            shared(name)
        except (AttributeError, ImportError):
            return False
        return True

    return [name for name in FAMILIES if is_here(name)]


def pipeline(name: str, scheduler: str | None = None) -> Any:
    """The family's shared pipeline with a fresh scheduler, the usual one unless named."""
    pipe = shared(name)
    pipe.scheduler = SCHEDULERS[scheduler or {**FAMILIES, **REFUSED_FAMILIES}[name].usual]()
    return pipe


def rows_that_differ(first: torch.Tensor, second: torch.Tensor, limit: float = 1e-4) -> Sequence[int]:
    """Row numbers whose largest difference is above the limit."""
    return [row for row, (a, b) in enumerate(zip(first, second, strict=True)) if (a - b).abs().max() > limit]
