"""How well predicted scores follow human ones: the four figures of the image-quality literature.

All take two sequences of the same length, at least two finite numbers each, and return a float; the
correlations lie in -1..1 (higher is better) and are NaN where one side is constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import MaAgiqaError

Scores: TypeAlias = Sequence[float] | Any
"""Numbers as a list, a numpy array or a CPU tensor, one-dimensional."""


@dataclass(frozen=True)
class Logistic:
    """`bottom + (top - bottom) / (1 + exp(-(x - middle) / |width|))`"""

    top: float
    bottom: float
    middle: float
    width: float

    def __call__(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions of any shape on the scale of the labels."""
        from scipy.special import expit

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            steps = np.divide(predictions - self.middle, abs(self.width))
        return self.bottom + (self.top - self.bottom) * expit(steps)


def srcc(predictions: Scores, labels: Scores) -> float:
    """Spearman's rank correlation: Pearson's on average ranks."""
    from scipy.stats import rankdata

    predictions, labels = _paired(predictions, labels)
    return _pearson(rankdata(predictions), rankdata(labels))


def plcc(predictions: Scores, labels: Scores, *, fit: bool = False) -> float:
    """Pearson's linear correlation.

    Args:
        predictions: Predicted scores.
        labels: Human scores.
        fit: Map the predictions through `fit_logistic` first, as publications do.
    """
    predictions, labels = _paired(predictions, labels)
    if fit and np.ptp(predictions) > 0:
        predictions = fit_logistic(predictions, labels)(predictions)
    return _pearson(predictions, labels)


def krcc(predictions: Scores, labels: Scores) -> float:
    """Kendall's rank correlation, tau-b."""
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
        fit: Map the predictions through `fit_logistic` first, as publications do.
    """
    predictions, labels = _paired(predictions, labels)
    if fit:
        predictions = fit_logistic(predictions, labels)(predictions)
    return float(np.sqrt(np.mean((predictions - labels) ** 2)))


def fit_logistic(predictions: Scores, labels: Scores) -> Logistic:
    """The 4-parameter logistic that maps predictions to labels with the least squares.

    Starts where the published evaluation of MA-AGIQA does: largest and smallest label, mean prediction, 0.5.

    Raises:
        ValueError: Fewer than four pairs, or input that the metrics refuse.
    """
    from scipy.optimize import leastsq

    predictions, labels = _paired(predictions, labels)
    if len(labels) < 4:
        raise MaAgiqaError(f"Expected at least 4 pairs for a fit with 4 parameters, got {len(labels)}.")
    start = (labels.max(), labels.min(), predictions.mean(), 0.5)
    best, *_ = leastsq(lambda p: Logistic(*p)(predictions) - labels, start, maxfev=20_000, full_output=True)
    return Logistic(*(float(parameter) for parameter in best))


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


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))
