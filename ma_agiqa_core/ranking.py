"""Pictures in order of their scores: kept, rejected and those that could not be scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .arguments.numbers import real_number, whole_number
from .arguments.options import shown
from .errors import MaAgiqaError
from .pictures.inputs import PictureInput, as_picture_list, decode, path_text
from .scorers.picture_scorer import score_again
from .scorers.scorer import Pictures, Prompts, Scorer, ScorerInfo, as_scores, resolve_prompts

Ranked = TypeVar("Ranked")


@dataclass(frozen=True)
class RankedPicture:
    """One picture's place.

    Attributes:
        index: Its place among the given pictures, from 0.
        score: Higher is better; NaN if it could not be scored.
        percentile: 0 to 100, how many of the scorer's calibration pictures it is better than; None if
            unknown.
        error: Why there is no score, else None.
        path: Its path, or None if it was not given as one.

    Example:
        >>> picture = RankedPicture(index=4, score=71.3, percentile=83.6, error=None, path="cat.png")
        >>> f"{picture.path}: {picture.score}"
        'cat.png: 71.3'
    """

    index: int
    score: float
    percentile: float | None
    error: str | None
    path: str | None = None


@dataclass(frozen=True)
class Ranking(Generic[Ranked]):
    """All pictures of one ranking, in whatever form they were ranked.

    Attributes:
        kept: Best first.
        rejected: Best first.
        failed: Those without a score, in input order.

    Example:
        >>> ranking = order_by_score(["a.png", "b.png", "c.png"], [0.2, 0.9, float("nan")], top_k=1)
        >>> ranking
        Ranking(kept=('b.png',), rejected=('a.png',), failed=('c.png',))
    """

    kept: tuple[Ranked, ...]
    rejected: tuple[Ranked, ...]
    failed: tuple[Ranked, ...]


def rank(
    scorer: Scorer,
    images: Pictures,
    *,
    prompts: Prompts = None,
    top_k: int | None = None,
    min_score: float | None = None,
) -> Ranking[RankedPicture]:
    """Scores pictures and keeps the best.

    Args:
        scorer: Any `Scorer`.
        images: As for `Scorer.score`.
        prompts: One for all, or one per picture.
        top_k: Keep at most this many.
        min_score: Keep none below.

    Raises:
        ValueError: `top_k` is no whole number or below 1, `min_score` is no number or with a relative scorer, or
            malformed input; the scorer did not return one number for each picture.

    Example:
        >>> import torch
        >>> from ma_agiqa_core import CallableScorer, rank
        >>> brightness = CallableScorer(lambda images, prompts: images.mean(dim=(1, 2, 3)), name="brightness")
        >>> shades = torch.tensor([0.2, 0.8, 0.5]).reshape(3, 1, 1, 1)
        >>> ranking = rank(brightness, shades.expand(3, 3, 8, 8), top_k=2)
        >>> [picture.index for picture in ranking.kept], [picture.index for picture in ranking.rejected]
        ([1, 2], [0])
    """
    _check_limits(top_k, min_score)
    info = scorer.info
    if min_score is not None:
        check_has_scale(info, min_score)
    pictures = as_picture_list(images)
    given = images if hasattr(images, "shape") else pictures
    prompts = resolve_prompts(prompts, len(pictures), info.needs_prompt)
    scores = as_scores(scorer.score(given, prompts=prompts, on_error="nan"), len(pictures), info.name)
    ranked = []
    for index, (picture, score) in enumerate(zip(pictures, scores.tolist(), strict=True)):
        failed = math.isnan(score)
        percentile = None if failed or info.relative else info.percentile(score)
        error = _why_not(scorer, picture, prompts, index) if failed else None
        ranked.append(RankedPicture(index, score, percentile, error, path_text(picture)))
    return order_by_score(ranked, [picture.score for picture in ranked], top_k=top_k, min_score=min_score)


def check_has_scale(info: ScorerInfo, min_score: float) -> None:
    """Refuses a lowest score where scores mean nothing outside their group.

    Raises:
        ValueError: The scorer is relative.
    """
    if info.relative:
        raise MaAgiqaError(
            f"Expected no min_score with {info.name}, got {min_score:g}: its scores only compare the pictures "
            "of one call. Use top_k, or a scorer that is not relative."
        )


def _why_not(scorer: Scorer, picture: PictureInput, prompts: list[str] | None, index: int) -> str:
    """The reason for a score of NaN, asked for once more: of the file, else of the scorer."""
    if (reason := decode(picture, index).error) is not None:
        return reason
    outcome = score_again(scorer, picture, prompts[index] if prompts else None)
    return outcome if isinstance(outcome, str) else "the scorer returned NaN"


def order(scores: Sequence[float]) -> list[int]:
    """Indexes of the scores, best first, ties in input order; those of NaN are left out.

    Example:
        >>> order([0.2, 0.9, float("nan"), 0.9])
        [1, 3, 0]
    """
    known = [index for index, score in enumerate(scores) if not math.isnan(score)]
    return sorted(known, key=scores.__getitem__, reverse=True)  # stable: ties stay in input order


def order_by_score(
    items: Sequence[Ranked], scores: Sequence[float], *, top_k: int | None = None, min_score: float | None = None
) -> Ranking[Ranked]:
    """Puts scored things in order, ties in input order.

    Args:
        items: What is ranked.
        scores: One for each; NaN where it could not be scored.
        top_k: Keep at most this many.
        min_score: Keep none below.

    Raises:
        ValueError: `top_k` below 1, or `min_score` NaN.
    """
    _check_limits(top_k, min_score)
    best_first = order(scores)
    enough = sum(min_score is None or scores[index] >= min_score for index in best_first)
    count = enough if top_k is None else min(top_k, enough)
    return Ranking(
        tuple(items[index] for index in best_first[:count]),
        tuple(items[index] for index in best_first[count:]),
        tuple(item for item, score in zip(items, scores, strict=True) if math.isnan(score)),
    )


def _check_limits(top_k: int | None, min_score: float | None) -> None:
    if top_k is not None and ((count := whole_number(top_k)) is None or count < 1):
        raise MaAgiqaError(f"Expected top_k of at least 1, or None, got {shown(top_k)}. Pass a whole number.")
    if min_score is not None:
        limit = real_number(min_score)
        if limit is None or math.isnan(limit):
            got = "NaN" if limit is not None else shown(min_score)
            raise MaAgiqaError(f"Expected a number as min_score, got {got}. Leave it out to keep all.")
