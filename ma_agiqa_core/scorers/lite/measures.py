"""The measures that `LiteNetwork` puts together, all but the crop network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import statistics

FAR = 8.0  # deviations; beyond them a single column would decide
_FAINT = 0.3  # levels of 255: below it there is hardly a colour whose statistics could tell anything


class SupportVectors(nn.Module):
    """BRISQUE's idea: support-vector regression with a Gaussian kernel on the luminance statistics of two scales."""

    def __init__(self, count: int) -> None:
        super().__init__()
        D = len(statistics.LUMA_FEATURES)
        self.low = nn.Buffer(torch.zeros(D))
        self.high = nn.Buffer(torch.ones(D))
        self.vectors = nn.Buffer(torch.zeros(count, D))
        self.dual = nn.Buffer(torch.zeros(count))
        self.bias = nn.Buffer(torch.zeros(()))
        self.gamma = nn.Buffer(torch.ones(()))
        columns = [statistics.FEATURES.index(name) for name in statistics.LUMA_FEATURES]
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
    """Minus the log of NIQE's distance between Gaussians: of the picture's blocks, and of those of clean pictures.

    The buffers are in units of the clean blocks' deviations; a ridge on the covariance, which the published metric does
    without, keeps small pictures with few blocks stable. Columns of chroma count as much as there is colour: a picture
    in black and white is like any other.
    """

    def __init__(self) -> None:
        super().__init__()
        D = len(statistics.BLOCK_FEATURES)
        self.mean = nn.Buffer(torch.zeros(D))
        self.deviation = nn.Buffer(torch.ones(D))
        self.covariance = nn.Buffer(torch.eye(D))
        # for each column the one that tells how much colour there is; luminance has none
        contrast = [_contrast_column(name) for name in statistics.BLOCK_FEATURES]
        self.contrast = nn.Buffer(torch.tensor([max(place, 0) for place in contrast]), persistent=False)
        self.is_chroma = nn.Buffer(torch.tensor([place >= 0 for place in contrast]), persistent=False)

    def standardise(self, blocks: Tensor) -> Tensor:
        """Blocks (..., D) in deviations of the clean ones, the same shape."""
        x = ((blocks - self.mean) / self.deviation).clamp(-FAR, FAR)
        colour = (blocks[..., self.contrast].exp() - 0.1).clamp_min(0).square()
        return torch.where(self.is_chroma, x * (colour / (colour + _FAINT**2)), x)

    def forward(self, blocks: Tensor) -> Tensor:
        # few numbers a block: solved in float64 on the processor, for the same reason as above
        x = self.standardise(blocks).cpu().double()  # (B, N, D)
        mean = x.mean(1)
        centred = x - mean[:, None]
        covariance = centred.mT @ centred / max(x.shape[1] - 1, 1)
        both = (self.covariance.cpu().double() + covariance) / 2
        distance = (mean * torch.linalg.solve(both, mean)).sum(1)
        return (-0.5 * distance.clamp_min(1e-9).log()).to(blocks)


def _contrast_column(name: str) -> int:
    if not name.startswith("chroma"):
        return -1
    return statistics.BLOCK_FEATURES.index(".".join([*name.split(".")[:2], "contrast"]))
