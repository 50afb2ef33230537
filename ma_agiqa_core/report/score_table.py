"""Scores as a table in plain text, best first, for places that show no more than text."""

import math
from collections.abc import Sequence

from ..ranking import order_by_score
from ..scorers.scorer import ScorerInfo
from .names import better_than, decimals_of

_MEANING = {True: "scores compare these pictures with each other", False: "higher is better"}


def score_table(info: ScorerInfo, scores: Sequence[float]) -> str:
    """A line for each picture: rank, number from 0 in input order, score, and the percentile where there is one.

    Args:
        info: Of the scorer.
        scores: One per picture; NaN stands last.
    """
    percentiles = [info.percentile_if_known(score) for score in scores]
    ranking = order_by_score(range(len(scores)), scores)
    decimals = decimals_of(scores)
    rows = [("rank", "picture", "score", "better than" if any(p is not None for p in percentiles) else "")]
    for rank, index in enumerate(ranking.kept, start=1):
        share = better_than(percentiles[index])
        rows.append((str(rank), str(index), f"{scores[index]:.{decimals}f}", "" if share is None else f"{share} %"))
    rows += [("-", str(index), "none", "") for index in ranking.failed]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
    return "\n".join([f"{info.name} ({_range(info)}{_MEANING[info.relative]})", *lines])


def _range(info: ScorerInfo) -> str:
    if not (math.isfinite(info.low) and math.isfinite(info.high)):
        return ""
    return f"about {info.low:g} to {info.high:g}; "
