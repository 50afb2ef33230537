"""A budget of so many finished pictures, spent on more candidates that are pruned: how many, and by which schedule.

Only schedules are tried: their cost is known beforehand, whereas a margin's differs from prompt to prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .candidates import schedules
from .model import ScoreModel
from .replay import Rule, full_gain

MOST = 3  # times the budget: candidates that are tried
GROUPS = 400  # drawn from the model
_EXACT = 1e-9  # sums of the same costs in another order


@dataclass(frozen=True)
class Spent:
    """A budget's use.

    Attributes:
        n: Candidates to begin with.
        rule: How they are pruned.
        cost: Of that of n finished candidates.
        growth: Gain over one picture at random, by what finishing as many as the budget has gains.
    """

    n: int
    rule: Rule
    cost: float
    growth: float


def spend(
    model: ScoreModel,
    places: list[int],
    fractions: np.ndarray,
    budget: int,
    ratio: float,
    preview_cost: float = 0.0,
) -> Spent:
    """The number of candidates and the schedule with the largest gain by the model.

    Args:
        model: Of the scores.
        places: Which fractions may be pruned at, ascending.
        fractions: (F,) of the evaluations.
        budget: Finished candidates that it may cost as much as.
        ratio: What is really lost by what the model says.
        preview_cost: Of one preview and its score, in evaluations of one whole candidate.
    """
    random = np.random.default_rng(0)
    deviates = random.standard_normal((GROUPS, len(model.covariance), MOST * budget))
    best = Spent(budget, (), 1.0, 1.0)
    _, finals = model.draw(deviates)
    base = full_gain(finals[:, :budget]).sum()
    for n in range(budget + 1, MOST * budget + 1):
        previews, finals = model.draw(deviates[:, :, :n])
        full = full_gain(finals).sum()
        for rule, gain, cost in schedules(places, previews, finals, fractions, preview_cost):
            growth = (full - ratio * (full - gain)) / base
            if cost * n <= budget + _EXACT and growth > best.growth:
                best = Spent(n, rule, cost, float(growth))
    return best
