"""Pictures in order of their scores: kept, rejected and those that could not be scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .arguments.numbers import real_number, whole_number
from .arguments.options import shown
from .errors import MaAgiqaError
from .pictures.inputs import Pictures, as_picture_list, path_of
from .pictures.prompts import Prompts
from .scorers.outcomes import explained
from .scorers.scorer import Scorer

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
        info.require_scale(f"for min_score={min_score:g}", "Use top_k, or another scorer.")
    pictures = as_picture_list(images)
    given = images if hasattr(images, "shape") else pictures
    ranked = []
    for index, (picture, outcome) in enumerate(zip(pictures, explained(scorer, given, prompts), strict=True)):
        score, error = (math.nan, outcome) if isinstance(outcome, str) else (outcome, None)
        ranked.append(RankedPicture(index, score, info.percentile_if_known(score), error, path_of(picture)))
    return order_by_score(ranked, [picture.score for picture in ranked], top_k=top_k, min_score=min_score)


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
