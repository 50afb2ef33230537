"""Judges of the scenes' pictures: of quality, of what was asked for, of detail and of composition.

lite         this package's own scorer
wanted       log-probability of the prompt's three words, by a small network taught the drawings
detail       contrast of neighbouring pixels
composition  a taste: large and colourful in the middle, calm at the rim

`watcher()` is a second network like that of `wanted`, taught other drawings from another start: it measures the
generator, and no picture is chosen by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ma_agiqa_core import CallableScorer, Scorer, load_scorer
from ma_agiqa_core.atomic_write import atomic_write

from .scenes import COLOURS, KINDS, SIDE, SURFACES, scenes
from .small_generator import DEFAULT_CACHE, as_tensors

WORDS: tuple[tuple[str, ...], ...] = (tuple(COLOURS), SURFACES, KINDS)
TAUGHT_EACH, STEPS, BATCH = 150, 1500, 64
CHOOSER, WATCHER = 100, 101  # seeds, of their drawings too; the generator's are 0 and 1


NAMES = ("lite", "wanted", "detail", "composition")


def judges(cache: Path = DEFAULT_CACHE) -> dict[str, Scorer]:
    return {
        "lite": load_scorer("lite", device="cpu"),
        "wanted": _wanted(load_or_teach(CHOOSER, cache)),
        "detail": CallableScorer(_detail, name="detail", low=-10.0, high=0.0),
        "composition": CallableScorer(_composition, name="composition", low=-1.0, high=2.0),
    }


class Probe(nn.Module):
    """Pictures (B, 3, 32, 32) in [0, 1] -> log-probabilities of colours (B, 4), surfaces (B, 3), kinds (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU()]
        self.trunk = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(64 * (SIDE // 8) ** 2, 64), nn.SiLU()
        )
        self.heads = nn.ModuleList(nn.Linear(64, len(words)) for words in WORDS)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        shown = self.trunk(pictures * 2 - 1)
        return [head(shown).log_softmax(1) for head in self.heads]


def load_or_teach(seed: int, cache: Path = DEFAULT_CACHE) -> Probe:
    """The probe of this seed from `cache`, taught and put there where it is not."""
    file = cache / f"scenes-probe-{STEPS}-{seed}.safetensors"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as unfinished:
            save_file(_taught(seed).state_dict(), unfinished)
    probe = Probe()
    probe.load_state_dict(load_file(file))
    return probe.eval()


def _taught(seed: int) -> Probe:
    torch.manual_seed(seed)
    probe = Probe()
    pictures, prompts = scenes(TAUGHT_EACH, seed)
    labels = labels_of(prompts)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(pictures), (BATCH,))
        losses = [
            F.nll_loss(said, right) for said, right in zip(probe(pictures[chosen]), labels[chosen].T, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        rate.step()
    return probe


def labels_of(prompts: Tensor) -> Tensor:
    """(N, 3) numbers of colour, surface and kind, of numbers of prompts (N,)."""
    of_surface = prompts // len(KINDS)
    return torch.stack([of_surface // len(SURFACES), of_surface % len(SURFACES), prompts % len(KINDS)], 1)


@torch.no_grad()
def accuracies(probe: Probe, pictures: Tensor, prompts: Tensor) -> list[float]:
    """Shares of pictures whose likeliest colour, surface and kind are the prompt's."""
    said = torch.stack([one.argmax(1) for one in probe(pictures)], 1)
    return (said == labels_of(prompts)).float().mean(0).tolist()


def _wanted(probe: Probe) -> CallableScorer:
    @torch.no_grad()
    def score(images: Any, prompts: Sequence[str] | None) -> np.ndarray:
        said = probe(_small(images))
        asked = [prompt.split() for prompt in prompts or ()]
        rows = torch.arange(len(asked))
        numbers = [[words.index(one[at]) for one in asked] for at, words in enumerate(WORDS)]
        return torch.stack([row[rows, number] for row, number in zip(said, numbers, strict=True)]).sum(0).numpy()

    return CallableScorer(score, name="wanted", low=-100.0, high=0.0, needs_prompt=True)


def _detail(images: Any, prompts: Any) -> np.ndarray:
    """Natural logarithm of the mean absolute difference of neighbouring pixels, of grey in [0, 1]."""
    grey = _small(images).mean(1)
    across, down = (grey.diff(dim=axis).abs().flatten(1).mean(1) for axis in (1, 2))
    return (across + down).clamp(min=1e-4).log().numpy()


def _composition(images: Any, prompts: Any) -> np.ndarray:
    """Mean saturation in the middle, less the contrast of the rim, 4 px wide."""
    rgb = _small(images)
    rim = torch.ones(SIDE, SIDE, dtype=torch.bool)
    rim[4:-4, 4:-4] = False
    saturation = rgb.amax(1) - rgb.amin(1)
    return (saturation[:, 8:-8, 8:-8].mean((1, 2)) - 2 * rgb.mean(1)[:, rim].std(1)).numpy()


def _small(images: Any) -> Tensor:
    """(B, 3, 32, 32) in [0, 1]."""
    return F.adaptive_avg_pool2d(as_tensors(images), SIDE)
