"""Initial weights of the patch projection: the DCT-II basis, for backbones that are not pretrained.

With random filters a small ViT learns nothing of noise and blur from a few hundred pictures: all it sees of a patch is
its colour. Basis functions of the DCT-II, scaled by their frequency, give every kind of detail the same strength, since
the amplitudes of natural pictures fall as one over the frequency (Field, 1987).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..errors import MaAgiqaError

# Grey, red against green, blue against yellow; orthonormal.
COLOURS = np.array([[1, 1, 1], [1, -1, 0], [-0.5, -0.5, 1]]) / np.sqrt(np.array([[3.0], [2.0], [1.5]]))
_CHROMA_SHARE = 6  # one filter in so many for each of the two colours
STRENGTH = 0.3  # tokens of natural pictures then have a standard deviation of about 0.7


def init_dct_patches(projection: nn.Conv2d) -> None:
    """Replaces a patch projection's weights: grey filters of all frequencies, coloured ones of the lowest.

    Args:
        projection: (D, 3, P, P), of square patches that do not overlap.
    """
    width, channels, side, _ = projection.weight.shape
    if channels != 3:
        raise MaAgiqaError(f"Expected a projection of RGB patches, got {tuple(projection.weight.shape)}.")
    filters, frequencies = _cosines(side)
    chroma = min(width // _CHROMA_SHARE, len(filters))
    evenly = np.linspace(0, len(filters) - 1, width - 2 * chroma).round().astype(int)
    chosen = [(0, place) for place in evenly] + [(colour, place) for colour in (1, 2) for place in range(chroma)]
    weights = [
        COLOURS[colour][:, None, None] * filters[place] * (1 + frequencies[place]) * STRENGTH
        for colour, place in chosen
    ]
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(np.stack(weights)))
        if projection.bias is not None:
            projection.bias.zero_()


def _cosines(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side², side, side), orthonormal, and their frequencies, ascending."""
    number = np.arange(side)
    waves = np.cos(np.pi * (number + 0.5) * number[:, None] / side) * np.sqrt(2 / side)
    waves[0] *= np.sqrt(0.5)
    filters = np.einsum("ui,vj->uvij", waves, waves).reshape(-1, side, side)
    frequencies = np.hypot(number[:, None], number).ravel()
    order = np.argsort(frequencies, kind="stable")
    return filters[order], frequencies[order]
