"""HPSv3: which picture of a prompt people prefer (Ma et al. 2025, arXiv 2508.03789), a Qwen2-VL-7B with a reward head.

Follows PyPI's hpsv3 1.0.0: pictures are brought to about 200704 pixels, so small ones are enlarged; the head reads the
hidden state at the token <|Reward|> and gives two numbers, of which the first is the score (the other is the package's
sigma). Trap: its model was trained with plain positions 0 .. L-1 on all axes, not with M-RoPE. What stands behind the
reward token is not computed: it cannot change what is read there.

The published file has no config and no tokenizer: those of Qwen/Qwen2-VL-7B-Instruct are taken from the same folder, or
from the Hub.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from ...semantic.cache import SemanticCache
from ...semantic.decoder import OwnDecoder
from ..family import Request
from ..scorer import ScorerInfo
from .asking import AskedModel, Question
from .hpsv3_files import REPOSITORY, LazyHpsV3, check_hpsv3, has_hpsv3, read_network
from .hpsv3_instruction import INSTRUCTION, PROMPT
from .language_judge import LanguageJudge
from .mrope import plain_positions
from .opening import open_cache, open_reader
from .prompt_limit import PromptLimit
from .qwen_prompt import resized_by_pillow
from .qwen_reader import QwenReader

PIXELS = 200704  # 256 tokens of 28 x 28
FACTOR = 28
WORDING = "1.0.0"  # the package's version


class HpsV3Scorer(LanguageJudge):
    """The `Scorer` of HPSv3: no fixed range, higher is better; only differences mean something."""

    def __init__(self, reader: AskedModel, info: ScorerInfo, cache: SemanticCache | None = None) -> None:
        super().__init__(reader, info, cache)
        self._limit = PromptLimit()

    def question(self, target: str | None, prompt: str | None) -> Question:
        """The published instruction with the prompt in it; see `PromptLimit` for very long ones."""
        return Question(INSTRUCTION.replace(PROMPT, self._limit(prompt or "", self.info.name)))

    def score_of(self, numbers: Tensor) -> float:
        """The first of (mu, sigma)."""
        return float(numbers[0])


class Reward:
    """The reward head, in float32."""

    def __call__(self, hidden: Tensor, head: nn.Module) -> Tensor:
        return head(hidden.float())


def load(request: Request) -> HpsV3Scorer:
    """Loads HPSv3 from its folder or the Hub.

    Raises:
        FileNotFoundError: It, or its base's config and tokenizer, is not on this machine and cannot be downloaded.
        ValueError: Another model, missing or damaged files, or an option that does not apply.
    """
    reader = open_reader(
        request,
        "hpsv3",
        REPOSITORY,
        read_hpsv3,
        check_hpsv3,
        is_complete=has_hpsv3,
        lazy=partial(LazyHpsV3, local_files_only=request.local_files_only),
    )
    info = ScorerInfo(
        name=f"hpsv3({reader.name})",
        revision=f"{reader.revision}-{WORDING}",
        low=-20.0,
        high=20.0,
        trained_on="HPDv3",
        needs_prompt=True,
        targets=("preference",),
        target="preference",
        description="HPSv3: which picture of a prompt people prefer, by a reward head on Qwen2-VL-7B. No fixed range.",
    )
    return HpsV3Scorer(reader, info, open_cache(request))


def read_hpsv3(
    folder: Path,
    *,
    base: Path,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    device_map: Any = None,
) -> QwenReader:
    """A reader of (mu, sigma)."""
    loaded = read_network(folder, base, device=device, dtype=dtype, quantization=quantization, device_map=device_map)
    return QwenReader(
        OwnDecoder(loaded.model, keeps_head=True, ends_only=True),
        loaded.processor,
        Reward(),
        device=loaded.device,
        dtype=dtype,
        resize=enlarged,
        position_rule=plain_positions,
        until=loaded.reward_token_id,
    )


def enlarged(image: PIL.Image.Image) -> PIL.Image.Image:
    """About 200704 pixels, whatever the picture had."""
    return resized_by_pillow(image, factor=FACTOR, least=PIXELS, most=PIXELS)
