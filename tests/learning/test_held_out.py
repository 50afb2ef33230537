"""Folds part no group, and what is chosen fits the picks."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from ma_agiqa_core.learning.columns import make_columns, scalings, standard_of
from ma_agiqa_core.learning.comparison import Comparisons
from ma_agiqa_core.learning.evidence import Evidence
from ma_agiqa_core.learning.held_out import allowed_penalties, fit_choice, make_folds, try_out

PARTS = {"texture": 20, "colour": 6}
D = sum(PARTS.values())


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, D))


def marks(likes: np.ndarray) -> Evidence:
    return Evidence(np.arange(len(likes)), likes.astype(float), np.ones(len(likes)))


def values_elsewhere(
    x: np.ndarray, prior: np.ndarray, evidence: Evidence, new: np.ndarray, new_prior: np.ndarray
) -> np.ndarray:
    tried = try_out(x, prior, PARTS, evidence, np.arange(len(x)))
    columns, fit = fit_choice(x, prior, PARTS, evidence, tried.choice)
    return new @ columns.feature_weight(fit.weight) + new_prior * columns.prior_weight(fit.weight, True)


def test_no_group_is_in_two_folds_and_folds_are_even():
    groups = np.repeat(np.arange(20), 3)
    folds = make_folds(groups, 5, seed=0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(20))
    assert np.bincount(folds).tolist() == [12] * 5


def test_five_random_picks_hardly_move_the_ranking():
    new, new_prior = pictures(300, 1), np.random.default_rng(2).standard_normal(300)
    for seed in range(10):
        x, random = pictures(5, seed + 10), np.random.default_rng(seed)
        likes = np.array([0, 1, *random.integers(0, 2, 3)])
        found = values_elsewhere(x, random.standard_normal(5), marks(likes), new, new_prior)
        assert spearmanr(found, new_prior).statistic > 0.95


def test_two_hundred_picks_against_the_prior_turn_it_round():
    x, prior = pictures(200), np.random.default_rng(1).standard_normal(200)
    new, new_prior = pictures(300, 1), np.random.default_rng(2).standard_normal(300)
    found = values_elsewhere(x, prior, marks(prior < 0), new, new_prior)
    assert spearmanr(found, new_prior).statistic < -0.9


def test_a_taste_is_learned_and_the_folds_say_so():
    x, random = pictures(80), np.random.default_rng(3)
    likes = x[:, 22] + 0.3 * random.standard_normal(80) > 0
    tried = try_out(x, np.zeros(80), PARTS, marks(likes), np.arange(80))
    assert tried.values is not None
    assert tried.choice.scaling["colour"] > tried.choice.scaling["texture"]
    comparisons = Comparisons(marks(likes), tried.folds, np.arange(80))
    share = comparisons.share(tried.values)
    assert share.value is not None
    assert share.value > 0.85
    assert share.low is not None
    assert share.high is not None
    assert 0.5 < share.low < share.value < share.high <= 1


def test_random_picks_are_not_said_to_be_learned():
    x, random = pictures(80), np.random.default_rng(3)
    evidence = marks(random.random(80) < 0.5)
    tried = try_out(x, np.zeros(80), PARTS, evidence, np.arange(80))
    assert tried.values is not None
    share = Comparisons(evidence, tried.folds, np.arange(80)).share(tried.values)
    assert share.low is not None
    assert share.high is not None
    assert share.low < 0.5 < share.high + 0.1


def test_few_picks_hold_nothing_out():
    tried = try_out(pictures(6), np.zeros(6), PARTS, marks(np.array([0, 1, 0, 1, 0, 1])), np.arange(6))
    assert tried.values is None


def test_more_picks_allow_weaker_penalties():
    least = [allowed_penalties(count)[-1] for count in (1, 5, 10, 20, 60, 500)]
    assert least == sorted(least, reverse=True)
    assert least[1] >= 8
    assert least[-1] < 0.01


def test_columns_keep_what_the_scaled_features_say_of_each_other():
    x, prior = pictures(12), np.random.default_rng(0).standard_normal(12)
    scaling = scalings(PARTS)[1]
    columns = make_columns(x, prior, PARTS, scaling)
    scale = np.concatenate([np.full(20, 1 / np.sqrt(20)), np.full(6, 0.25 / np.sqrt(6))]) / np.hypot(1, 0.25)
    assert np.allclose(columns.values[:, :-1] @ columns.values[:, :-1].T, (x * scale) @ (x * scale).T)
    assert np.allclose(columns.values[:, :-1], x @ columns.basis)


def test_one_scale_for_all_columns_where_they_have_one():
    x = pictures(50) * np.linspace(1, 3, D)
    assert np.ptp(standard_of(x, True).deviation) == 0
    assert np.allclose(standard_of(x, False).apply(x).std(0), 1, atol=0.05)


def test_pairs_and_ratings_are_compared_too():
    evidence = Evidence(
        better=np.array([0, 2]),
        worse=np.array([1, 3]),
        pair_weight=np.ones(2),
        rated=np.array([4, 5, 6]),
        rating=np.array([1.0, 0.0, -1.0]),
        rating_weight=np.ones(3),
    )
    comparisons = Comparisons(evidence, np.zeros(7, int), np.arange(7))
    assert len(comparisons) == 5
    right = np.array([1.0, 0, 0, 1, 3, 2, 1])
    assert comparisons.share(right).value == pytest.approx(4 / 5)
    assert comparisons.share(np.zeros(7)).value == pytest.approx(1 / 2)
