"""The watcher's share of its own gain: by hand, and its interval on draws whose truth is known."""

import math

import numpy as np
import pytest

from ma_agiqa_core import CallableScorer, MaAgiqaError
from ma_agiqa_core.scorers.watching import all_of, as_observers, watched


def draws(prompts: int, n: int, correlation: float, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    chooser = random.normal(size=(prompts, n))
    own = random.normal(size=(prompts, n))
    return list(zip(chooser, correlation * chooser + math.sqrt(1 - correlation**2) * own, strict=True))


def test_share_by_hand() -> None:
    watch = watched("a", "b", [([1, 2, 3], [10, 40, 20]), ([5, 4, 3], [3, 0, 3])])
    assert watch.gain == pytest.approx(((20 - 70 / 3) + (3 - 2)) / 2)
    assert watch.own_gain == pytest.approx(((40 - 70 / 3) + 1) / 2)
    assert watch.share == pytest.approx(watch.gain / watch.own_gain)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 1.0])
def test_a_share_is_the_correlation_of_normal_scores(correlation: float) -> None:
    watch = watched("a", "b", draws(400, 8, correlation))
    assert watch.share == pytest.approx(correlation, abs=0.08)
    assert watch.interval is not None
    low, high = watch.interval
    assert low <= watch.share <= high
    assert watch.costs == (correlation < 0)
    assert ("Warning: choosing by a costs b" in str(watch)) == (correlation < 0)


def test_intervals_cover_the_truth() -> None:
    covered = 0
    for seed in range(100):
        interval = watched("a", "b", draws(40, 8, 0.5, seed)).interval
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered >= 85  # of 95 promised; a bootstrap of 40 prompts is a little too narrow


def test_one_prompt_has_an_interval_too() -> None:
    (chooser, _), *_ = draws(1, 16, 1.0)
    against = watched("a", "b", [(chooser, -chooser)])
    assert against.interval is not None
    assert against.interval[0] <= against.share <= against.interval[1] < 0
    assert against.costs


def test_what_has_no_share() -> None:
    flat = watched("a", "b", [([1, 2], [5, 5])])
    assert math.isnan(flat.share)
    assert "gives all pictures of a prompt the same score" in str(flat)
    assert not flat.costs
    nothing = watched("a", "b", [([1], [5]), ([1, float("nan")], [1, 2])])
    assert math.isnan(nothing.share)
    assert nothing.groups == ()


def test_several_become_one() -> None:
    groups = draws(6, 4, 0.3)
    assert all_of([watched("a", "b", [group]) for group in groups]) == watched("a", "b", groups)


def test_observers_as_they_may_be_given() -> None:
    one = CallableScorer(lambda images, prompts: [0.0] * len(images), name="one")
    assert as_observers(None) == ()
    assert as_observers(one) == (one,)
    assert as_observers([one, one]) == (one, one)
    for wrong in ("lite", [one, "lite"], 3):
        with pytest.raises(MaAgiqaError, match=r"Expected observe with \.info and \.score, got"):
            as_observers(wrong)
