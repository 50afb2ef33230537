"""What pruning would have kept and cost, against a plain loop over prompts and candidates."""

import numpy as np
import pytest

from ma_agiqa_core.generation.calibration.replay import (
    Measured,
    Schedule,
    bootstrap_mean,
    bootstrap_ratio,
)


def measured(prompts: int = 30, n: int = 5, noise: tuple[float, ...] = (3.0, 1.0, 0.3), seed: int = 0) -> Measured:
    """Previews that tell more and more of the final score; 10 network evaluations a candidate."""
    random = np.random.default_rng(seed)
    final = random.normal(5, 1, (prompts, n))
    previews = np.stack([final + random.normal(0, spread, final.shape) for spread in noise], axis=1)
    return Measured(previews, final, n * np.linspace(2.0, 8.0, len(noise)), 10.0 * n)


def pruned_by_hand(m: Measured, prompt: int, schedule: Schedule) -> list[int]:
    rows = list(range(m.final.shape[1]))
    for fraction, keep in schedule:
        rows = sorted(sorted(rows, key=lambda row: (-m.previews[prompt, fraction, row], row))[:keep])
    return rows


@pytest.mark.parametrize("schedule", [(), ((0, 1),), ((1, 3),), ((0, 4), (1, 2)), ((0, 3), (1, 2), (2, 1))])
def test_survivors_gain_and_cost_are_those_of_a_plain_loop(schedule):
    m = measured()
    alive, gain = m.survivors(schedule), m.gain(schedule)
    for prompt in range(30):
        rows = pruned_by_hand(m, prompt, schedule)
        assert np.flatnonzero(alive[prompt]).tolist() == rows
        assert gain[prompt] == pytest.approx(m.final[prompt, rows].max() - m.final[prompt].mean())
    spent, rows_left, before = 0.0, 5, 0.0
    for fraction, keep in schedule:
        spent += rows_left * (m.evaluations[fraction] - before) / 5
        rows_left, before = keep, m.evaluations[fraction]
    spent += rows_left * (50 - before) / 5
    assert m.cost(schedule) == pytest.approx(spent / 50)


def test_of_equal_scores_the_first_goes_on():
    m = Measured(np.zeros((1, 1, 4)), np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([4.0]), 8.0)
    assert m.survivors(((0, 2),)).tolist() == [[True, True, False, False]]


def test_intervals():
    values = np.random.default_rng(0).normal(2, 1, 400)
    low, high = bootstrap_mean(values) or (0, 0)
    assert (low, high) == pytest.approx((values.mean() - 0.098, values.mean() + 0.098), abs=0.01)
    assert bootstrap_mean(values) == (low, high)
    assert bootstrap_ratio(2 * values, values) == pytest.approx((2, 2))
    assert bootstrap_mean(values[:1]) is None
