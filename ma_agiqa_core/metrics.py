"""How well predicted scores follow human ones: the four figures of the image-quality literature, and the bootstrap.

The figures take two sequences of the same length, at least two finite numbers each, and return a float; the
correlations lie in -1..1 (higher is better) and are NaN where one side is constant.

PLCC and RMSE are published after a fit that brings predictions onto the scale of the labels. It must rise, as the
mappings of VQEG (final report on FR-TV, phase II, 2003) and of ITU-T P.1401 do: one that may fall turns scores that go
the wrong way into full agreement, and one of as many parameters as there are pictures agrees with any labels. See
`fitted` for what follows from that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import MaAgiqaError

Scores: TypeAlias = Sequence[float] | Any
"""Numbers as a list, a numpy array or a CPU tensor, one-dimensional."""

FEWEST_FOR_THE_CURVE = 10  # pictures: of fewer, the median |PLCC| of pure noise after the curve is above 0.5
_FEWEST = 4
_NUMBERS_AT_ONCE = 2**22  # of resamples held at a time, 32 MB
_NO_BETTER = 1 - 1e-6  # of the sums of squares of two searches that ended in one place


@dataclass(frozen=True)
class Logistic:
    """`bottom + (top - bottom) / (1 + exp(-(x - middle) / |width|))`"""

    top: float
    bottom: float
    middle: float
    width: float

    @property
    def rises(self) -> bool:
        """Whether higher predictions go with higher labels."""
        return self.top > self.bottom

    def __call__(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions of any shape on the scale of the labels."""
        from scipy.special import expit

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            steps = np.divide(predictions - self.middle, abs(self.width))
        return self.bottom + (self.top - self.bottom) * expit(steps)


def srcc(predictions: Scores, labels: Scores) -> float:
    """Spearman's rank correlation: Pearson's on average ranks.

    Example:
        >>> round(srcc([1, 2, 3, 4], [10, 30, 20, 40]), 3)
        0.8
    """
    from scipy.stats import rankdata

    predictions, labels = _paired(predictions, labels)
    return _pearson(rankdata(predictions), rankdata(labels))


def plcc(predictions: Scores, labels: Scores, *, fit: bool = False) -> float:
    """Pearson's linear correlation.

    Args:
        predictions: Predicted scores.
        labels: Human scores.
        fit: After a fit to the labels, as publications do; see `fitted`.

    Example:
        >>> round(plcc([1, 2, 3, 4], [10, 20, 30, 50]), 3)
        0.983
    """
    return fitted(predictions, labels).plcc if fit else _pearson(*_paired(predictions, labels))


def krcc(predictions: Scores, labels: Scores) -> float:
    """Kendall's rank correlation, tau-b.

    Example:
        >>> round(krcc([1, 2, 3, 4], [10, 30, 20, 40]), 3)
        0.667
    """
    from scipy.stats import kendalltau

    predictions, labels = _paired(predictions, labels)
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(kendalltau(predictions, labels).statistic)


def rmse(predictions: Scores, labels: Scores, *, fit: bool = False) -> float:
    """Root mean square error on the scale of the labels, lower is better.

    Args:
        predictions: Predicted scores.
        labels: Human scores.
        fit: After a fit to the labels, as publications do; see `fitted`.

    Example:
        >>> rmse([1, 2, 3, 4], [1, 2, 3, 6])
        1.0
    """
    return fitted(predictions, labels).rmse if fit else _root_mean_square(np.subtract(*_paired(predictions, labels)))


@dataclass(frozen=True)
class Fitted:
    """Figures after a fit that brings predictions onto the scale of the labels.

    Attributes:
        plcc: Pearson's correlation, -1..1; NaN where one side is constant or the curve is flat.
        rmse: Root mean square error on the scale of the labels.
        curve: The logistic; None for few pictures, which have a straight line.
    """

    plcc: float
    rmse: float
    curve: Logistic | None = None


