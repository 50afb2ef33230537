"""Which of the scored pictures are kept: by count, by a lowest score, and what to do if none is good enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..errors import MaAgiqaError
from ..ranking import order_by_score
from .limits import OWN_SCALE, lowest_passing, measured

IF_NONE = ("best", "block", "error")


@dataclass(frozen=True)
class Selection:
    """Indexes of pictures, from 0 in the order they were given.

    Attributes:
        kept: Best first.
        rejected: Best first, at the end those without a score.
    """

    kept: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def indexes(self) -> str:
        """What was kept as "3,0,5"."""
        return ",".join(map(str, self.kept))


def select_best(
    scores: Sequence[float],
    *,
    top_k: int,
    min_score: float | None = None,
    if_none: str = "best",
    measure: str = OWN_SCALE,
    percentiles: Sequence[float | None] = (),
) -> Selection:
    """Keeps the best.

    Args:
        scores: Higher is better; a picture with NaN is never kept. Ties keep the order they came in.
        top_k: Keep at most this many.
        min_score: Keep none below; None keeps by count alone.
        if_none: If no score reaches `min_score`: "best" keeps the best one anyway, "block" none, "error" raises.
        measure: What `min_score` is, one of `MEASURES`.
        percentiles: Of the scores among the scorer's calibration pictures, 0 to 100; for `measure` "percentile".

    Raises:
        ValueError: `top_k` below 1, `min_score` NaN, an unknown `if_none` or `measure`, or scores without percentiles;
            none is good enough and this is an error, or none has a score and the best was to be kept.

    Example:
        >>> select_best([5.1, 7.3, 6.2], top_k=2)
        Selection(kept=(1, 2), rejected=(0,))
        >>> select_best([5.1, 7.3, 6.2], top_k=2, min_score=7).indexes
        '1'
    """
    if if_none not in IF_NONE:
        raise MaAgiqaError(f"Expected {', '.join(IF_NONE)} if none is good enough, got {if_none!r}.")
    limit = None if min_score is None else lowest_passing(scores, min_score, measure, percentiles)
    ranking = order_by_score(range(len(scores)), scores, top_k=top_k, min_score=limit)
    kept, rejected = list(ranking.kept), [*ranking.rejected, *ranking.failed]
    if not kept and if_none != "block":
        if not ranking.rejected:
            raise MaAgiqaError(
                f"Expected a score for at least one picture, got none for {len(scores)}. Try other pictures."
            )
        if if_none == "error":
            best = measured(scores, measure, percentiles)[rejected[0]]
            raise MaAgiqaError(
                f"Expected a {measure} of at least {min_score:g}, got {best:.4g} for the best of {len(scores)}. "
                "Lower the minimum score, or make more pictures."
            )
        kept = [rejected.pop(0)]
    return Selection(tuple(kept), tuple(rejected))


def split_at(
    scores: Sequence[float],
    min_score: float,
    measure: str = OWN_SCALE,
    percentiles: Sequence[float | None] = (),
) -> Selection:
    """Keeps all with at least `min_score`, both sides in input order; what has no score is rejected.

    Args:
        scores: Higher is better.
        min_score: Keep none below.
        measure: What `min_score` is, one of `MEASURES`.
        percentiles: As for `select_best`.

    Raises:
        ValueError: `min_score` is NaN, an unknown `measure`, or scores without percentiles.

    Example:
        >>> split_at([5.1, 7.3, 6.2], 6)
        Selection(kept=(1, 2), rejected=(0,))
        >>> split_at([5.1, 7.3, 6.2], 100, "percentile in this run")
        Selection(kept=(1,), rejected=(0, 2))
    """
    if math.isnan(min_score):
        raise MaAgiqaError("Expected a number as the minimum score, got NaN.")
    limit = lowest_passing(scores, min_score, measure, percentiles)
    good = [score >= limit for score in scores]
    return Selection(
        tuple(index for index, passed in enumerate(good) if passed),
        tuple(index for index, passed in enumerate(good) if not passed),
    )


def parse_indexes(text: str, count: int) -> tuple[int, ...]:
    """The pictures that a text such as "3,0,5" names, each once, in its order.

    Args:
        text: Numbers from 0, separated by commas; empty names none.
        count: How many pictures there are.

    Raises:
        ValueError: Something else than numbers, or a picture that is not there.

    Example:
        >>> parse_indexes("3, 0", count=4)
        (3, 0)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not (part.isdecimal() and int(part) < count)]
    if wrong:
        raise MaAgiqaError(
            f"Expected numbers of pictures from 0 to {count - 1}, separated by commas, got {wrong[0]!r:.40}. Connect "
            "the indexes of Select Best Images, and the pictures that it chose from."
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def one_score_each(values: Any, count: int) -> list[float]:
    """Scores as they come from other programs, as one number for each picture.

    Args:
        values: Numbers, or lists or tensors of them, however deep.
        count: How many pictures there are.

    Raises:
        ValueError: Something that is not a number, or another number of scores than pictures.

    Example:
        >>> one_score_each([[5.1], [7.3, 6]], count=3)
        [5.1, 7.3, 6.0]
    """
    scores = _numbers(values)
    if len(scores) != count:
        raise MaAgiqaError(
            f"Expected one score for each of {count} pictures, got {len(scores)}. "
            "Connect the scores of exactly these pictures."
        )
    return scores


def _numbers(values: Any) -> list[float]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [number for value in values for number in _numbers(value)]
    if isinstance(values, bool) or not isinstance(values, Real):
        raise MaAgiqaError(f"Expected numbers as scores, got {values!r:.60}. Connect the scores of a scoring node.")
    return [float(values)]
