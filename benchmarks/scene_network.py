"""The scene generator's two parts that are not diffusers' own: a linear autoencoder, and the network that denoises.

Pictures are their first 192 principal components, and the network is a perceptron with residual blocks: on one core it
is taught with many more pictures a minute than a convolutional one would be.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn

from .scenes import SIDE

CHANNELS, PLACES = 12, 4  # latents (B, 12, 4, 4)
COMPONENTS = CHANNELS * PLACES**2
FLATTENED = 0.4  # power of the components' spreads by which they are divided: late ones are nearer to the noise
LARGEST = 2.5  # spread of the first component in latents


class PrincipalComponents(ModelMixin, ConfigMixin):
    """A linear autoencoder: latents (B, 12, 4, 4) are components of pictures (B, 3, 32, 32) in [-1, 1]."""

    @register_to_config
    def __init__(self, latent_channels: int = CHANNELS, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.register_to_config(block_out_channels=[0] * 4)  # by its length the pipeline knows the scale, 8
        self.mean = nn.Parameter(torch.zeros(3 * SIDE**2), requires_grad=False)
        self.basis = nn.Parameter(torch.zeros(COMPONENTS, 3 * SIDE**2), requires_grad=False)  # rows of length 1
        self.scale = nn.Parameter(torch.ones(COMPONENTS), requires_grad=False)

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> Tensor:
        """Finds the components of pictures (N, 3, 32, 32) in [-1, 1]; returns their spreads in latents (192,)."""
        rows = pictures.flatten(1)
        self.mean.copy_(rows.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        spreads = values[-COMPONENTS:].flip(0).clamp(min=1e-12).sqrt()
        self.basis.copy_(vectors[:, -COMPONENTS:].flip(1).T)
        self.scale.copy_(LARGEST * spreads**-FLATTENED / spreads[0] ** (1 - FLATTENED))
        return spreads * self.scale

    @torch.no_grad()
    def components(self, pictures: Tensor) -> Tensor:
        """Latents (B, 12, 4, 4) of pictures (B, 3, 32, 32) in [-1, 1]."""
        return ((pictures.flatten(1) - self.mean) @ self.basis.T * self.scale).view(-1, CHANNELS, PLACES, PLACES)

    def decode(self, latents: Tensor, return_dict: bool = True, **_: Any) -> Any:
        pictures = ((latents.flatten(1) / self.scale) @ self.basis + self.mean).view(-1, 3, SIDE, SIDE)
        return DecoderOutput(pictures) if return_dict else (pictures,)


class Denoiser(ModelMixin, ConfigMixin):
    """Noisy latents, moment and words -> the latents without noise.

    What a linear filter says is added to what the perceptron says, each component scaled by how unsure the filter is:
    the preconditioning of Karras and others (arXiv 2206.00364, table 1), with a spread for each component.

    Args:
        in_channels, sample_size, time_cond_proj_dim: What the pipeline asks a network for.
        words: Numbers in the text encoder's output for one prompt.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = CHANNELS,
        sample_size: int = PLACES,
        time_cond_proj_dim: int | None = None,
        words: int = 160,
        width: int = 512,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.ones(COMPONENTS), requires_grad=False)
        self.alphas = nn.Parameter(torch.ones(1000), requires_grad=False)  # of the scheduler, cumulative
        self.known = nn.Sequential(nn.Linear(words + 32, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU())
        self.start = nn.Linear(COMPONENTS, width)
        self.blocks = nn.ModuleList(_Block(width, 256) for _ in range(depth))
        self.end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, COMPONENTS))
        nn.init.zeros_(self.end[1].weight)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool = True, **_: Any
    ) -> Any:
        kept, spread, noise = self.preconditioning(timestep.expand(len(sample)))
        rows = sample.flatten(1)
        said = self.perceptron(rows / spread, timestep.expand(len(sample)), encoder_hidden_states)
        return ((kept * rows + noise.sqrt() * self.spread / spread * said).view_as(sample),)

    def preconditioning(self, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The linear filter (B, D), the spread of noisy latents (B, D), and the share of noise (B, 1)."""
        alpha = self.alphas[timestep.long()][:, None]
        spread = (alpha * self.spread**2 + 1 - alpha).sqrt()
        return alpha.sqrt() * self.spread**2 / spread**2, spread, 1 - alpha

    def perceptron(self, rows: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        """(B, D) of noisy components with spread 1 (B, D)."""
        angles = timestep[:, None].float() / 1000 * torch.exp(torch.linspace(0, math.log(50.0), 16)) * math.pi
        known = self.known(torch.cat([words.flatten(1), angles.sin(), angles.cos()], 1))
        hidden = self.start(rows)
        for block in self.blocks:
            hidden = hidden + block(hidden, known)
        return self.end(hidden)


class _Block(nn.Module):
    def __init__(self, width: int, known: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.modulation = nn.Linear(known, 2 * width)

    def forward(self, hidden: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.modulation(known).chunk(2, 1)
        return self.second(F.silu(self.first(self.norm(hidden) * (1 + scale) + shift)))
