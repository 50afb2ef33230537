"""What scorers say about themselves."""

from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core.scorers.callable import CallableScorer
from ma_agiqa_core.scorers.scorer import Scorer, ScorerInfo


def info(**changes: Any) -> ScorerInfo:
    return ScorerInfo(**{"name": "x", "revision": "1", "low": 0, "high": 5, "trained_on": "toys", **changes})


def test_percentile_is_linear_between_the_quantiles() -> None:
    quantiles = np.cumsum(np.random.default_rng(0).random(101) + 1e-3)
    scorer_info = info(quantiles=tuple(quantiles))
    for score in [*np.linspace(-1, 60, 300), *quantiles, -np.inf, np.inf]:
        expected = np.interp(score, quantiles, np.arange(101))
        assert scorer_info.percentile(score) == pytest.approx(expected, abs=1e-9)


def test_percentile_of_a_score_that_many_pictures_share_is_their_middle() -> None:
    shared = info(quantiles=(0, 1, 1, 1, 2))
    assert [shared.percentile(score) for score in (0, 0.5, 1, 1.5, 2)] == [0, 12.5, 50, 87.5, 100]


@pytest.mark.parametrize("score", [torch.tensor(0.25), np.float32(0.25)])
def test_percentile_of_a_tensor_or_numpy_number_is_a_float(score: Any) -> None:
    percentile = info(quantiles=(0, 1)).percentile(score)
    assert (type(percentile), percentile) == (float, 25)


def test_no_percentile_without_quantiles_or_score() -> None:
    assert info().percentile(3) is None
    assert info(quantiles=(0, 1)).percentile(float("nan")) is None


def test_no_percentile_of_a_relative_scorer() -> None:
    with pytest.raises(ValueError, match="for percentiles, got x, whose scores only compare the pictures of one call"):
        info(relative=True, quantiles=(0, 1)).percentile(1)


def test_a_scale_is_required_of_relative_scorers_only() -> None:
    info().require_scale("for min_score 3")
    with pytest.raises(ValueError, match=r"for min_score 3, got x, .* Use top_k\."):
        info(relative=True).require_scale("for min_score 3", "Use top_k.")


@pytest.mark.parametrize("quantiles", [(1,), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_impossible_quantiles_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascending finite quantiles"):
        info(quantiles=quantiles)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high, got 5 and 5"):
        info(low=5)


def test_protocol_needs_no_base_class() -> None:
    assert isinstance(CallableScorer(lambda images, prompts: [], name="x"), Scorer)
    assert not isinstance(info(), Scorer)
