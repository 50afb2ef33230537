"""Scores of the pictures of a node: those that are connected, or those of the connected scorer."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...ma_agiqa_core.comfyui.selection import one_score_each
from ..scorers.managed_scorer import one_scorer, scores_of
from .images import one, prompts_for


def scores_for(
    pictures: Sequence[Tensor], scores: Any = None, scorer: Any = None, prompt: Any = None, node_id: str | None = None
) -> list[float]:
    """A score for every picture.

    Args:
        pictures: [H, W, C] as `flattened` gives them.
        scores: The input 'scores'; None asks the scorer.
        scorer: The input 'scorer'.
        prompt: The input 'prompt'.
        node_id: Of the node that shows the progress.

    Raises:
        ValueError: Neither scores nor a scorer, another number of scores than pictures, or pictures that the scorer
            cannot score.
    """
    if scores is not None:
        return one_score_each(scores, len(pictures))
    if (scorer := one_scorer(scorer)) is None:
        raise ValueError("Expected scores or a scorer, got neither. Connect the scores of Score Images, or a scorer.")
    return scores_of(scorer, pictures, prompts_for(prompt, len(pictures)), node_id)


def limit_for(min_score: Any, scorer: Any) -> float:
    """The input 'min_score', which means nothing to a scorer without a scale of its own.

    Raises:
        ValueError: The scorer is relative.
    """
    limit = one(min_score, "min score")
    if (scorer := one_scorer(scorer)) is not None and scorer.info.relative:
        raise ValueError(
            f"Expected no min score with {scorer.info.name}, got {limit:g}: its scores only compare the pictures of "
            "one run with each other. Use Select Best Images with 'top k' alone, or combine scorers as 'calibrated'."
        )
    return limit
