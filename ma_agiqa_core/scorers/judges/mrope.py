"""Where the tokens of a prompt with pictures stand, for Qwen's M-RoPE (Wang et al. 2024, arXiv 2409.12191).

Text tokens count on, on all three axes alike. A picture's tokens share the time of its first one, and have their row
and column counted from there; the text after it goes on behind its longer side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Part = int | tuple[int, int]
"""So many tokens of text, or a picture of so many rows and columns of tokens."""


def positions(parts: Sequence[Part]) -> Tensor:
    """(3, L) time, row and column of every token.

    Example:
        >>> positions([2, (2, 2), 1])
        tensor([[0, 1, 2, 2, 2, 2, 4],
                [0, 1, 2, 2, 3, 3, 4],
                [0, 1, 2, 3, 2, 3, 4]])
    """
    found, place = [], 0
    for part in parts:
        if isinstance(part, tuple):
            height, width = part
            rows = torch.arange(height).repeat_interleave(width)
            columns = torch.arange(width).repeat(height)
            found.append(torch.stack([torch.zeros_like(rows), rows, columns]) + place)
            place += max(height, width)
        else:
            found.append(torch.arange(place, place + part).expand(3, -1))
            place += part
    return torch.cat(found, 1)


def plain_positions(parts: Sequence[Part]) -> Tensor:
    """(3, L) with every token, of a picture too, counted on, on all axes: what HPSv3 was trained with."""
    length = sum(part[0] * part[1] if isinstance(part, tuple) else part for part in parts)
    return torch.arange(length).expand(3, -1)
