"""The fit against what other solvers give."""

import numpy as np
import pytest
from scipy import optimize

from ma_agiqa_core.learning.evidence import Evidence
from ma_agiqa_core.learning.taste_fit import RATING_NOISE, RATING_SCALE, Fit, fit_taste, held_out_loss

N, K = 30, 4


@pytest.fixture
def columns() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, K))


@pytest.fixture
def prior() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(N)


def evidence_of_all_kinds() -> Evidence:
    random = np.random.default_rng(2)
    return Evidence(
        np.arange(12),
        (random.random(12) < 0.5).astype(float),
        random.uniform(0.3, 1, 12),
        random.integers(0, 15, 9),
        random.integers(15, 30, 9),
        random.uniform(0.3, 1, 9),
        np.arange(10, 22),
        random.standard_normal(12),
        random.uniform(0.3, 1, 12),
    )


def written_out(theta: np.ndarray, columns: np.ndarray, prior: np.ndarray, evidence: Evidence, penalty: float) -> float:
    """The penalised loss, pick by pick."""
    fit = Fit(theta[:K], theta[K], theta[K + 1])
    return held_out_loss(fit, columns, prior, evidence) + penalty / 2 * float(theta[:K] @ theta[:K])


def test_it_is_the_minimum_that_scipy_finds(columns, prior):
    evidence = evidence_of_all_kinds()
    fit = fit_taste(columns, prior, evidence, 0.7)
    found = optimize.minimize(
        written_out, np.zeros(K + 2), (columns, prior, evidence, 0.7), method="BFGS", options={"gtol": 1e-8}
    )
    ours = np.concatenate([fit.weight, [fit.mark_intercept, fit.rating_intercept]])
    assert np.allclose(ours, found.x, atol=2e-4)


def test_the_loss_is_of_the_odds_that_the_docstring_names():
    evidence = Evidence(
        np.array([0]), np.array([1.0]), np.ones(1), np.array([0]), np.array([1]), np.ones(1), np.array([1]),
        np.array([0.5]), np.ones(1),
    )  # fmt: skip
    values = np.array([0.4, -0.3])
    fit = Fit(np.ones(1), 0.2, -0.1)
    loss = held_out_loss(fit, values[:, None], np.zeros(2), evidence)
    liked, beats = 1 / (1 + np.exp(-0.6)), np.exp(0.4) / (np.exp(0.4) + np.exp(-0.3))
    rating = (-0.1 - 0.3 - RATING_SCALE * 0.5) ** 2 / (2 * RATING_NOISE)
    assert loss == pytest.approx(-np.log(liked) - np.log(beats) + rating)


def test_a_strong_penalty_leaves_the_prior(columns, prior):
    fit = fit_taste(columns, prior, evidence_of_all_kinds(), 1e6)
    assert np.allclose(fit.value(columns, prior), prior, atol=1e-3)


def test_ratings_alone_are_ridge_regression(columns, prior):
    ratings = np.random.default_rng(3).standard_normal(N)
    evidence = Evidence(rated=np.arange(N), rating=ratings, rating_weight=np.ones(N))
    fit = fit_taste(columns, prior, evidence, 0.5)
    target = RATING_SCALE * ratings - prior
    x, y = columns - columns.mean(0), target - target.mean()
    expected = np.linalg.solve(x.T @ x + 0.5 * RATING_NOISE * np.eye(K), x.T @ y)
    assert np.allclose(fit.weight, expected, atol=1e-5)


def test_separable_picks_end(columns):
    evidence = Evidence(np.arange(N), (columns[:, 0] > 0).astype(float), np.ones(N))
    fit = fit_taste(columns, np.zeros(N), evidence, 1e-3)
    assert ((fit.value(columns, np.zeros(N)) + fit.mark_intercept > 0) == (columns[:, 0] > 0)).all()
    assert np.isfinite(fit.weight).all()