def fitted(predictions: Scores, labels: Scores) -> Fitted:
    """PLCC and RMSE after the fit.

    From `FEWEST_FOR_THE_CURVE` pictures on the fit is `fit_logistic`, as published. Where that curve falls, PLCC has
    its sign, below 0, and RMSE is that of the labels' mean, the best that predictions of the wrong direction can do. Of
    fewer pictures four parameters would find agreement in noise: they have a straight line that rises or is flat, and
    PLCC is that of the raw predictions.

    Raises:
        ValueError: Fewer than four pairs, or input that the metrics refuse.
    """
    predictions, labels = _paired(predictions, labels)
    _check_enough(labels)
    apart = labels - labels.mean()
    if len(labels) < FEWEST_FOR_THE_CURVE or np.ptp(predictions) == 0:
        correlation = _pearson(predictions, labels)
        explained = max(correlation, 0.0) if np.isfinite(correlation) else 0.0
        return Fitted(correlation, _root_mean_square(apart) * float(np.sqrt(1 - explained**2)))
    curve = fit_logistic(predictions, labels)
    mapped = curve(predictions)
    correlation = _pearson(mapped, labels)
    if curve.rises:
        return Fitted(correlation, _root_mean_square(mapped - labels), curve)
    return Fitted(-correlation, _root_mean_square(apart), curve)


def fit_logistic(predictions: Scores, labels: Scores) -> Logistic:
    """The 4-parameter logistic that maps predictions to labels with the least squares; it rises or falls.

    Starts where the published evaluation of MA-AGIQA does: largest and smallest label, mean prediction, 0.5; and with
    the predictions' spread for 0.5, since from there predictions on a wide scale find no way. The better one is taken.

    Raises:
        ValueError: Fewer than four pairs, or input that the metrics refuse.
    """
    from scipy.optimize import leastsq

    predictions, labels = _paired(predictions, labels)
    _check_enough(labels)

    def search(width: float) -> tuple[float, Logistic]:
        start = (labels.max(), labels.min(), predictions.mean(), width)
        best, *_ = leastsq(lambda p: Logistic(*p)(predictions) - labels, start, maxfev=20_000, full_output=True)
        curve = Logistic(*(float(parameter) for parameter in best))
        return float(np.sum((curve(predictions) - labels) ** 2)), curve

    error, curve = search(0.5)
    if (spread := float(predictions.std())) > 0:
        other_error, other = search(spread)
        curve = other if other_error < error * _NO_BETTER else curve
    return curve


def bootstrap_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n things is drawn in each bootstrap resample: (resamples, n) float64, rows sum to n.

    Sums over a resample are then a product, `counts @ values`. The draws are those of `scipy.stats.bootstrap` with
    `np.random.default_rng(seed)`.
    """
    random = np.random.default_rng(seed)
    counts = np.empty((resamples, n))
    size = max(_NUMBERS_AT_ONCE // max(n, 1), 1)
    for start in range(0, resamples, size):
        drawn = random.integers(0, n, (min(size, resamples - start), n))
        drawn += n * np.arange(len(drawn))[:, None]
        counts[start : start + size] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return counts


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """The interval between the outer quantiles of resampled values; None if more than half of them are not finite."""
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < len(values) / 2:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_enough(labels: np.ndarray) -> None:
    if len(labels) < _FEWEST:
        raise MaAgiqaError(f"Expected at least {_FEWEST} pairs for a fit with 4 parameters, got {len(labels)}.")


def _paired(predictions: Scores, labels: Scores) -> tuple[np.ndarray, np.ndarray]:
    pair = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    shapes = f"{pair[0].shape} and {pair[1].shape}"
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape or len(pair[0]) < 2:
        raise MaAgiqaError(f"Expected two sequences of the same length, 2 or more, got shapes {shapes}.")
    for name, values in zip(("predictions", "labels"), pair, strict=True):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise MaAgiqaError(f"Expected finite {name}, got {values[place]} at {place}. Leave failed pictures out.")
    return pair


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))
