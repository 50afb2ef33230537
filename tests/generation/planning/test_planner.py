"""Plans from made-up scores: what is promised holds, and where nothing can be planned, nothing is."""

from typing import Any

import numpy as np
import pytest

from ma_agiqa_core.generation import plan_pruning
from ma_agiqa_core.generation.planning.replay import full_gain

FRACTIONS = (0.2, 0.5, 0.8)


def scores(
    prompts: int = 30, n: int = 5, noise: tuple[float, ...] = (3.0, 1.0, 0.3), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Previews that tell more and more of the final score."""
    random = np.random.default_rng(seed)
    finals = random.normal(5, 1, (prompts, n))
    return np.stack([finals + random.normal(0, spread, finals.shape) for spread in noise], axis=1), finals


def share(plan: Any, previews: np.ndarray, finals: np.ndarray) -> float:
    return plan.apply(previews, finals)[0].sum() / full_gain(finals).sum()


def test_what_is_promised_of_new_prompts_holds():
    fresh = scores(prompts=1000, seed=1000)
    plans = [plan_pruning(*scores(prompts=20, seed=seed), FRACTIONS) for seed in range(8)]
    kept = np.array([share(plan, *fresh) for plan in plans])
    promised = np.array([plan.promised_share for plan in plans], dtype=float)
    assert (promised <= kept).mean() >= 0.75
    assert (promised >= 0.8).all()
    assert kept.mean() >= 0.9
    assert all(plan.cost == pytest.approx(plan.apply(*fresh)[1].mean(), abs=0.08) for plan in plans)
    assert np.mean([plan.cost for plan in plans]) < 0.75


def test_a_higher_target_costs_more():
    plans = [plan_pruning(*scores(), FRACTIONS, target_share=target) for target in (0.5, 0.9, 0.98)]
    assert plans[0].cost < plans[1].cost < plans[2].cost


def test_previews_that_foretell_all_are_used_at_the_first_chance():
    previews, finals = scores(noise=(0.0, 0.0))
    plan = plan_pruning(previews, finals, (0.2, 0.5))
    assert (plan.prune_at, plan.margin) == ({0.2: 1}, {})
    assert plan.cost == pytest.approx((5 * 0.2 + 0.8) / 5)
    assert share(plan, previews, finals) == 1


@pytest.mark.parametrize(("prompts", "times"), [(1, 20), (9, 20), (10, 20), (20, 20)])
@pytest.mark.parametrize("n", [2, 8])
def test_noise_is_not_pruned_by(prompts, times, n):
    plans = []
    for seed in range(times):
        random = np.random.default_rng(seed)
        finals, previews = random.normal(size=(prompts, n)), random.normal(size=(prompts, 7, n))
        plans.append(plan_pruning(previews, finals, np.linspace(0.2, 0.8, 7)))
    assert sum(bool(plan.rule) for plan in plans) <= (0 if prompts < 10 else 1)
    for plan in plans:
        if not plan.rule:
            assert (plan.prune_at, plan.margin, plan.cost, plan.promised_share) == ({}, {}, 1.0, None)
            assert plan.missing_prompts >= 1
            assert f"{plan.missing_prompts} more" in plan.reason


@pytest.mark.parametrize(("prompts", "missing"), [(1, 9), (2, 8), (9, 1)])
def test_too_few_prompts_say_nothing_however_good_the_previews(prompts, missing):
    plan = plan_pruning(*scores(prompts=prompts, noise=(0.0, 0.0, 0.0)), FRACTIONS)
    assert (plan.rule, plan.missing_prompts, plan.promised_share) == ((), missing, None)


def test_scores_that_are_all_equal():
    previews, finals = scores(noise=(0.0,))
    assert plan_pruning(np.zeros_like(previews), finals, [0.2]).prune_at == {}
    assert "score alike" in plan_pruning(previews, np.zeros_like(finals), [0.2]).reason
    half = finals * (np.arange(len(finals)) < 15)[:, None]
    assert plan_pruning(half[:, None], half, [0.2]).prune_at == {0.2: 1}


def test_previews_that_cost_more_than_they_save_are_refused_with_the_arithmetic():
    previews, finals = scores(prompts=40)
    cheap = plan_pruning(previews, finals, FRACTIONS, preview_cost=0.01)
    assert plan_pruning(previews, finals, FRACTIONS).cost < cheap.cost < 1
    gain, cost = cheap.apply(previews, finals)
    assert (cheap.evaluations(previews, finals)[0] == gain).all()
    assert (cheap.evaluations(previews, finals)[1] < cost).all()
    dear = plan_pruning(previews, finals, FRACTIONS, preview_cost=0.6)
    assert dear.rule == ()
    assert dear.cost == 1
    assert "each as long as 0.6 of a picture" in dear.reason
    assert "cost more than they save" in dear.reason


def test_a_budget_is_spent_to_the_last_evaluation_and_not_beyond():
    previews, finals = scores(prompts=40, n=8)
    plan = plan_pruning(previews, finals, FRACTIONS)
    rich = plan.for_budget(8)
    assert rich.n > 8
    assert rich.growth > 1
    assert 7.5 < rich.n * rich.cost <= 8 + 1e-9
    new_previews, new_finals = scores(prompts=4000, n=rich.n, seed=5)
    gain, cost = rich.apply(new_previews, new_finals)
    assert cost == pytest.approx(rich.cost)
    assert gain.mean() / full_gain(new_finals[:, :8]).mean() > 1.02
    noise = plan_pruning(np.random.default_rng(0).normal(size=previews.shape), finals, FRACTIONS).for_budget(8)
    assert (noise.n, noise.prune_at, noise.growth) == (8, {}, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"previews": np.zeros((3, 8))}, r"previews \(P, F, n\)"),
        ({"finals": np.zeros((30, 4))}, r"finals \(30, 5\) and 3 fractions"),
        ({"fractions": (0.2, 0.5)}, "and 2"),
        ({"fractions": (0.5, 0.2, 0.8)}, "ascend"),
        ({"fractions": (0.0, 0.2, 0.8)}, "ascend above 0"),
        ({"finals": np.full((30, 5), np.nan)}, "finite scores, got NaN"),
        ({"finals": "scores"}, "Expected numbers"),
        ({"previews": np.zeros((30, 3, 1)), "finals": np.zeros((30, 1))}, "two candidates"),
        ({"target_share": 0}, "target_share above 0"),
        ({"preview_cost": -1}, "preview_cost of at least 0, got -1"),
    ],
)
def test_mistakes(changes, message):
    previews, finals = scores()
    given: dict[str, Any] = {"previews": previews, "finals": finals, "fractions": FRACTIONS} | changes
    with pytest.raises(ValueError, match=message):
        plan_pruning(given.pop("previews"), given.pop("finals"), given.pop("fractions"), **given)


def test_other_numbers_of_candidates_are_refused_where_counts_matter():
    plan = plan_pruning(*scores(noise=(0.0,)), [0.2])
    with pytest.raises(ValueError, match="Expected 5 candidates"):
        plan.apply(*scores(n=6, noise=(0.0,)))
    with pytest.raises(ValueError, match="budget"):
        plan.for_budget(1)
