"""What any scorer says of pictures, with reasons: found out where it only has `score`, or where it raises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..compute.batching import is_out_of_memory
from ..errors import MaAgiqaError, PictureError, UnusableModelError
from ..pictures.given import as_given
from ..pictures.inputs import Picture, PictureInput, Pictures, as_picture_list, decode
from ..pictures.prompts import Prompts, resolve_prompts
from .picture_scorer import Outcome, PictureScorer
from .scorer import Scorer, as_scores


def outcomes_of(
    scorer: Scorer, pictures: Sequence[Picture], prompts: Sequence[str] | None = None, batch_size: int | None = None
) -> list[Outcome]:
    """For decoded pictures the score, or the reason why there is none.

    Args:
        scorer: Any.
        pictures: Decoded; the reason of one that cannot be read is its `error`.
        prompts: One for each picture.
        batch_size: How many at a time at most.
    """
    if isinstance(scorer, PictureScorer):
        with scorer.set_up():
            return list(scorer.outcomes(pictures, prompts, batch_size))
    rows = [row for row, picture in enumerate(pictures) if picture.error is None]
    texts = None if prompts is None else [prompts[row] for row in rows]
    given = as_given([pictures[row] for row in rows])
    values = iter(_of_score_alone(scorer, given, list(given), texts, batch_size) if rows else ())
    return [next(values) if picture.error is None else picture.error for picture in pictures]


def tolerant_outcomes(
    scorer: Scorer, pictures: Sequence[Picture], prompts: Sequence[str] | None, batch_size: int | None
) -> list[Outcome]:
    """For each picture its score, or the reason why there is none.

    What a scorer raises of the pictures, or for want of memory, becomes the reason of those that it concerns: they are
    tried in smaller batches, and alone in the end.

    Args:
        scorer: Any.
        pictures: Decoded, none with an error.
        prompts: One for each picture.
        batch_size: How many at a time at most.

    Raises:
        UnusableModelError: None of the pictures can be scored.
        Exception: A bug in a scorer of ours.
    """
    is_worth_trying = bool(pictures)
    while is_worth_trying:
        try:
            return outcomes_of(scorer, pictures, prompts, batch_size)
        except UnusableModelError:  # none of the pictures can be scored
            raise
        except Exception as error:
            is_of_pictures = isinstance(error, MaAgiqaError) or is_out_of_memory(error) or runs_callers_code(scorer)
            if not is_of_pictures:  # a bug of ours
                raise
            if len(pictures) == 1:
                return [_reason(error)]
            if scorer.info.relative:
                raise
            batch_size = min(batch_size or len(pictures), len(pictures)) // 2
            is_worth_trying = is_out_of_memory(error) and batch_size > 0
    alone = [slice(i, i + 1) for i in range(len(pictures))]
    return [tolerant_outcomes(scorer, pictures[i], None if prompts is None else prompts[i], 1)[0] for i in alone]


def explained(scorer: Scorer, images: Pictures, prompts: Prompts = None) -> list[Outcome]:
    """For every picture, given in any way, the score, or the reason why there is none.

    Raises:
        ValueError: Malformed input, or the scorer did not return one number for each picture.
    """
    if isinstance(scorer, PictureScorer):
        return scorer.explain(images, prompts)
    pictures = as_picture_list(images)
    texts = resolve_prompts(prompts, len(pictures), scorer.info.needs_prompt)
    return _of_score_alone(scorer, images if hasattr(images, "shape") else pictures, pictures, texts, None)


def runs_callers_code(scorer: Scorer) -> bool:
    """Whether an exception that is no `MaAgiqaError` may come from a function or class of the caller's."""
    return not isinstance(scorer, PictureScorer) or scorer.is_callers_own


def _of_score_alone(
    scorer: Scorer, images: Any, pictures: Sequence[Any], prompts: Sequence[str] | None, batch_size: int | None
) -> list[Outcome]:
    scores = as_scores(
        scorer.score(images, prompts=prompts, batch_size=batch_size, on_error="nan"), len(pictures), scorer.info.name
    ).tolist()
    texts = [None] * len(pictures) if prompts is None else prompts
    return [
        score if math.isfinite(score) else _why_not(scorer, picture, text, score)
        for score, picture, text in zip(scores, pictures, texts, strict=True)
    ]


def _why_not(scorer: Scorer, picture: PictureInput, prompt: str | None, value: float) -> str:
    """The picture's own error, else what the scorer says when it is asked once more."""
    if (reason := decode(picture).error) is not None:
        return reason
    if not scorer.info.relative:
        try:
            scorer.score([picture], prompts=prompt, on_error="raise")
        except PictureError as error:
            return error.reason
        except MaAgiqaError:  # of scorers that have no reasons
            pass
    return f"{scorer.info.name} returned {value}"


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "not enough memory to score it"
    return f"cannot be scored: {' '.join(str(error).split()) or type(error).__name__}"
