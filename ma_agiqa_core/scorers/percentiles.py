"""Where a score stands among others: quantiles, and the percentile between them."""

import bisect
import math
from collections.abc import Iterable, Sequence

import numpy as np

QUANTILES = 101  # at 0 %, 1 %, ... 100 %


def quantiles_of(scores: Iterable[float]) -> tuple[float, ...]:
    """Scores at 0 %, 1 %, ... 100 %, ascending."""
    values = np.quantile(np.asarray(list(scores), dtype=np.float64), np.linspace(0, 1, QUANTILES))
    return tuple(np.maximum.accumulate(values).tolist())  # rounding may put one below the one before


def percentile_among(score: float, quantiles: Sequence[float]) -> float | None:
    """The share of what the quantiles are of that is lower than a score, 0 to 100, linear between them.

    Args:
        score: Any number.
        quantiles: Ascending, at evenly spaced shares from 0 % to 100 %; at least two, or none.

    Returns:
        None without quantiles, or if `score` is NaN.
    """
    if not quantiles or math.isnan(score):
        return None
    below = bisect.bisect_left(quantiles, score)
    not_above = bisect.bisect_right(quantiles, score)
    if below < not_above:  # exactly on one or more quantiles: the middle of them
        place = (below + not_above - 1) / 2
    elif below in (0, len(quantiles)):
        place = 0 if below == 0 else len(quantiles) - 1
    else:
        left, right = quantiles[below - 1 : below + 1]
        place = below - 1 + (score - left) / (right - left)
    return 100 * place / (len(quantiles) - 1)
