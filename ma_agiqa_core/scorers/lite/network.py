"""The lite scorer as a module: how near a picture is to clean ones, less what it plainly suffers from.

The scale comes from measures that know only clean pictures, or little else:

1. `photographs`: NIQE's distance from lossless photographs, on luminance at three scales and on chroma.
2. `renders`: the same from pictures of good generators.
3. `support_vectors`: BRISQUE's idea; support-vector regression on the luminance statistics of the whole picture.

Each is centred, squashed to (-1, 1) and weighted, so that none outweighs the rest far from its data. A crop network,
the first stages of EfficientNet-Lite0, was trained to order many kinds of damage. Styles and generators shift its score
by as much as damage does, so it has no say in the scale: only a score below a threshold costs something.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...compute.progress import tick
from ...errors import MaAgiqaError
from . import statistics
from .crop_network import CropNetwork, spread
from .measures import PristineDistance, SupportVectors

WHOLE = 4_000_000  # px; larger pictures are described by tiles
TILE = 1024  # px

MIDDLE = 5.0  # scores run from 0 to 10

MEASURES = ("photographs", "renders", "support_vectors", "damage")
"""The columns of `LiteNetwork.predict`."""
_SCALE = len(MEASURES) - 1  # the first ones make the scale, the last one is the penalty's


@dataclass(frozen=True)
class Features:
    """The features of B pictures of one size that the measures read.

    Attributes:
        statistics: (B, 96), the pictures' features of `statistics.describe`.
        blocks: (B, N, 72), its features of N blocks.
        crops: (B, K, 352), pooled feature maps of K crops.
    """

    statistics: Tensor
    blocks: Tensor
    crops: Tensor


def on_scale(quality: Tensor) -> Tensor:
    """The network's -1..1 as scores, 0..10."""
    return MIDDLE + MIDDLE * quality


class LiteNetwork(nn.Module):
    """RGB pictures of one size -> quality in (-1, 1), higher is better.

    Args:
        vectors: Number of support vectors.
    """

    def __init__(self, vectors: int) -> None:
        super().__init__()
        self.photographs = PristineDistance()
        self.renders = PristineDistance()
        self.support_vectors = SupportVectors(vectors)
        self.crop_network = CropNetwork()
        self.mean = nn.Buffer(torch.zeros(len(MEASURES)))
        self.scale = nn.Buffer(torch.ones(len(MEASURES)))
        self.weight = nn.Buffer(torch.full((len(MEASURES),), 1 / len(MEASURES)))
        self.threshold = nn.Buffer(torch.zeros(()))  # of the crop network's centred score

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> LiteNetwork:
        """Builds the network of a state dict, whose shapes tell its sizes.

        Raises:
            ValueError: The keys or shapes are not those of a lite scorer.
        """
        if "statistics_head.hidden.weight" in state:
            raise MaAgiqaError(
                "Expected the tensors of lite 2, got those of lite 1, which knew other statistics. Take this version's "
                "lite, or distil the student again."
            )
        try:
            network = cls(state["support_vectors.vectors"].shape[0]).float()  # whatever the default dtype is
            network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (KeyError, RuntimeError) as error:
            reason = str(error).replace("\n", " ")[:300]
            raise MaAgiqaError(f"Expected the tensors of a lite scorer, got others: {reason}.") from error
        return network.eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB in [0, 1] -> (B,)."""
        return self.combine(self.predict(self.extract_features(rgb)))

    def score(self, rgb: Tensor) -> Tensor:
        """The same from 0 to 10."""
        return on_scale(self(rgb))

    def extract_features(self, rgb: Tensor) -> Features:
        """Features of pictures (B, 3, H, W), float32 RGB in [0, 1]."""
        return Features(*describe(rgb), self.crop_network.describe(rgb))

    def predict(self, features: Features) -> Tensor:
        """The scores of MEASURES, each on its own scale, higher is better: (B, 4)."""
        scores = (
            self.photographs(features.blocks),
            self.renders(features.blocks),
            self.support_vectors(features.statistics),
            self.crop_network.head(features.crops)[..., 0].mean(1),
        )
        return torch.stack(scores, 1)

    def combine(self, scores: Tensor) -> Tensor:
        """The scores of `predict`, (B, 4), centred, squashed and weighted: (B,)."""
        centred = (scores - self.mean) / self.scale
        scale, damage = centred[:, :_SCALE], centred[:, _SCALE]
        penalty = (self.threshold - damage).clamp_min(0).tanh()
        return F.softsign(scale) @ self.weight[:_SCALE] - self.weight[_SCALE] * penalty


def describe(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """`statistics.describe`, by tiles where a picture is so large that the maps would not fit in memory."""
    H, W = rgb.shape[-2:]
    if H * W <= WHOLE:
        return statistics.describe(rgb)
    h, w = min(H, max(TILE, WHOLE // W // 4)), min(W, max(TILE, WHOLE // H // 4))
    parts = []
    for top in spread(H, h, 2 if h < H else 1):
        for left in spread(W, w, 2 if w < W else 1):
            parts.append(statistics.describe(rgb[..., top : top + h, left : left + w]))
            tick(0)
    return torch.stack([part[0] for part in parts]).mean(0), torch.cat([part[1] for part in parts], 1)
