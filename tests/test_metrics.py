"""The four figures against scipy.stats and scipy.optimize.curve_fit."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from ma_agiqa_core.metrics import Logistic, fit_logistic, krcc, plcc, rmse, srcc

METRICS: list[Callable[..., float]] = [srcc, plcc, krcc, rmse]


def pairs(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, and labels that follow them along an S with noise; a third of both are tied."""
    random = np.random.default_rng(seed)
    predictions = random.normal(0, 2, count)
    labels = 5 / (1 + np.exp(-predictions)) + random.normal(0, 0.4, count)
    return np.where(random.random(count) < 0.3, predictions.round(), predictions), labels.round(1)


def published_logistic(x: np.ndarray, top: float, bottom: float, middle: float, width: float) -> np.ndarray:
    return bottom + (top - bottom) / (1 + np.exp(-(x - middle) / abs(width)))


def published_fit(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    start = [labels.max(), labels.min(), predictions.mean(), 0.5]
    best, _ = scipy.optimize.curve_fit(published_logistic, predictions, labels, start, maxfev=100_000)
    return published_logistic(predictions, *best)


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed: int) -> None:
    predictions, labels = pairs(seed)
    assert srcc(predictions, labels) == pytest.approx(scipy.stats.spearmanr(predictions, labels).statistic)
    assert plcc(predictions, labels) == pytest.approx(scipy.stats.pearsonr(predictions, labels).statistic)
    assert krcc(predictions, labels) == pytest.approx(scipy.stats.kendalltau(predictions, labels).statistic)
    assert rmse(predictions, labels) == pytest.approx(((predictions - labels) ** 2).mean() ** 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_after_the_fit_against_scipy(seed: int) -> None:
    predictions, labels = pairs(seed)
    mapped = published_fit(predictions, labels)
    expected = scipy.stats.pearsonr(mapped, labels).statistic
    assert plcc(predictions, labels, fit=True) == pytest.approx(expected, abs=1e-6)
    assert rmse(predictions, labels, fit=True) == pytest.approx(((mapped - labels) ** 2).mean() ** 0.5)
    assert plcc(predictions, labels, fit=True) > plcc(predictions, labels)


def test_the_fit_finds_the_curve_behind_the_labels() -> None:
    predictions = np.linspace(-4, 6, 50)
    curve = fit_logistic(predictions, Logistic(top=80, bottom=20, middle=1.5, width=0.7)(predictions))
    np.testing.assert_allclose([curve.top, curve.bottom, curve.middle, abs(curve.width)], [80, 20, 1.5, 0.7], rtol=1e-5)


def test_by_hand() -> None:
    predictions, labels = [1, 2, 3, 4], [10, 30, 20, 40]
    assert srcc(predictions, labels) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert krcc(predictions, labels) == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert plcc(predictions, labels) == pytest.approx(0.8)
    assert rmse([1, 2], [1, 6]) == pytest.approx(8**0.5)


def test_containers_give_the_same() -> None:
    predictions, labels = pairs(0)
    for metric in METRICS:
        expected = metric(predictions, labels)
        assert metric(predictions.tolist(), tuple(labels)) == expected
        assert metric(torch.from_numpy(predictions), torch.from_numpy(labels)) == expected
        assert type(expected) is float


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, lambda x, y: plcc(x, y, fit=True)])
def test_constants_have_no_correlation_and_no_warning(metric: Callable[[Any, Any], float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metric([0.1] * 5, [1, 2, 3, 4, 5]))
        assert np.isnan(metric([1, 2, 3, 4, 5], [0.1] * 5))
        assert rmse([0.1] * 5, [1, 2, 3, 4, 5], fit=True) == pytest.approx(2**0.5)


def test_perfect_correlation_stays_in_range() -> None:
    values = np.random.default_rng(0).random(1000) * 1e-9
    for labels in (values, 3e12 * values + 7, -values):
        assert abs(plcc(values, labels)) == pytest.approx(1, abs=1e-12)
        assert abs(plcc(values, labels)) <= 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([1, 2, 3], [1, 2], r"shapes \(3,\) and \(2,\)"),
        ([1], [1], r"2 or more, got shapes \(1,\)"),
        ([], [], r"\(0,\)"),
        ([[1, 2]], [[1, 2]], r"\(1, 2\)"),
        ([1, float("nan")], [1, 2], "finite predictions, got nan at 1"),
        ([1, 2], [float("inf"), 2], "finite labels, got inf at 0"),
    ],
)
def test_impossible_input(metric: Callable[..., float], predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(predictions, labels)


@pytest.mark.parametrize("n", [4, 5, 9, 10, 40])
def test_scores_that_go_the_wrong_way_agree_in_no_figure(n: int) -> None:
    random = np.random.default_rng(n)
    labels = random.permutation(n) + random.random(n) / 2
    predictions = np.log1p(n + 1 - labels)
    assert plcc(predictions, labels, fit=True) < -0.9
    assert rmse(predictions, labels, fit=True) == pytest.approx(labels.std())
    assert rmse(-predictions, labels, fit=True) < 0.3 * labels.std()


def test_few_pictures_have_a_straight_line() -> None:
    predictions, labels = [4.0, 1, 3, 2, 7], [1.0, 2, 4, 5, 6]
    assert plcc(predictions, labels, fit=True) == plcc(predictions, labels)
    line = np.poly1d(np.polyfit(predictions, labels, 1))
    assert rmse(predictions, labels, fit=True) == pytest.approx(rmse(line(predictions), labels))
    random = np.random.default_rng(0)
    noise = [plcc(random.random(n), random.random(n), fit=True) for n in (4, 6, 8, 10, 12) for _ in range(40)]
    assert abs(np.mean(noise)) < 0.1, "no agreement in noise, on average"


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4, 1e6])
def test_the_scale_of_the_predictions_does_not_matter(scale: float) -> None:
    predictions, labels = pairs(1)
    assert plcc(scale * predictions, labels, fit=True) == pytest.approx(plcc(predictions, labels, fit=True), abs=1e-4)
    curve = fit_logistic(-scale * predictions, labels)
    assert not curve.rises
    assert plcc(-scale * predictions, labels, fit=True) < -0.9


def test_too_few_pairs_for_a_fit() -> None:
    with pytest.raises(ValueError, match=r"at least 4 pairs .*, got 3"):
        rmse([1, 2, 3], [1, 2, 3], fit=True)
