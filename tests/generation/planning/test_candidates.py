"""The ways to prune: what is said of each is what replaying it on the same scores gives."""

import numpy as np
import pytest

from ma_agiqa_core.generation.planning.candidates import KINDS, frontiers, keep_counts, thinned
from ma_agiqa_core.generation.planning.model import ScoreModel
from ma_agiqa_core.generation.planning.replay import full_gain, replay

FRACTIONS = np.array([0.2, 0.5, 0.8])


def scores(prompts: int = 40, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    finals = random.normal(5, 1, (prompts, n))
    return np.stack([finals + random.normal(0, noise, finals.shape) for noise in (2, 1, 0.3)], axis=1), finals


def test_the_model_has_the_correlations_and_spreads_of_the_scores():
    previews, finals = scores(4000)
    model = ScoreModel.of(previews, finals)
    noise = np.array([2, 1, 0.3])
    assert model.correlations == pytest.approx(1 / np.sqrt(1 + noise**2), abs=0.02)
    # the regression of final on preview has the slope 1 / (1 + noise**2) and the residual noise / sqrt(1 + noise**2)
    assert model.spreads == pytest.approx(noise * np.sqrt(1 + noise**2), rel=0.05)
    drawn_previews, drawn_finals = model.draw(np.random.default_rng(1).standard_normal((4000, 4, 6)))
    assert ScoreModel.of(drawn_previews, drawn_finals).covariance == pytest.approx(model.covariance, rel=0.1)


def test_previews_that_fall_or_stand_still_have_no_spread():
    _, finals = scores()
    model = ScoreModel.of(np.stack([-finals, np.zeros_like(finals)], axis=1), finals)
    assert model.spreads.tolist() == [np.inf, np.inf]
    assert model.correlations == pytest.approx([-1, 0])


@pytest.mark.parametrize("preview_cost", [0.0, 0.05])
def test_losses_and_costs_are_those_of_replaying(preview_cost):
    model = ScoreModel.of(*scores())
    deviates = np.random.default_rng(2).standard_normal((50, 4, 6))
    previews, finals = model.draw(deviates)
    found = frontiers(model, [0, 1, 2], FRACTIONS, deviates, preview_cost)
    assert tuple(found) == KINDS
    for front in found.values():
        assert len(front.rules) > 3
        assert (np.diff(front.losses) > 0).all()
        assert (np.diff(front.costs) < 0).all()
        for rule, loss, cost in zip(front.rules, front.losses, front.costs, strict=True):
            gain, spent = replay(rule, previews, finals, FRACTIONS, preview_cost)
            assert loss == pytest.approx(1 - gain.sum() / full_gain(finals).sum())
            assert cost == pytest.approx(spent.mean())
        assert front.losses[front.cheapest(0.0)] == 0
        at = front.cheapest(0.1)
        assert front.losses[at] <= 0.1 < front.losses[at + 1]


@pytest.mark.parametrize(("n", "counts"), [(2, [1]), (8, [1, 2, 3, 4, 5, 6, 7]), (32, [1, 2, 3, 4, 7, 12, 19, 31])])
def test_keep_counts_stay_few(n, counts):
    assert keep_counts(n) == counts


def test_many_fractions_are_thinned_evenly():
    assert thinned([1, 2, 5]) == [1, 2, 5]
    assert thinned(list(range(19))) == [0, 3, 5, 8, 10, 13, 15, 18]
