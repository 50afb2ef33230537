"""Fits a student's linear weights: ridge regression whose strengths are chosen by exact leave-one-out errors.

A few hundred pictures and some six hundred columns: how far each part of a description is to be trusted (statistics,
crops, thumbnail, scores) differs from teacher to teacher, so each part has a scale of its own, searched one after the
other. What is regressed is the teacher's ranks as normal deviates, not its scores: order is what a student is for, and
a few extreme scores would rule the squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from ...scorers.lite.student import KNOTS

SCALES = (1.0, 0.3, 0.1, 0.0)  # of a part; 0 leaves it out
SWEEPS = 2
PENALTIES = np.logspace(-4, 2, 13)  # of the mean eigenvalue
_GAP = 1e-3  # between knots, of the range: steeper curves would make a score of rounding errors
_RANK = 1e-10  # of the largest eigenvalue; smaller ones are rounding


@dataclass(frozen=True)
class RidgeFit:
    """Weights that were fitted.

    Attributes:
        weight: (D,).
        scales: Of the parts, 0 where one was left out.
        left_out: (N,) the sum of each picture by weights fitted without it.
        error: Mean square of what those miss.
    """

    weight: np.ndarray
    scales: tuple[float, ...]
    left_out: np.ndarray
    error: float


def normal_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks as deviates of the normal distribution, ties averaged: (N,)."""
    return ndtri((rankdata(scores) - 0.5) / len(scores))


def fit_ridge(descriptions: np.ndarray, target: np.ndarray, parts: Sequence[int]) -> RidgeFit:
    """Ridge regression with a scale for each part.

    Args:
        descriptions: (N, D), each column on a common scale.
        target: (N,) with mean 0.
        parts: Widths of the parts, D in all.
    """
    mean = descriptions.mean(0)
    x = (descriptions - mean) / np.repeat(np.sqrt(parts), parts)
    gram = x.T @ x
    scales = [1.0] * len(parts)
    best = _ridge(x, gram, target, parts, scales)
    for _ in range(SWEEPS):
        for part in range(len(parts)):
            for scale in SCALES:
                tried = [*scales[:part], scale, *scales[part + 1 :]]
                if scale != scales[part] and any(tried):
                    fit = _ridge(x, gram, target, parts, tried)
                    best = min(best, fit, key=lambda fit: fit.error)
            scales = list(best.scales)
    return replace(best, left_out=best.left_out + mean @ best.weight)


def _ridge(
    x: np.ndarray, gram: np.ndarray, target: np.ndarray, parts: Sequence[int], scales: Sequence[float]
) -> RidgeFit:
    """The best of PENALTIES by leave-one-out errors (Allen's PRESS), all from one decomposition."""
    scale = np.repeat(scales, parts)
    used = scale > 0
    scale = scale[used]
    values, vectors = np.linalg.eigh(scale[:, None] * gram[np.ix_(used, used)] * scale)
    kept = values > _RANK * values.max()
    values, vectors = values[kept], vectors[:, kept]
    projected = (x[:, used] * scale) @ vectors / np.sqrt(values)  # (N, rank), orthonormal columns
    coordinates = projected.T @ target
    best: tuple[float, np.ndarray, float] | None = None
    for penalty in PENALTIES * values.mean():
        shrink = values / (values + penalty)
        residual = target - projected @ (shrink * coordinates)
        missed = residual / (1 - (projected**2) @ shrink - 1 / len(target))  # the mean is fitted too
        error = float(np.mean(missed**2))
        if best is None or error < best[0]:
            best = error, target - missed, penalty
    assert best is not None  # there are penalties
    error, left_out, penalty = best
    weight = np.zeros(x.shape[1])
    weight[used] = scale * (vectors @ (np.sqrt(values) / (values + penalty) * coordinates))
    return RidgeFit(weight / np.repeat(np.sqrt(parts), parts), tuple(scales), left_out, error)


def normal_curves(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curves that give each column (N, D) the normal distribution: knots and heights, both (D, KNOTS)."""
    shares = (np.arange(KNOTS) + 0.5) / KNOTS
    knots = np.quantile(columns, shares, axis=0).T
    heights = np.stack([_tied_means(row, ndtri(shares)) for row in knots])
    return _apart(knots), heights


def matching_curve(sums: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rising curve that gives the sums the distribution of the scores: knots and heights, both (KNOTS,).

    Args:
        sums: (N,), of pictures that the weights do not know; else they would lie too far apart.
        scores: (N,) of the teacher, not all equal.
    """
    shares = np.linspace(0, 1, KNOTS)
    heights = np.quantile(scores, shares)  # where many are equal a little is added, for the order to stay
    return _apart(np.quantile(sums, shares)), heights + np.linspace(0, 1e-4 * np.ptp(heights), KNOTS)


def _tied_means(values: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Heights, but where neighbouring values are equal their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.bincount(place, heights) / count)[place]


def _apart(knots: np.ndarray) -> np.ndarray:
    """Ascending (..., K), moved apart where they are too near each other."""
    span = np.maximum(np.ptp(knots, axis=-1), 1e-2 * np.abs(knots).max(-1)) + 1e-4
    steps = _GAP * span[..., None] * np.arange(knots.shape[-1])
    return np.maximum.accumulate(knots - steps, axis=-1) + steps
