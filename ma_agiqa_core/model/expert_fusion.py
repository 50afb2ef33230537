"""From patches to one score: quality of each patch, three experts, and the gate that mixes them.

The head of alignment has a fourth expert, which is not in the paper: it reads what the language model makes of the
picture together with the prompt that it was generated from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .config import vectors_of
from .token_linear import TokenLinear

VISUAL = "visual"


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
        vectors: Names of the semantic vectors that an expert reads, each one of its own.
    """

    def __init__(
        self, patches: int, semantic_dim: int, dropout: float, vectors: Sequence[str] = vectors_of(())
    ) -> None:
        super().__init__()
        self.vectors = tuple(vectors) if semantic_dim else ()
        self.switched_off: frozenset[str] = frozenset()  # experts that say nothing, to measure what each is for
        self.visual = nn.Linear(patches, patches)
        for name in self.vectors:
            self.add_module(name, _semantic_expert(semantic_dim, patches, dropout))
        if self.vectors:
            experts = len(self.vectors) + 1
            self.gate = nn.Linear(experts * patches, experts)
        self.score = nn.Linear(patches, 1)

    @property
    def reads(self) -> tuple[str, ...]:
        """The semantic vectors that it needs."""
        return tuple(name for name in self.vectors if name not in self.switched_off)

    def forward(self, quality: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        """Patches' quality (B, N) and semantic vectors (B, D) by name, others left aside -> (B,), higher is better."""
        visual = self.visual(quality)
        if not self.vectors:
            return self.score(visual).squeeze(1)
        silent = torch.zeros_like(visual)
        semantic = [self.get_submodule(n)(vectors[n]) if n in self.reads else silent for n in self.vectors]
        visual = silent if VISUAL in self.switched_off else visual
        experts = torch.stack([*semantic, visual], 1)  # (B, E, N)
        gate = self.gate(experts.flatten(1))  # (B, E)
        mixed = (gate[:, None] @ experts).squeeze(1)  # (B, N)
        return self.score(mixed).squeeze(1)


def _perceptron(width: int, dropout: float) -> list[nn.Module]:
    return [TokenLinear(width, width), nn.ReLU(), nn.Dropout(dropout), TokenLinear(width, 1)]


def _semantic_expert(semantic_dim: int, patches: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(semantic_dim, patches), nn.ReLU(), nn.Dropout(dropout))
