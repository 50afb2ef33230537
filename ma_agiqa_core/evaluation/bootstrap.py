"""Bootstrap of the four figures, vectorised: a resample is how often each picture was drawn, not a list of pictures.

With counts, ranks and ties are found once for all resamples: Spearman's and Kendall's correlation of a thousand
resamples cost about as much as a few sorts and one product of matrices. The draws are those of `scipy.stats.bootstrap`
with the same generator, and so are the intervals (tested); its statistic would be called with a thousand sorted copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import leastsq
from scipy.special import expit

from ..metrics import Logistic, bootstrap_counts

PARAMETERS = 4  # of the fit, and the fewest pictures it needs
FEWEST_RESAMPLED = 5  # pictures or prompts; the bootstrap of fewer makes intervals that are far too narrow
_NUMBERS_AT_ONCE = 2**22  # counts of resamples held at a time, 32 MB
_PAIRS_AT_ONCE = 2**22  # signs of pairs held at a time, 16 MB
_FIT_TOLERANCE = 1e-6  # of the sum of squares: an interval's end is right to six digits
_FIT_EVALUATIONS = 100  # from the whole sample's curve a resample's is found in about ten


def draw_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n things was drawn in each resample: (resamples, n) float64, rows sum to n.

    None at all, (0, n), of fewer than FEWEST_RESAMPLED things.
    """
    return bootstrap_counts(n, resamples if n >= FEWEST_RESAMPLED else 0, seed)


def srcc_of_resamples(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation of x and y (n,) in every resample: (resamples,), NaN where one side is constant."""
    correlations = np.empty(len(counts))
    for rows in _slices(len(counts), max(_NUMBERS_AT_ONCE // len(x), 1)):
        some = counts[rows]
        correlations[rows] = plcc_of_resamples(some, _ranks(some, x), _ranks(some, y))
    return correlations


def plcc_of_resamples(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of x and y, (n,) or (resamples, n), in every resample: NaN where one side is constant."""
    drawn = counts > 0
    constant = (np.ptp(np.where(drawn, x, _any_drawn(drawn, x)), axis=1) == 0) | (
        np.ptp(np.where(drawn, y, _any_drawn(drawn, y)), axis=1) == 0
    )
    total = counts.sum(1)
    x = x - ((counts * x).sum(1) / total)[:, None]
    y = y - ((counts * y).sum(1) / total)[:, None]
    spread = np.sqrt((counts * x * x).sum(1) * (counts * y * y).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = (counts * x * y).sum(1) / spread
    return np.where(constant, np.nan, np.clip(correlation, -1, 1))


def krcc_of_resamples(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of x and y (n,) in every resample: (resamples,), NaN where one side is constant.

    A pair counts as often as the product of how often its two pictures were drawn. Sums of up to n small integers are
    exact in float32, where products of matrices are fastest.
    """
    n = len(x)
    single = counts.astype(np.float32)
    agreeing = np.zeros(len(counts))
    for rows in _slices(n, max(_PAIRS_AT_ONCE // n, 1)):
        later = slice(rows.start, n)
        signs = np.sign(x[rows, None] - x[None, later]) * np.sign(y[rows, None] - y[None, later])
        size = rows.stop - rows.start
        signs[:, :size] = np.triu(signs[:, :size])  # a pair once
        agreeing += (single[:, later] @ signs.T.astype(np.float32) * counts[:, rows]).sum(1)
    total = counts.sum(1)
    pairs = total * (total - 1) / 2
    untied = [pairs - (tied * (tied - 1) / 2).sum(1) for tied in (_tied(counts, x)[0], _tied(counts, y)[0])]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(agreeing / np.sqrt(untied[0] * untied[1]), -1, 1)


def fits_of_resamples(
    counts: np.ndarray, x: np.ndarray, y: np.ndarray, start: Logistic | None
) -> tuple[np.ndarray, np.ndarray]:
    """PLCC and RMSE of x and y (n,) in every resample, each after its fit, as `metrics.fitted`: twice (resamples,).

    Args:
        counts: Of the resamples.
        x: Predictions.
        y: Labels.
        start: The curve of the whole sample; None where that has a straight line.

    Returns:
        NaN where fewer than four pictures were drawn, or one side is constant.
    """
    total = counts.sum(1)
    mean = (counts @ y / total)[:, None]
    spread = np.sqrt((counts * (y - mean) ** 2).sum(1) / total)
    if start is None:
        correlation = plcc_of_resamples(counts, x, y)
        return correlation, spread * np.sqrt(1 - np.maximum(correlation, 0) ** 2)
    fitted = np.empty_like(counts)
    rises = np.ones(len(counts), dtype=bool)
    for row, count in enumerate(counts):
        drawn = count > 0
        if drawn.sum() < PARAMETERS or np.ptp(x[drawn]) == 0 or np.ptp(y[drawn]) == 0:
            fitted[row] = np.nan
        else:
            curve = _fit(x[drawn], y[drawn], np.sqrt(count[drawn]), start)
            fitted[row], rises[row] = curve(x), curve.rises
    correlation = plcc_of_resamples(counts, fitted, y)
    error = np.sqrt((counts * (fitted - y) ** 2).sum(1) / total)
    return np.where(rises, correlation, -correlation), np.where(rises, error, spread)


def _fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, start: Logistic) -> Logistic:
    """The curve with the least squares of `weight * (curve(x) - y)`."""

    def residual(p: np.ndarray) -> np.ndarray:
        return weight * (p[1] + (p[0] - p[1]) * expit((x - p[2]) / abs(p[3])) - y)

    def derivative(p: np.ndarray) -> np.ndarray:
        step = expit((x - p[2]) / abs(p[3]))
        slope = (p[0] - p[1]) * step * (1 - step) / abs(p[3])
        return weight * np.stack([step, 1 - step, -slope, -slope * (x - p[2]) / p[3]])

    with np.errstate(all="ignore"):
        best, *_ = leastsq(
            residual,
            (start.top, start.bottom, start.middle, start.width),
            Dfun=derivative,
            col_deriv=True,
            ftol=_FIT_TOLERANCE,
            xtol=_FIT_TOLERANCE,
            maxfev=_FIT_EVALUATIONS,
            full_output=True,
        )
    return Logistic(*(float(parameter) for parameter in best))


def _ranks(counts: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Average ranks of x (n,) in every resample: (resamples, n)."""
    tied, place = _tied(counts, x)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, place]


def _tied(counts: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each distinct value of x was drawn, ascending: (resamples, values); and where each x is in it: (n,)."""
    values, place = np.unique(x, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    return np.add.reduceat(counts[:, order], starts, axis=1), place


def _any_drawn(drawn: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One value of each resample: (resamples, 1)."""
    first = drawn.argmax(1)[:, None]
    return x[first] if x.ndim == 1 else np.take_along_axis(x, first, 1)


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
