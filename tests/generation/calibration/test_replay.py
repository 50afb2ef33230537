"""What pruning would have kept and cost, against a plain loop over prompts and candidates."""

import itertools
import math

import numpy as np
import pytest

from ma_agiqa_core.generation.calibration.replay import (
    Measured,
    Schedule,
    bootstrap_mean,
    bootstrap_ratio,
    choose,
    keep_counts,
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


def test_the_choice_is_the_cheapest_that_suffices():
    m = measured(prompts=200)
    choice = choose(m, [0, 1, 2], 0.9)
    assert choice.share >= 0.9
    assert choice.share_held_out is not None
    assert choice.share_held_out >= 0.9
    assert choice.interval is not None
    assert choice.interval[0] < choice.share < choice.interval[1]
    assert choice.share == pytest.approx(m.gain(choice.schedule).sum() / m.full_gain.sum())
    assert choice.cost == pytest.approx(m.cost(choice.schedule))
    counts = range(1, 5)
    for stages in (1, 2, 3):
        for places in itertools.combinations(range(3), stages):
            for keeps in itertools.combinations(reversed(counts), stages):
                schedule = tuple(zip(places, keeps, strict=True))
                if m.cost(schedule) < choice.cost - 1e-9:
                    assert m.gain(schedule).sum() / m.full_gain.sum() < choice.share
    assert choose(m, [0, 1, 2], 0.99).cost > choice.cost
    assert all(place != 0 for place, _ in choose(m, [1, 2], 0.9).schedule)


def test_previews_that_foretell_all_are_used_at_the_first_chance():
    m = measured(noise=(0.0, 0.0))
    choice = choose(m, [0, 1], 1.0)
    assert choice.schedule == ((0, 1),)
    assert (choice.share, choice.share_held_out) == pytest.approx((1, 1))
    assert choice.cost == pytest.approx((5 * 2 + 8) / 50)


def test_noise_is_not_pruned_by():
    choice = choose(measured(noise=(1000.0, 1000.0)), [0, 1], 0.95)
    assert choice.schedule == ()
    assert (choice.share, choice.cost, choice.share_held_out) == (1, 1, 1)


def noise(prompts: int, n: int, seed: int) -> Measured:
    """Previews that say nothing of the final scores, at seven fractions."""
    random = np.random.default_rng(seed)
    final, previews = random.normal(size=(prompts, n)), random.normal(size=(prompts, 7, n))
    return Measured(previews, final, n * np.linspace(4.0, 16.0, 7), 20.0 * n)


@pytest.mark.parametrize(("prompts", "times"), [(1, 100), (2, 100), (5, 100), (9, 100), (10, 40), (20, 40)])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_nothing_is_recommended_for_noise(prompts, times, n):
    """The boldest of hundreds of schedules keeps everything somewhere, the more so the fewer prompts there are."""
    chosen = [choose(noise(prompts, n, seed), range(7), 0.9) for seed in range(times)]
    assert sum(bool(choice.schedule) for choice in chosen) <= (0 if prompts < 10 else 1)


@pytest.mark.parametrize(("prompts", "missing"), [(1, 9), (2, 8), (5, 5), (9, 1)])
def test_too_few_prompts_say_nothing_however_good_the_previews(prompts, missing):
    choice = choose(measured(prompts=prompts, noise=(0.0, 0.0)), [0, 1], 0.9)
    assert (choice.schedule, choice.missing, choice.lower_bound) == ((), missing, None)
    assert choose(measured(prompts=10, noise=(0.0, 0.0)), [0, 1], 0.9).schedule == ((0, 1),)


@pytest.mark.parametrize("same", ["previews", "final"])
def test_scores_that_are_all_equal_tell_nothing(same):
    m = measured(prompts=20, noise=(0.0,))
    constant = np.full_like(m.previews if same == "previews" else m.final[:10], 5.0)
    if same == "previews":
        assert choose(Measured(constant, m.final, m.evaluations, m.total), [0], 0.9).schedule == ()
        return
    half = Measured(m.previews, np.concatenate([constant, m.final[10:]]), m.evaluations, m.total)
    assert choose(half, [0], 0.9).schedule == ((0, 1),)


def test_what_is_promised_of_new_prompts_holds():
    """The lower bound of a choice on forty prompts is seldom above what new ones keep."""
    promised, kept = [], []
    for seed in range(30):
        m, fresh = measured(prompts=40, seed=seed), measured(prompts=1000, seed=1000 + seed)
        choice = choose(m, [0, 1, 2], 0.9)
        promised.append(choice.lower_bound or 0.0)
        kept.append(fresh.gain(choice.schedule).sum() / fresh.full_gain.sum())
    assert sum(low > 0 for low in promised) >= 20
    assert sum(low > share for low, share in zip(promised, kept, strict=True)) <= 6
    assert np.mean(np.array(kept) < 0.9) <= 0.1


def test_more_prompts_are_asked_for_where_they_would_do():
    choice = choose(measured(prompts=12, noise=(0.5,)), [0], 0.95)
    assert choice.schedule == ()
    assert choice.missing is not None
    assert choose(measured(prompts=12 + 2 * choice.missing, noise=(0.5,)), [0], 0.95).schedule != ()


def test_what_is_chosen_holds_for_new_prompts():
    """Chosen on twelve prompts: on average over many such choices, new prompts keep about what was promised."""
    promised, kept = [], []
    for seed in range(20):
        m, fresh = measured(prompts=12, seed=seed), measured(prompts=2000, seed=1000 + seed)
        choice = choose(m, [0, 1, 2], 0.9)
        promised.append(choice.share_held_out or math.nan)
        kept.append(fresh.gain(choice.schedule).sum() / fresh.full_gain.sum())
    assert np.mean(kept) > 0.87
    assert np.mean(promised) == pytest.approx(np.mean(kept), abs=0.06)


def test_one_prompt_has_no_interval():
    choice = choose(measured(prompts=1), [0, 1, 2], 0.5)
    assert choice.interval is None
    assert choice.share_held_out is None
    assert choice.share >= 0.5


def test_intervals():
    values = np.random.default_rng(0).normal(2, 1, 400)
    low, high = bootstrap_mean(values) or (0, 0)
    assert (low, high) == pytest.approx((values.mean() - 0.098, values.mean() + 0.098), abs=0.01)
    assert bootstrap_mean(values) == (low, high)
    assert bootstrap_ratio(2 * values, values) == pytest.approx((2, 2))
    assert bootstrap_mean(values[:1]) is None


@pytest.mark.parametrize(("n", "counts"), [(2, [1]), (8, [1, 2, 3, 4, 5, 6, 7]), (32, [1, 2, 3, 4, 7, 12, 19, 31])])
def test_keep_counts_stay_few(n, counts):
    assert keep_counts(n) == counts
