"""Q-ReAlign: quality and aesthetics as people rate them, by a Qwen3.5.

Published as q-future/Q-ReAlign-Mini-0.8B, -Lite-4B and -Pro-9B. Follows the words of the published command line
(github.com/Q-Future/Q-ReAlign, qalign/scorer.py, read at f5fd748): the answer begins with " The quality of the image
is", with a space before it, tokenized apart. The repository's README leaves that space out, and asks otherwise: 4 to 32
spreads of difference on made-up weights, so its numbers are not comparable with these. Pictures keep their own size,
within the limits of the checkpoint's preprocessor_config.json, as in the README and in pyiqa; the command line shrinks
the longer side to 448 first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..family import Request
from ..scorer import ScorerInfo
from .asking import Question
from .levels import LEVELS, LevelJudge, level_ids
from .opening import open_cache, open_reader
from .qwen_files import check_qwen
from .qwen_reader import QwenReader
from .readouts import TokenLogits
from .targets import chosen_target

REPOSITORY = "q-future/Q-ReAlign-Mini-0.8B"
WORDING = "cli"  # the command line's words, not the README's
QUESTIONS = {
    "quality": Question("Can you rate the quality of this picture?", " The quality of the image is"),
    "aesthetics": Question("How is the aesthetics of this image?", " The aesthetics of the image is"),
}


class QRealignScorer(LevelJudge):
    """The `Scorer` of Q-ReAlign: 0 to 1, higher is better, of quality or of aesthetics."""

    def question(self, target: str | None, prompt: str | None) -> Question:
        """The published one of the command line."""
        return QUESTIONS[target or "quality"]


def load(request: Request) -> QRealignScorer:
    """Loads Q-ReAlign from its folder or the Hub.

    Raises:
        FileNotFoundError: It is not on this machine and cannot be downloaded.
        ValueError: Another model, missing or damaged files, or an option that does not apply.
    """
    target = chosen_target("qrealign", tuple(QUESTIONS), request.target)
    reader = open_reader(
        request, "qrealign", REPOSITORY, read_qrealign, partial(check_qwen, family="qrealign", types=("qwen3_5",))
    )
    info = ScorerInfo(
        name=f"qrealign({reader.name})",
        revision=f"{reader.revision}-{WORDING}",
        low=0.0,
        high=1.0,
        trained_on="see the model's page",
        targets=tuple(QUESTIONS),
        target=target,
        description="Q-ReAlign: quality or aesthetics, by how probable Qwen3.5 finds the words excellent, good, fair, "
        "poor and bad as its answer.",
    )
    return QRealignScorer(reader, info, open_cache(request))


def read_qrealign(folder: Path, **placement: Any) -> QwenReader:
    """A reader of the levels' logits."""

    def levels(tokenizer: Any) -> TokenLogits:
        def encode(word: str) -> list[int]:
            return list(tokenizer(word, add_special_tokens=False)["input_ids"])

        return TokenLogits(level_ids([f" {word}" for word in LEVELS], encode, repr(str(folder))))

    return QwenReader.from_folder(folder, levels, **placement)
