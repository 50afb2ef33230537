"""The lite scorer as a module: four different scorers of technical quality, averaged.

1. `SupportVectors`: BRISQUE's idea; support-vector regression on the luminance statistics of the whole picture.
2. `PristineDistance`: NIQE; how far the statistics of its blocks are from those of lossless photographs.
3. `StatisticsHead`: a small perceptron on all statistics, trained to order many kinds of degradations.
4. `CropNetwork`: the first stages of EfficientNet-Lite0 (Liu, 2020) on crops at native resolution, trained alike.

The first two know only what clean photographs look like and carry over to unknown content; the other two know more
kinds of damage. Each is centred, squashed to (-1, 1) and weighted, so that none outvotes the rest far from its data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...compute.progress import tick
from ...errors import MaAgiqaError
from . import statistics

CROP = 192  # px, the size the crop network was trained on
MOST_CROPS = 4  # along a side
WHOLE = 4_000_000  # px; larger pictures are described by tiles
TILE = 1024  # px

# EfficientNet-Lite0 up to stride 16: kernel, stride, expansion, channels, layers; whether its output is used
_STEM = 32
_STAGES = (
    (3, 1, 1, 16, 1, False),
    (3, 2, 6, 24, 2, True),
    (5, 2, 6, 40, 2, True),
    (3, 2, 6, 80, 3, False),
    (5, 1, 6, 112, 3, True),
)
CROP_FEATURES = 2 * (24 + 40 + 112)

MIDDLE = 5.0  # scores run from 0 to 10


@dataclass(frozen=True)
class Features:
    """What the four scorers read of B pictures of one size.

    Attributes:
        statistics: (B, 96); these and `blocks` are what `statistics.describe` gives.
        blocks: (B, N, 40).
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
        hidden: Width of the statistics head.
    """

    def __init__(self, vectors: int, hidden: int) -> None:
        super().__init__()
        self.support_vectors = SupportVectors(vectors)
        self.pristine_distance = PristineDistance()
        self.statistics_head = StatisticsHead(hidden)
        self.crop_network = CropNetwork()
        self.centre = nn.Buffer(torch.zeros(4))
        self.spread = nn.Buffer(torch.ones(4))
        self.weight = nn.Buffer(torch.full((4,), 0.25))

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> LiteNetwork:
        """Builds the network of a state dict, whose shapes tell its sizes.

        Raises:
            ValueError: The keys or shapes are not those of a lite scorer.
        """
        try:
            vectors = state["support_vectors.vectors"].shape[0]
            hidden = state["statistics_head.hidden.weight"].shape[0]
            network = cls(vectors, hidden).float()  # whatever the default dtype is
            network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (KeyError, RuntimeError) as error:
            reason = str(error).replace("\n", " ")[:300]
            raise MaAgiqaError(f"Expected the tensors of a lite scorer, got others: {reason}.") from error
        return network.eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB in [0, 1] -> (B,)."""
        return self.combine(self.scores(rgb))

    def score(self, rgb: Tensor) -> Tensor:
        """The same from 0 to 10."""
        return on_scale(self(rgb))

    def combine(self, scores: Tensor) -> Tensor:
        """The four `scores` (B, 4), centred, squashed and averaged: (B,)."""
        return F.softsign((scores - self.centre) / self.spread) @ self.weight

    def scores(self, rgb: Tensor) -> Tensor:
        """The four scores of (B, 3, H, W) float32 RGB in [0, 1], each on its own scale: (B, 4)."""
        return self.predict(self.extract_features(rgb))

    def extract_features(self, rgb: Tensor) -> Features:
        """(B, 3, H, W) float32 RGB in [0, 1] -> all that the four scorers read of it."""
        return Features(*describe(rgb), self.crop_network.describe(rgb))

    def predict(self, features: Features) -> Tensor:
        """The four scores (B, 4), each on its own scale."""
        scores = (
            self.support_vectors(features.statistics),
            self.pristine_distance(features.blocks),
            self.statistics_head(features.statistics),
            self.crop_network.head(features.crops)[..., 0].mean(1),
        )
        return torch.stack(scores, 1)


