"""The flow that the semantic branch is compared with: mPLUG-Owl2 as the published extraction uses it, written plainly.

For each question the whole model runs twice on each batch, picture included: once for logits, once more for the hidden
states, of which all are kept and the mean of the last one is the feature. Text and image tokens go to their own modules
by gathering and scattering. Attention is explicit as published, softmax in float32, or torch's fused one (`fused`),
which shows what is saved by leaving out work alone.

It reads a state dict with the published names, shares nothing with the package, and the tests hold both together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGE = -200


class PlainOwl:
    def __init__(self, config: dict[str, Any], weights: Mapping[str, Tensor], *, fused: bool = False) -> None:
        self.config, self.weights, self.fused = config, weights, fused
        self.vision_config = config["visual_config"]["visual_model"]
        self.abstractor_config = config["visual_config"]["visual_abstractor"]

    @torch.no_grad()
    def features(self, pixels: Tensor, prompts: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """(B, 3, S, S) -> (B, D) float32 for each question."""
        found = {}
        for name, ids in prompts.items():
            self.run(pixels, ids)  # for logits that nobody reads
            _, hidden_states = self.run(pixels, ids)
            found[name] = hidden_states[-1].float().mean(dim=1)
        return found

    def run(self, pixels: Tensor, ids: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, L, V) float32 and all hidden states (B, L, D), the last one after the final norm."""
        tokens = self.abstract(self.see(pixels))
        image = list(ids).index(IMAGE)
        x = torch.cat([self.embed(ids[:image], tokens), tokens, self.embed(ids[image + 1 :], tokens)], dim=1)
        L, M = x.shape[1], tokens.shape[1]
        places = torch.arange(L, device=x.device)
        ways = torch.cat([places[:image], places[image + M :]]), places[image : image + M]
        hidden_states = [x]
        for layer in range(self.config["num_hidden_layers"]):
            x = self.language_layer(x, f"model.layers.{layer}.", ways)
            hidden_states.append(x)
        hidden_states[-1] = self.rms_norm(x, "model.norm")
        return self.linear(hidden_states[-1], "lm_head").float(), hidden_states

    # ---------------------------------------------------------------------------------------------------- the picture
    def see(self, pixels: Tensor) -> Tensor:
        name, settings = "model.vision_model.", self.vision_config
        eps, heads = settings["layer_norm_eps"], settings["num_attention_heads"]
        filters = self.weights[name + "embeddings.patch_embed.weight"]
        x = F.conv2d(pixels.to(filters.dtype), filters, stride=settings["patch_size"]).flatten(2).transpose(1, 2)
        x = torch.cat([self.weights[name + "embeddings.cls_token"].expand(len(x), -1, -1), x], dim=1)
        x = self.layer_norm(
            x + self.weights[name + "embeddings.position_embedding"], name + "embeddings.pre_layernorm", eps
        )
        for i in range(settings["num_hidden_layers"]):
            layer = f"{name}encoder.layers.{i}."
            B, N, W = x.shape
            mixed = self.linear(self.layer_norm(x, layer + "input_layernorm", eps), layer + "self_attn.query_key_value")
            query, key, value = mixed.reshape(B, N, heads, 3, W // heads).permute(3, 0, 2, 1, 4)
            x = x + self.linear(_merge(self.attend(query, key, value)), layer + "self_attn.dense")
            hidden = self.linear(self.layer_norm(x, layer + "post_attention_layernorm", eps), layer + "mlp.fc1")
            x = x + self.linear(hidden * torch.sigmoid(1.702 * hidden), layer + "mlp.fc2")
        return self.layer_norm(x, name + "post_layernorm", eps)

    def abstract(self, patches: Tensor) -> Tensor:
        name, settings = "model.visual_abstractor.", self.abstractor_config
        heads, W = settings["num_attention_heads"], settings["hidden_size"]
        x = self.weights[name + "query_embeds"].expand(len(patches), -1, -1)
        query_places = _sincos(range(settings["num_learnable_queries"]), W).to(x)
        grid = [(row, column) for row in range(settings["grid_size"]) for column in range(settings["grid_size"])]
        key_grid = torch.cat(
            [_sincos([column for _, column in grid], W // 2), _sincos([row for row, _ in grid], W // 2)], 1
        )
        key_places = torch.cat([query_places, torch.zeros(1, W).to(x), key_grid.to(x)])
        for i in range(settings["num_hidden_layers"]):
            layer = f"{name}encoder.layers.{i}.crossattention."
            x = self.layer_norm(x, layer + "norm1", 1e-5)
            read = torch.cat([x, self.layer_norm(patches, layer + "normk", 1e-5)], dim=1)
            query = _split(self.linear(x + query_places, layer + "attention.query"), heads)
            key = _split(self.linear(read + key_places, layer + "attention.key"), heads)
            value = _split(self.linear(read, layer + "attention.value"), heads)
            x = x + self.linear(_merge(self.attend(query, key, value)), layer + "output.out_proj")
            normed = self.layer_norm(x, layer + "output.norm2", 1e-5)
            gated = F.silu(self.linear(normed, layer + "output.mlp.w1")) * self.linear(normed, layer + "output.mlp.w3")
            gated = self.layer_norm(gated, layer + "output.mlp.ffn_ln", settings["layer_norm_eps"])
            x = x + self.linear(gated, layer + "output.mlp.w2")
        end = self.weights[name + "vit_eos"].expand(len(x), -1, -1)
        return torch.cat([self.linear(x, name + "visual_fc"), end], dim=1)

    # --------------------------------------------------------------------------------------------------- the language
    def language_layer(self, x: Tensor, name: str, ways: Sequence[Tensor]) -> Tensor:
        heads = self.config["num_attention_heads"]
        kept = self.config.get("num_key_value_heads") or heads
        normed = self.two_way(self.rms_norm, x, name + "input_layernorm", ways)
        query = _rotate(_split(self.linear(normed, name + "self_attn.q_proj"), heads))
        key = _rotate(_split(self.two_way(self.linear, normed, name + "self_attn.k_proj", ways), kept))
        value = _split(self.two_way(self.linear, normed, name + "self_attn.v_proj", ways), kept)
        key, value = (states.repeat_interleave(heads // kept, dim=1) for states in (key, value))
        x = x + self.linear(_merge(self.attend(query, key, value, is_causal=True)), name + "self_attn.o_proj")
        normed = self.two_way(self.rms_norm, x, name + "post_attention_layernorm", ways)
        gated = F.silu(self.linear(normed, name + "mlp.gate_proj")) * self.linear(normed, name + "mlp.up_proj")
        return x + self.linear(gated, name + "mlp.down_proj")

    def two_way(self, module: Any, x: Tensor, name: str, ways: Sequence[Tensor]) -> Tensor:
        parts = [module(x[:, places], f"{name}.multiway.{way}") for way, places in enumerate(ways)]
        found = x.new_empty(*x.shape[:2], parts[0].shape[2])
        for part, places in zip(parts, ways, strict=True):
            found[:, places] = part
        return found

    def embed(self, ids: Sequence[int], like: Tensor) -> Tensor:
        weight = self.weights["model.embed_tokens.weight"]
        found = F.embedding(torch.tensor(list(ids), dtype=torch.long, device=weight.device), weight)
        return found.to(like.dtype).expand(len(like), -1, -1)

    # ----------------------------------------------------------------------------------------------------- the pieces
    def attend(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def layer_norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[name + ".weight"], self.weights[name + ".bias"], eps)

    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return self.weights[name + ".weight"] * wide.to(x.dtype)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(len(x), x.shape[2], -1)


def _rotate(x: Tensor) -> Tensor:
    """Rotary positions 0, 1, … of (B, heads, L, width) states."""
    L, width = x.shape[-2:]
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device=x.device).float() / width)
    angles = torch.outer(torch.arange(L, device=x.device).float(), frequencies).repeat(1, 2)
    turned = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], dim=-1)
    return x * angles.cos().to(x.dtype) + turned * angles.sin().to(x.dtype)


def _sincos(places: Sequence[int], width: int) -> Tensor:
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float32, device="cpu") / (width // 2))
    angles = torch.outer(torch.tensor(list(places), dtype=torch.float32), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
