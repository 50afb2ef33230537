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
        weight = getattr(head, "weight", None)
        if type(head) is not nn.Linear or type(weight.data) is not Tensor or weight.is_meta:  # waits on the CPU
            return head(hidden)[:, list(self.ids)].float()
        rows = weight[list(self.ids)].to(hidden.device)
        logits = nn.functional.linear(hidden, rows)
        return logits.float() if head.bias is None else logits.float() + head.bias[list(self.ids)].float()


class LogProbability:
    """The logarithm of the probability of one token among the whole vocabulary.

    Args:
        token: Its id.
    """

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, hidden: Tensor, head: nn.Module) -> Tensor:
        return torch.log_softmax(head(hidden).float(), -1)[:, [self.token]]
