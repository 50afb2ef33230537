"""From patches to one score: quality of each patch, three experts, and the gate that mixes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .token_linear import TokenLinear


class PatchQuality(nn.Module):
    """A score and a weight for each patch, multiplied.

    Args:
        width: Channels of a patch.
        dropout: In training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Sequential(*_perceptron(width, dropout), nn.ReLU())
        self.weight = nn.Sequential(*_perceptron(width, dropout), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N), 0 or more."""
        return (self.score(x) * self.weight(x)).squeeze(2)


class ExpertFusion(nn.Module):
    """The experts' vectors, mixed by a gate without softmax, to a score; without semantics the visual expert alone.

    Args:
        patches: Length N of the experts' vectors.
        semantic_dim: Width of the semantic vectors; 0 for none.
        dropout: In training.
    """

    def __init__(self, patches: int, semantic_dim: int, dropout: float) -> None:
        super().__init__()
        self.visual = nn.Linear(patches, patches)
        if semantic_dim:
            self.semantic_content = _semantic_expert(semantic_dim, patches, dropout)
            self.coherence = _semantic_expert(semantic_dim, patches, dropout)
            self.gate = nn.Linear(3 * patches, 3)
        self.score = nn.Linear(patches, 1)

    def forward(self, quality: Tensor, semantic_content: Tensor | None, coherence: Tensor | None) -> Tensor:
        """Patches' quality (B, N) and semantic vectors (B, D), or None for both -> (B,), higher is better."""
        visual = self.visual(quality)
        if semantic_content is None or coherence is None:
            return self.score(visual).squeeze(1)
        experts = torch.stack([self.semantic_content(semantic_content), self.coherence(coherence), visual], 1)
        gate = self.gate(experts.flatten(1))  # (B, 3)
        mixed = (gate[:, None] @ experts).squeeze(1)  # (B, N)
        return self.score(mixed).squeeze(1)


def _perceptron(width: int, dropout: float) -> list[nn.Module]:
    return [TokenLinear(width, width), nn.ReLU(), nn.Dropout(dropout), TokenLinear(width, 1)]


def _semantic_expert(semantic_dim: int, patches: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(semantic_dim, patches), nn.ReLU(), nn.Dropout(dropout))
