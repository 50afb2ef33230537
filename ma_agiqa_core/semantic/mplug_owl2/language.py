"""The language layers of mPLUG-Owl2: LLaMA-2's, in which some parts exist twice, for text and for image tokens.

All tokens of a batch lie in one packed tensor (tokens, D): first the image tokens of every sequence, then the text of
every sequence. So what differs between the two kinds is a slice, never a gather, and what is shared is one product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import OwlConfig

KeysValues = tuple[Tensor, Tensor]
"""Rotated keys, and values: (Q, 1, P, heads, head width) each, of what stands before a batch's tokens."""


class Packing(NamedTuple):
    """How Q B sequences, Q questions about B pictures, lie in a packed tensor: image (Q, B, M), then text (Q, B, T)."""

    questions: int
    pictures: int
    image_tokens: int
    text_tokens: int

    @property
    def image_rows(self) -> int:
        """How many tokens of the packed tensor, from its start, are image tokens."""
        return self.questions * self.pictures * self.image_tokens

    def positions(self, starts: Tensor) -> Tensor:
        """(tokens,) places in their sequences, of which those of question q start at `starts[q]`."""
        _, B, M, T = self
        places = starts[:, None] + torch.arange(M + T, device=starts.device)
        return self.pack(places[:, None].expand(-1, B, -1).flatten(0, 1))

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """(tokens, ...) -> image (Q, B, M, ...) and text (Q, B, T, ...), as views."""
        Q, B, M, T = self
        image, text = packed[: self.image_rows], packed[self.image_rows :]
        return image.reshape(Q, B, M, *packed.shape[1:]), text.reshape(Q, B, T, *packed.shape[1:])

    def pack(self, sequences: Tensor) -> Tensor:
        """(Q B, M + T, ...) -> (tokens, ...)."""
        return torch.cat(
            [sequences[:, : self.image_tokens].flatten(0, 1), sequences[:, self.image_tokens :].flatten(0, 1)]
        )


class LanguageLayer(nn.Module):
    """One layer, and the keys and values it computed, to continue after these tokens."""

    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        norm = partial(nn.RMSNorm, config.hidden_size, eps=config.rms_norm_eps)  # computes in float32 inside
        self.input_layernorm = TwoWay(norm)
        self.self_attn = LanguageAttention(config)
        self.post_attention_layernorm = TwoWay(norm)
        self.mlp = LanguageMlp(config)

    def forward(
        self,
        x: Tensor,  # (tokens, D)
        packing: Packing,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        before: KeysValues | None,
        ends: Tensor | None = None,  # (Q B,) the one text token of each sequence whose output is wanted; None is all
    ) -> tuple[Tensor, KeysValues]:
        normed = self.input_layernorm(x, packing.image_rows)
        attended, keys_values = self.self_attn(normed, packing, rotation, mask, before, ends)
        x, image_rows = (x, packing.image_rows) if ends is None else (x[ends], 0)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x, image_rows)), keys_values


class TwoWay(nn.Module):
    """One module for text and another for image tokens, `multiway` 0 and 1 in the published names."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.multiway = nn.ModuleList(make() for _ in range(2))

    def forward(self, x: Tensor, image_rows: int) -> Tensor:
        text, image = self.multiway
        if image_rows == 0:
            return text(x)
        if image_rows == len(x):
            return image(x)
        return torch.cat([image(x[:image_rows]), text(x[image_rows:])])


class LanguageAttention(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        D, kept = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.head_dim = config.head_dim
        self.shared_by = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = TwoWay(lambda: nn.Linear(D, kept, bias=False))
        self.v_proj = TwoWay(lambda: nn.Linear(D, kept, bias=False))
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        before: KeysValues | None,
        ends: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        asking = x if ends is None else x[ends]
        projected = self.q_proj(asking), self.k_proj(x, packing.image_rows), self.v_proj(x, packing.image_rows)
        query, key, value = (states.unflatten(-1, (-1, self.head_dim)) for states in projected)
        turn = rotation if ends is None else (rotation[0][ends], rotation[1][ends])
        query, key = rotate(query, turn), rotate(key, rotation)
        keys, values = (None, None) if before is None else before
        attended = F.scaled_dot_product_attention(  # (Q B, heads, M + T, head width)
            _sequences(packing, query) if ends is None else query[:, :, None],
            _for_each_head(_sequences(packing, key, keys), self.shared_by),
            _for_each_head(_sequences(packing, value, values), self.shared_by),
            attn_mask=mask,
            is_causal=mask is None,
        ).transpose(1, 2)
        read = packing.pack(attended) if ends is None else attended[:, 0]
        return self.o_proj(read.flatten(1)), (key, value)


class LanguageMlp(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))


def rotation_at(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles at (tokens,) positions: (tokens, 1, head_dim / 2) each.

    Computed in float32 and then rounded, as published: bfloat16 holds no position above 256 exactly.
    """
    half = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, None] * theta ** -(half / head_dim)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (i, i + half) of (tokens, heads, head width) by the angles of `rotation_at`."""
    cosine, sine = rotation
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _sequences(packing: Packing, packed: Tensor, before: Tensor | None = None) -> Tensor:
    """(tokens, heads, head width) -> (Q B, heads, tokens of a sequence, head width), after what stands before it."""
    parts = list(packing.unpack(packed))
    if before is not None:
        parts.insert(0, before.expand(-1, packing.pictures, -1, -1, -1))
    return torch.cat(parts, dim=2).flatten(0, 1).transpose(1, 2)


def _for_each_head(states: Tensor, shared_by: int) -> Tensor:
    return states if shared_by == 1 else states.repeat_interleave(shared_by, dim=1)
