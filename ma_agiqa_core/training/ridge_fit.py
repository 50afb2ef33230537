"""Ridge regression on descriptions: where a model that takes them starts, and what every training is compared with.

Strength and the say of each part of the description are those with the least leave-one-out error (Allen's PRESS), which
one decomposition gives for all strengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PENALTIES = np.logspace(-4, 2, 13)  # of the mean square of a column
QUIET = 0.25  # scale of the parts that are not in favour
MOST = 4.0  # deviations
_EPS = 1e-6


@dataclass(frozen=True)
class Ridge:
    """A linear function of standardised descriptions.

    Attributes:
        mean: (D,).
        deviation: (D,).
        weight: (D,).
        bias: What the mean description gives.
    """

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: float

    def standardise(self, descriptions: np.ndarray) -> np.ndarray:
        """(N, D), each column in deviations from its mean."""
        return ((descriptions - self.mean) / self.deviation).clip(-MOST, MOST)

    def predict(self, descriptions: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,)."""
        return self.standardise(descriptions) @ self.weight + self.bias


def fit_ridge_on(
    descriptions: np.ndarray, labels: np.ndarray, parts: Mapping[str, int], *, common_scale: bool = False
) -> Ridge:
    """Fits labels (n,) on descriptions (n, D).

    Args:
        descriptions: Finite.
        labels: Finite.
        parts: Widths of the parts, D in all.
        common_scale: All columns have one scale.
    """
    ridge = standardising(descriptions, common_scale=common_scale)
    x = ridge.standardise(descriptions)
    offset = x.mean(0)  # which clipping moves a little
    x = x - offset
    centred = labels - labels.mean()
    best, weight = np.inf, ridge.weight
    for favoured in (None, *parts) if len(parts) > 1 else (None,):
        scale = np.concatenate(
            [
                np.full(width, (1.0 if favoured in (None, name) else QUIET) / np.sqrt(width))
                for name, width in parts.items()
            ]
        )
        error, found = _best_penalty(x * scale, centred)
        if error < best:
            best, weight = error, scale * found
    return Ridge(ridge.mean, ridge.deviation, weight, float(labels.mean() - offset @ weight))


def standardising(descriptions: np.ndarray, *, common_scale: bool = False) -> Ridge:
    """What standardises descriptions (n, D), without weights yet."""
    mean, deviation = descriptions.mean(0), descriptions.std(0)
    if common_scale:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    return Ridge(mean, deviation.clip(_EPS), np.zeros(len(mean)), 0.0)


def _best_penalty(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The least leave-one-out error, and its weights (D,)."""
    squares, left = _left_singular(x)
    if not len(squares):
        return float(np.mean(y**2)), np.zeros(x.shape[1])
    coordinates = left.T @ y
    best, dual = np.inf, np.zeros(len(y))
    for penalty in PENALTIES * squares.mean():
        shrink = squares / (squares + penalty)
        hat = (left**2) @ shrink + 1 / len(y)  # the mean is fitted too
        missed = (y - left @ (shrink * coordinates)) / (1 - hat).clip(1e-3)
        error = float(np.mean(missed**2))
        if error < best:
            best, dual = error, left @ (shrink / squares * coordinates)
    return best, x.T @ dual


def _left_singular(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values (k,) that are not naught, and left singular vectors (n, k), of x (n, D).

    From the products of the shorter side: ten times as fast as a decomposition of x.
    """
    is_wide = x.shape[0] <= x.shape[1]
    squares, vectors = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    kept = squares > 1e-12 * max(squares[-1], _EPS)
    squares, vectors = squares[kept], vectors[:, kept]
    return squares, vectors if is_wide else x @ vectors / np.sqrt(squares)
