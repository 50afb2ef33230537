"""The vision encoder of mPLUG-Owl2: a CLIP ViT with a fused query-key-value projection."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VisionConfig


class VisionModel(nn.Module):
    """Normalised pixels (B, 3, S, S) -> patches (B, 1 + N, W), the class token first, row by row."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = LayerStack(VisionLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))


class LayerStack(nn.Module):
    """Layers one after the other; what else a layer takes, every layer gets."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *others)
        return x


class VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        W, P = config.hidden_size, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, W))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + config.grid_size**2, W))
        self.patch_embed = nn.Conv2d(3, W, kernel_size=P, stride=P, bias=False)
        self.pre_layernorm = nn.LayerNorm(W, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixels = pixel_values.to(self.position_embedding.dtype)
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)  # (B, N, W)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.pre_layernorm(x + self.position_embedding)


class VisionLayer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        W, eps = config.hidden_size, config.layer_norm_eps
        self.input_layernorm = nn.LayerNorm(W, eps=eps)
        self.self_attn = VisionAttention(W, config.num_attention_heads)
        self.post_attention_layernorm = nn.LayerNorm(W, eps=eps)
        self.mlp = VisionMlp(W, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1))  # published weights: heads before q, k, v
        query, key, value = mixed.transpose(1, 2).unbind(3)  # (B, heads, N, head width) each
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.dense(attended.transpose(1, 2).flatten(2))


class VisionMlp(nn.Module):
    """The quick GELU of CLIP, x sigmoid(1.702 x), between two linear layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        scaled = self.fc1(x).mul_(1.702)  # in place: these are the largest tensors of the encoder
        return self.fc2(F.silu(scaled, inplace=True).mul_(1 / 1.702))
