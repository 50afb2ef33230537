"""Attention between channels (MANIQA's transposed attention block): each channel is a token, its map the vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .token_linear import TokenLinear


class ChannelAttention(nn.Module):
    """Residual single-head attention over channels.

    What is attended is transposed to (B, N, C) and then READ as (B, C, N), not permuted back: so the published
    code does it and so its weights were trained.

    Args:
        patches: Length N of a channel's map.
        dropout: In training, of what is added.
    """

    def __init__(self, patches: int, dropout: float) -> None:
        super().__init__()
        self.query = TokenLinear(patches, patches)
        self.key = TokenLinear(patches, patches)
        self.value = TokenLinear(patches, patches)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        q, k, v = (part(x)[:, None] for part in (self.query, self.key, self.value))  # (B, 1, C, N): one head
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.dropout(attended.mT.reshape(x.shape))
