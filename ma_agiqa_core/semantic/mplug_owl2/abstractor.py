"""The visual abstractor of mPLUG-Owl2: learned queries read the patches, and speak to the language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AbstractorConfig
from .vision import LayerStack


class VisualAbstractor(nn.Module):
    """Patches (B, 1 + N, W) -> image tokens (B, M, D): one for each query, and a learned end token."""

    def __init__(self, config: AbstractorConfig, language_width: int) -> None:
        super().__init__()
        W = config.hidden_size
        self.grid_size = config.grid_size
        self.query_embeds = nn.Parameter(torch.zeros(1, config.num_learnable_queries, W))
        self.encoder = LayerStack(AbstractorLayer(config) for _ in range(config.num_hidden_layers))
        self.visual_fc = nn.Linear(W, language_width)
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, language_width))

    def forward(self, patches: Tensor) -> Tensor:
        B, queries = len(patches), self.query_embeds
        query_places = line_table(queries.shape[1], queries.shape[2], queries.device)
        key_places = torch.cat([query_places, grid_table(self.grid_size, queries.shape[2], queries.device)])
        read = self.encoder(
            queries.expand(B, -1, -1), patches, query_places.to(queries.dtype), key_places.to(queries.dtype)
        )
        tokens = self.visual_fc(read)
        return torch.cat([tokens, self.vit_eos.to(tokens).expand(B, -1, -1)], dim=1)


def line_table(positions: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of 0 .. positions - 1: (positions, width) float32."""
    return _sines_and_cosines(torch.arange(positions, device=device), width)


def grid_table(side: int, width: int, device: torch.device) -> Tensor:
    """A row of zeros for the class token, then the grid row by row, column before row: (1 + side², width) float32."""
    places = torch.arange(side, device=device)
    columns = _sines_and_cosines(places.repeat(side), width // 2)
    rows = _sines_and_cosines(places.repeat_interleave(side), width // 2)
    return F.pad(torch.cat([columns, rows], dim=1), (0, 0, 1, 0))


def _sines_and_cosines(positions: Tensor, width: int) -> Tensor:
    half = width // 2
    frequencies = 10000.0 ** -(torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class AbstractorLayer(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.crossattention = CrossAttention(config)

    def forward(self, queries: Tensor, patches: Tensor, query_places: Tensor, key_places: Tensor) -> Tensor:
        return self.crossattention(queries, patches, query_places, key_places)


class CrossAttention(nn.Module):
    """Queries attend to themselves and the patches. The residual starts from the normed queries, as published."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.normk = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.output = AttentionOutput(config)

    def forward(self, queries: Tensor, patches: Tensor, query_places: Tensor, key_places: Tensor) -> Tensor:
        queries = self.norm1(queries)
        read = torch.cat([queries, self.normk(patches)], dim=1)  # (B, queries + 1 + N, W)
        return self.output(self.attention(queries, read, query_places, key_places), queries)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, queries: Tensor, read: Tensor, query_places: Tensor, key_places: Tensor) -> Tensor:
        projected = self.query(queries + query_places), self.key(read + key_places), self.value(read)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class AttentionOutput(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = AbstractorMlp(config)

    def forward(self, attended: Tensor, queries: Tensor) -> Tensor:
        x = queries + self.out_proj(attended)
        return x + self.mlp(self.norm2(x))


class AbstractorMlp(nn.Module):
    """SwiGLU with a LayerNorm inside."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_ln = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.ffn_ln(F.silu(self.w1(x)) * self.w3(x)))
