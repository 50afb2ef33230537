"""What is read at the place where a model is about to answer: a few numbers made of its last hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Readout(Protocol):
    def __call__(self, hidden: Tensor, head: nn.Module) -> Tensor:
        """Last hidden states (N, D), after the last norm, and the LM head -> numbers (N, K) float32."""
        ...


class TokenLogits:
    """The logits of a few tokens: only these rows of the LM head are computed.

    Args:
        ids: Of the tokens.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)

    def __call__(self, hidden: Tensor, head: nn.Module) -> Tensor:
        if not (isinstance(head, nn.Linear) and type(head.weight.data) is Tensor and not head.weight.is_meta):
            return head(hidden)[:, list(self.ids)].float()  # whole: quantized, or waiting on the CPU
        rows = list(self.ids)
        logits = nn.functional.linear(hidden, head.weight[rows].to(hidden.device)).float()
        return logits if head.bias is None else logits + head.bias[rows].to(logits)


class LogProbability:
    """The logarithm of the probability of one token among the whole vocabulary.

    Args:
        token: Its id.
    """

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, hidden: Tensor, head: nn.Module) -> Tensor:
        return torch.log_softmax(head(hidden).float(), -1)[:, [self.token]]
