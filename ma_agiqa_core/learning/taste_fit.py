"""Fits a taste: logistic regression on marks, Bradley and Terry's model (1952) on pairs, least squares on ratings.

All three see one function of a picture, `f = prior + columns . coefficients`: a picture is liked with the odds
exp(intercept + f), one picture beats another with the odds exp(f - f'), and a rating is intercept' + f with noise. The
coefficients have a ridge penalty and the prior none, so that with few picks f is the prior. Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .evidence import Evidence

RATING_SCALE = 2.0  # log odds that one deviation of ratings is worth
RATING_NOISE = 3.0  # variance of what is left of a rating, in log odds squared
_STEPS, _TOLERANCE = 40, 1e-7


@dataclass(frozen=True)
class Fit:
    """Coefficients that were fitted.

    Attributes:
        weight: (K,) of the columns.
        mark_intercept: Log odds that a picture with f = 0 is liked.
        rating_intercept: What a picture with f = 0 is rated, in log odds.
    """

    weight: np.ndarray
    mark_intercept: float
    rating_intercept: float

    def value(self, columns: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """f of pictures (N, K), whose prior is (N,): (N,)."""
        return prior + columns @ self.weight


def fit_taste(
    columns: np.ndarray, prior: np.ndarray, evidence: Evidence, penalty: float, start: Fit | None = None
) -> Fit:
    """Fits coefficients.

    Args:
        columns: (N, K) of all pictures.
        prior: (N,).
        evidence: On some of them.
        penalty: Of half the coefficients' sum of squares, above 0.
        start: A fit with another penalty to begin from.
    """
    rows, offset, K = *_rows(columns, prior, evidence), columns.shape[1]
    M, P = len(evidence.marked), len(evidence.better)
    weights = np.concatenate([evidence.mark_weight, evidence.pair_weight, evidence.rating_weight / RATING_NOISE])
    target = np.concatenate([evidence.liked, np.ones(P), RATING_SCALE * evidence.rating])
    ridge = np.full(K + 2, penalty)
    ridge[K:] = 1e-6  # intercepts are free; where there is nothing of their kind they stay 0
    theta = np.zeros(K + 2)
    if start is not None:
        theta = np.concatenate([start.weight, [start.mark_intercept, start.rating_intercept]])

    def loss(at: np.ndarray) -> float:
        eta = offset + rows @ at
        odds, rest = eta[: M + P], eta[M + P :]
        likelihood = np.logaddexp(0, odds) - target[: M + P] * odds
        squares = (rest - target[M + P :]) ** 2 / 2
        return float(weights @ np.concatenate([likelihood, squares]) + ridge @ at**2 / 2)

    now = loss(theta)
    for _ in range(_STEPS):
        eta = offset + rows @ theta
        chance = 1 / (1 + np.exp(-np.clip(eta[: M + P], -40, 40)))
        expected = np.concatenate([chance, eta[M + P :]])
        curvature = weights * np.concatenate([chance * (1 - chance), np.ones(len(eta) - M - P)])
        gradient = rows.T @ (weights * (expected - target)) + ridge * theta
        step = np.linalg.solve((rows.T * curvature) @ rows + np.diag(ridge), gradient)
        size = 1.0
        while (tried := loss(theta - size * step)) > now + 1e-12 and size > 1e-4:
            size /= 2
        theta = theta - size * step
        if now - tried < _TOLERANCE * (1 + abs(now)):
            break
        now = tried
    return Fit(theta[:K], float(theta[K]), float(theta[K + 1]))


def held_out_loss(fit: Fit, columns: np.ndarray, prior: np.ndarray, evidence: Evidence) -> float:
    """How badly a fit foretells other evidence: the sum of minus log likelihoods, ratings in units of their noise."""
    f = fit.value(columns, prior)
    marks = fit.mark_intercept + f[evidence.marked]
    pairs = f[evidence.better] - f[evidence.worse]
    rest = fit.rating_intercept + f[evidence.rated] - RATING_SCALE * evidence.rating
    return float(
        evidence.mark_weight @ (np.logaddexp(0, marks) - evidence.liked * marks)
        + evidence.pair_weight @ np.logaddexp(0, -pairs)
        + evidence.rating_weight @ (rest**2 / (2 * RATING_NOISE))
    )


def _rows(columns: np.ndarray, prior: np.ndarray, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all observations with the columns of both intercepts (M + P + R, K + 2), and their offsets."""
    M, P, R = len(evidence.marked), len(evidence.better), len(evidence.rated)
    rows = np.zeros((M + P + R, columns.shape[1] + 2))
    rows[:M, :-2], rows[:M, -2] = columns[evidence.marked], 1
    rows[M : M + P, :-2] = columns[evidence.better] - columns[evidence.worse]
    rows[M + P :, :-2], rows[M + P :, -1] = columns[evidence.rated], 1
    offset = np.concatenate(
        [prior[evidence.marked], prior[evidence.better] - prior[evidence.worse], prior[evidence.rated]]
    )
    return rows, offset
