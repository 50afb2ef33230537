"""Tokens of a picture's description: in the ViT's place where a model starts from features that know something.

A description is a row of numbers that frozen networks make of a picture at its own size (`scorers/picture_features`).
A trained linear layer makes tokens of it, as many as a grid of patches has, which the stages and experts then take.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import MaAgiqaConfig

GRID = (4, 4)
WIDTH = 16  # of a token
MOST = 4.0  # deviations: beyond what it was trained on, columns say nothing


class DescriptionTokens(nn.Module):
    """Descriptions -> tokens.

    Args:
        config: Its `description_columns` and `dropout` are used.

    Attributes:
        grid: Tokens down and across.
        width: Of a token.
    """

    grid = GRID
    width = WIDTH

    def __init__(self, config: MaAgiqaConfig) -> None:
        super().__init__()
        D = config.description_columns
        self.mean = nn.Buffer(torch.zeros(D))
        self.deviation = nn.Buffer(torch.ones(D))
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(D, GRID[0] * GRID[1] * WIDTH)

    def forward(self, descriptions: Tensor) -> Tensor:
        """(B, D) -> (B, N, width)."""
        tokens = self.project(self.dropout(self.standardise(descriptions)))
        return tokens.unflatten(1, (GRID[0] * GRID[1], WIDTH))

    def standardise(self, descriptions: Tensor) -> Tensor:
        """(B, D), each column in deviations from its mean, at most `MOST`."""
        return ((descriptions - self.mean) / self.deviation).clamp(-MOST, MOST)
