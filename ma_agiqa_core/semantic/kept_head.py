"""Stands where a model of transformers has its LM head, and keeps what that would have been given."""

from __future__ import annotations

from torch import Tensor, nn


class KeptHead(nn.Module):
    """Gives back what it was given, so that a model computes no logits.

    Args:
        inner: The LM head, which then moves with the model; None drops it.
    """

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self._hidden: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        self._hidden = hidden
        return hidden

    def take(self) -> Tensor:
        """The last hidden states, after the last norm, of the latest call; once."""
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        return hidden
