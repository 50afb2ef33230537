"""What clean pictures look like: the fits of the measures that know nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....pictures.reading import read_picture
from .. import statistics
from ..measures import PristineDistance
from ..scene_maps import natural_scene

LARGEST = 1400  # px; larger pictures are made smaller
SHARP = 0.5  # of the sharpest block of a picture: flatter ones tell nothing, and blurred backgrounds are no example
RIDGE = 0.05  # added to the diagonal of the correlations


def sharp_blocks(path: Path) -> Tensor:
    """Reads a clean picture; features of its sharp blocks, (N, 72)."""
    image = read_picture(path)
    if max(image.size) > LARGEST:
        ratio = 1024 / max(image.size)
        image = image.resize([round(side * ratio) for side in image.size], Image.Resampling.LANCZOS)
    rgb = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    _, blocks = statistics.describe(rgb)
    grid = statistics.block_grid(rgb)
    contrast = natural_scene(statistics.luminance(rgb)[:, None], grid, products=True).contrast()[0, :, 0]
    return blocks[0, contrast > SHARP * contrast.max()]


def fit_pristine_distance(distance: PristineDistance, pictures: Sequence[Tensor]) -> None:
    """Mean, deviation and covariance of the sharp blocks (N, 72) of clean pictures."""
    blocks = torch.cat(list(pictures))
    distance.mean.copy_(blocks.double().mean(0))
    distance.deviation.copy_(blocks.double().std(0))
    x = distance.standardise(blocks).double()
    distance.covariance.copy_(torch.cov(x.T) + RIDGE * torch.eye(x.shape[1]))
