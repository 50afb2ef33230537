"""Random turns and flips of training pictures, as published."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .settings import TrainingSettings

TURNS, TURN_SHARES = (1, 2, 3), (0.33, 0.33, 0.34)  # by 90, 180 and 270 degrees


def augmented(pixels: Tensor, settings: TrainingSettings, random: np.random.Generator) -> Tensor:
    """One picture, (3, S, S) of any dtype, at random turned counter-clockwise and then flipped, as published.

    The authors' flip is meant to be horizontal and is vertical (`np.fliplr` on channels, rows, columns);
    `settings.flip_axis` chooses between the two.
    """
    flips, turns, which = random.random(3)
    if turns < settings.rotate:
        pixels = torch.rot90(
            pixels, TURNS[int(np.searchsorted(np.cumsum(TURN_SHARES[:-1]), which, side="right"))], (1, 2)
        )
    if flips < settings.flip:
        pixels = pixels.flip(1 if settings.flip_axis == "vertical" else 2)
    return pixels


def generator(*numbers: int) -> np.random.Generator:
    """A random generator that depends on these numbers alone, so that a resumed run needs no stored random state."""
    return np.random.default_rng(numbers)


def torch_seed(*numbers: int) -> int:
    """A seed for torch that depends on these numbers alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
