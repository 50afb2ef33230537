"""Pictures in order of their scores: kept, rejected and those that could not be scored."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .arguments.numbers import real_number, whole_number
from .arguments.options import shown
from .errors import MaAgiqaError
from .pictures.inputs import Pictures, as_picture_list, path_text
from .pictures.prompts import Prompts
from .scorers.outcomes import explained
from .scorers.scorer import Scorer


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
    """

    index: int
    score: float
    percentile: float | None
    error: str | None
    path: str | None = None


@dataclass(frozen=True)
class Ranking:
    """All pictures of one ranking: `kept` and `rejected` best first, `failed` in input order."""

    kept: tuple[RankedPicture, ...]
    rejected: tuple[RankedPicture, ...]
    failed: tuple[RankedPicture, ...]


def rank(
    scorer: Scorer,
    images: Pictures,
    *,
    prompts: Prompts = None,
    top_k: int | None = None,
    min_score: float | None = None,
) -> Ranking:
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
        percentile = None if error is not None or info.relative else info.percentile(score)
        ranked.append(RankedPicture(index, score, percentile, error, path_text(picture)))
    return order_by_score(ranked, top_k=top_k, min_score=min_score)


def order_by_score(
    pictures: Iterable[RankedPicture], *, top_k: int | None = None, min_score: float | None = None
) -> Ranking:
    """Orders scored pictures, ties in input order.

    Kept are the first `top_k` of those with at least `min_score`; one with an error or a score of NaN
    has failed.

    Raises:
        ValueError: `top_k` below 1, or `min_score` NaN.
    """
    _check_limits(top_k, min_score)
    in_order = sorted(pictures, key=lambda picture: picture.index)
    failed = [picture for picture in in_order if picture.error is not None or math.isnan(picture.score)]
    scored = [picture for picture in in_order if picture.error is None and not math.isnan(picture.score)]
    scored.sort(key=lambda picture: picture.score, reverse=True)  # stable: ties stay in input order
    enough = sum(min_score is None or picture.score >= min_score for picture in scored)
    count = enough if top_k is None else min(top_k, enough)
    return Ranking(tuple(scored[:count]), tuple(scored[count:]), tuple(failed))


def _check_limits(top_k: int | None, min_score: float | None) -> None:
    if top_k is not None and ((count := whole_number(top_k)) is None or count < 1):
        raise MaAgiqaError(f"Expected top_k of at least 1, or None, got {shown(top_k)}. Pass a whole number.")
    if min_score is not None:
        limit = real_number(min_score)
        if limit is None or math.isnan(limit):
            got = "NaN" if limit is not None else shown(min_score)
            raise MaAgiqaError(f"Expected a number as min_score, got {got}. Leave it out to keep all.")
