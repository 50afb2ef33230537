"""Several scorers side by side: how far they agree on the order of the same pictures, and on which they differ most."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ..metrics import srcc
from ..ranking import order
from ..scorers.scorer import ScorerInfo
from .names import decimals_of

MOST_DISPUTED = 3  # pictures that the table names

Columns = Sequence[Sequence[float]]
"""The scores of each scorer, one per picture, all of the same pictures; NaN where a picture has none."""


def rank_correlation(columns: Columns) -> float:
    """The mean of the rank correlations (Spearman's) of all pairs of scorers, -1..1; NaN where none is defined.

    Example:
        >>> round(rank_correlation([[1, 2, 3], [10, 20, 30]]), 6)
        1.0
    """
    known = [value for value in _correlations(columns).values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def disagreements(columns: Columns) -> list[float]:
    """How far the scorers differ on each picture: the distance of its best and its worst place, as a share of the most.

    Returns:
        0..1 per picture: 0 where all put it in the same place, 1 where it is first for one and last for another. Equal
        scores share their places; NaN for a picture without a score.

    Example:
        >>> disagreements([[1, 2, 3], [3, 2, 1]])
        [1.0, 0.0, 1.0]
    """
    places = [_shared_places(column) for column in columns]
    most = max(len(columns[0]) - 1, 1)
    return [(max(of_picture) - min(of_picture)) / most for of_picture in zip(*places, strict=True)]


def judges_table(infos: Sequence[ScorerInfo], columns: Columns) -> str:
    """A line for each picture, best first by the first scorer: its number, and each scorer's score and place.

    Below it the rank correlation of every pair of scorers, and the pictures that they differ on most with their places,
    in the order of the scorers.

    Args:
        infos: Of the scorers.
        columns: Their scores.
    """
    names, ranks = judge_names(infos), [_ranks(column) for column in columns]
    rows = [("picture", *names)]
    for picture in [*order(columns[0]), *(place for place, score in enumerate(columns[0]) if math.isnan(score))]:
        cells = [
            f"{column[picture]:.{decimals_of(column)}f} (#{ranks_of[picture]})" if picture in ranks_of else "none"
            for column, ranks_of in zip(columns, ranks, strict=True)
        ]
        rows.append((str(picture), *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    for (one, other), value in _correlations(columns).items():
        told = "not defined (equal scores, or too few)" if math.isnan(value) else f"{value:.2f}"
        lines.append(f"rank correlation of {names[one]} and {names[other]}: {told}")
    apart = disagreements(columns)
    disputed = [picture for picture in order(apart) if apart[picture] > 0][:MOST_DISPUTED]
    if disputed:
        lines.append("they differ most on " + ", ".join(_disputed(picture, ranks) for picture in disputed))
    return "\n".join(lines)


def judge_names(infos: Sequence[ScorerInfo]) -> list[str]:
    """A name for each scorer; those of equal names are numbered."""
    count, seen = Counter(info.name for info in infos), Counter[str]()
    names = []
    for info in infos:
        seen[info.name] += 1
        names.append(info.name if count[info.name] == 1 else f"{info.name} {seen[info.name]}")
    return names


def notes_of_others(columns: Columns) -> list[str]:
    """For the caption of each picture: its places by all scorers but the first."""
    ranks = [_ranks(column) for column in columns[1:]]
    shown = [", ".join(f"#{of.get(picture, '-')}" for of in ranks) for picture in range(len(columns[0]))]
    return [f"other{'s' * (len(ranks) > 1)}: {places}" if ranks else "" for places in shown]


def _correlations(columns: Columns) -> dict[tuple[int, int], float]:
    found = {}
    for one, other in combinations(range(len(columns)), 2):
        pairs = [
            pair
            for pair in zip(columns[one], columns[other], strict=True)
            if all(math.isfinite(score) for score in pair)
        ]
        found[one, other] = srcc(*zip(*pairs, strict=True)) if len(pairs) > 1 else math.nan
    return found


def _ranks(column: Sequence[float]) -> dict[int, int]:
    """The place of each picture that has a score, from 1."""
    return {picture: place for place, picture in enumerate(order(column), start=1)}


def _shared_places(column: Sequence[float]) -> list[float]:
    """Places from 0, best first, in which equal scores have the mean of theirs."""
    from scipy.stats import rankdata

    return (rankdata(-np.asarray(column, dtype=np.float64), nan_policy="omit") - 1).tolist()


def _disputed(picture: int, ranks: Sequence[dict[int, int]]) -> str:
    return f"picture {picture} ({', '.join(f'#{of[picture]}' for of in ranks)})"
