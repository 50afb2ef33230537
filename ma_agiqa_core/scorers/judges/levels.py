"""The five levels that Q-Align taught vision-language models to answer with (Wu et al. 2023, arXiv 2312.17090)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import MaAgiqaError
from .language_judge import LanguageJudge

LEVELS = ("excellent", "good", "fair", "poor", "bad")


class LevelJudge(LanguageJudge):
    """Scores by how probable each level is as the answer, among the five: softmax of their logits, times weights.

    Attributes:
        weights: What each level is worth, the best first.
    """

    weights: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)

    def score_of(self, numbers: Tensor) -> float:
        """From the logits (5,) of the levels, in the order of `LEVELS`."""
        shares = torch.softmax(numbers.double(), 0)
        return float(shares @ torch.tensor(self.weights, dtype=torch.float64))


def level_ids(words: Sequence[str], encode: Callable[[str], list[int]], where: str) -> tuple[int, ...]:
    """The first token of each word.

    Args:
        words: As the model was taught to answer.
        encode: Text to token ids, without special tokens.
        where: The model, for messages.

    Raises:
        ValueError: Two words begin with the same token, so that their probabilities cannot be told apart.
    """
    ids = tuple(encode(word)[0] for word in words)
    if len(set(ids)) < len(ids):
        raise MaAgiqaError(
            f"Expected {len(ids)} different tokens for {', '.join(map(repr, words))} from the tokenizer in {where}, "
            f"got {', '.join(map(str, ids))}. Use the tokenizer that came with the model."
        )
    return ids