class SupportVectors(nn.Module):
    """Support-vector regression with a Gaussian kernel on the luminance statistics of two scales."""

    def __init__(self, count: int) -> None:
        super().__init__()
        D = len(statistics.BLOCK_FEATURES)
        self.low = nn.Buffer(torch.zeros(D))
        self.high = nn.Buffer(torch.ones(D))
        self.vectors = nn.Buffer(torch.zeros(count, D))
        self.dual = nn.Buffer(torch.zeros(count))
        self.bias = nn.Buffer(torch.zeros(()))
        self.gamma = nn.Buffer(torch.ones(()))
        columns = [statistics.FEATURES.index(name) for name in statistics.BLOCK_FEATURES]
        self.columns = nn.Buffer(torch.tensor(columns), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        # large terms of both signs cancel: in float64, on the processor, or the batch size would show in the score
        x, vectors = self.scale(features).cpu().double(), self.vectors.cpu().double()
        distance = torch.cdist(x, vectors, compute_mode="donot_use_mm_for_euclid_dist")
        kernel = torch.exp(-float(self.gamma) * distance.square())
        return (kernel @ self.dual.cpu().double() + float(self.bias)).to(features)

    def scale(self, features: Tensor) -> Tensor:
        scaled = (features[:, self.columns] - self.low) / (self.high - self.low) * 2 - 1
        return scaled.clamp(-1.5, 1.5)


class PristineDistance(nn.Module):
    """Minus the log of NIQE's distance between Gaussians: of the picture's blocks, and of those of clean photographs.

    The buffers are in units of the clean blocks' deviations; a ridge on the covariance, which the published metric does
    without, keeps small pictures with few blocks stable.
    """

    def __init__(self) -> None:
        super().__init__()
        D = len(statistics.BLOCK_FEATURES)
        self.mean = nn.Buffer(torch.zeros(D))
        self.deviation = nn.Buffer(torch.ones(D))
        self.covariance = nn.Buffer(torch.eye(D))

    def forward(self, blocks: Tensor) -> Tensor:
        # forty numbers a block: solved in float64 on the processor, for the same reason as above
        x = ((blocks - self.mean) / self.deviation).cpu().double()  # (B, N, D)
        mean = x.mean(1)
        centred = x - mean[:, None]
        covariance = centred.mT @ centred / max(x.shape[1] - 1, 1)
        both = (self.covariance.cpu().double() + covariance) / 2
        distance = (mean * torch.linalg.solve(both, mean)).sum(1)
        return (-0.5 * distance.clamp_min(1e-9).log()).to(blocks)


class StatisticsHead(nn.Module):
    """Perceptron on standardised, clipped statistics: clipped, because far from the training data it knows nothing."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        D = len(statistics.FEATURES)
        self.mean = nn.Buffer(torch.zeros(D))
        self.deviation = nn.Buffer(torch.ones(D))
        self.low = nn.Buffer(torch.full((D,), -4.0))
        self.high = nn.Buffer(torch.full((D,), 4.0))
        self.hidden = nn.Linear(D, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.score(F.gelu(self.hidden(self.standardise(features))))[:, 0]

    def standardise(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).maximum(self.low).minimum(self.high)


class CropNetwork(nn.Module):
    """Mean score of evenly spread crops at native resolution. Batch normalisation is folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList()
        self.outputs: list[int] = []
        channels = _STEM
        for kernel, stride, expansion, out, layers, used in _STAGES:
            for layer in range(layers):
                self.blocks.append(_InvertedResidual(channels, out, kernel, stride if layer == 0 else 1, expansion))
                channels = out
            if used:
                self.outputs.append(len(self.blocks) - 1)
        self.head = nn.Sequential(
            nn.LayerNorm(CROP_FEATURES), nn.Linear(CROP_FEATURES, 64), nn.GELU(), nn.Linear(64, 1)
        )

    def forward(self, rgb: Tensor) -> Tensor:
        return self.head(self.describe(rgb))[..., 0].mean(1)

    def describe(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> pooled feature maps of K crops, (B, K, 352)."""
        crops = spread_crops(rgb)  # (B, K, 3, 192, 192)
        return self.describe_crops(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])

    def score_crops(self, crops: Tensor) -> Tensor:
        """(N, 3, 192, 192) RGB in [0, 1] -> (N,)."""
        return self.head(self.describe_crops(crops))[:, 0]

    def describe_crops(self, crops: Tensor) -> Tensor:
        """(N, 3, 192, 192) RGB in [0, 1] -> (N, 352)."""
        x = self.stem(self.prepare(crops))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.outputs:
                maps.append(x)
        return self.pool(maps)

    @staticmethod
    def prepare(crops: Tensor) -> Tensor:
        """RGB in [0, 1] as the first convolution wants it."""
        return (crops * 2 - 1).contiguous(memory_format=torch.channels_last)

    def score_maps(self, maps: list[Tensor]) -> Tensor:
        """Feature maps (N, C, h, w) of the used stages, in any precision -> (N,)."""
        return self.head(self.pool(maps))[:, 0]

    @staticmethod
    def pool(maps: list[Tensor]) -> Tensor:
        """Mean and deviation of every channel: (N, 352)."""
        return torch.cat([part for x in maps for part in (x.float().mean((2, 3)), x.float().flatten(2).std(2))], 1)


class _InvertedResidual(nn.Module):
    """MobileNetV2's block, without squeeze-and-excitation and with ReLU6, as EfficientNet-Lite has it."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [_convolution(channels, wide, 1, 1)] if expansion > 1 else []
        layers += [_convolution(wide, wide, kernel, stride, groups=wide), nn.Conv2d(wide, out, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.residual else self.layers(x)


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """With TensorFlow's "same" padding for sides of even length, which a strided one adds more of below and right."""
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    convolution = nn.Conv2d(channels, out, kernel, stride, groups=groups)
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), convolution, nn.ReLU6())


def describe(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """`statistics.describe`, by tiles where a picture is so large that the maps would not fit in memory."""
    H, W = rgb.shape[-2:]
    if H * W <= WHOLE:
        return statistics.describe(rgb)
    h, w = min(H, max(TILE, WHOLE // W // 4)), min(W, max(TILE, WHOLE // H // 4))
    parts = []
    for top in _spread(H, h, 2 if h < H else 1):
        for left in _spread(W, w, 2 if w < W else 1):
            parts.append(statistics.describe(rgb[..., top : top + h, left : left + w]))
            tick(0)
    return torch.stack([part[0] for part in parts]).mean(0), torch.cat([part[1] for part in parts], 1)


def spread_crops(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, K, 3, 192, 192), K of 1 to 16 by the size of the picture: a grid from edge to edge."""
    rgb = statistics.mirror_to(rgb, CROP)
    tops, lefts = (_spread(side, CROP, min(max(round(side / CROP), 1), MOST_CROPS)) for side in rgb.shape[-2:])
    return torch.stack([rgb[..., top : top + CROP, left : left + CROP] for top in tops for left in lefts], 1)


def _spread(side: int, length: int, count: int) -> list[int]:
    """Starts of `count` windows from edge to edge; a single one stands in the middle."""
    if count == 1:
        return [(side - length) // 2]
    return [math.floor(i * (side - length) / (count - 1)) for i in range(count)]
