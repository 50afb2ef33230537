"""`plan_pruning`: the cheapest way to prune that keeps a share of best-of-n's gain on new prompts, and its promise.

1. A model of the scores (model.py) orders all ways to prune (candidates.py): by loss the cheapest.
2. Scores are not as normal as the model, and prompts differ. So the prompts are divided, again and again: a frontier is
   made without a part of them, and what its ways lose on that part, by what the model said, is how wrong the model is
   in level. Choice and promise thereby come from different prompts.
3. That ratio's bootstrap over prompts says how sure it is: a way is taken whose loss is more likely than not within the
   target, and what is promised is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import MaAgiqaError
from ...metrics import bootstrap_counts
from .candidates import frontier, thinned
from .checks import checked_scores
from .model import ScoreModel
from .replay import Rule, full_gain, replay

LEAST_PROMPTS = 10  # with fewer, resampling prompts says nothing of those to come
NOISE_DEVIATIONS = 3.0  # a correlation within these of 0 may be chance, with seven fractions in 1 % of all cases
GROUPS = 600  # drawn from the model
PARTS = 4  # prompts are divided into
RESAMPLES = 2000
LIKELY, SURE = 62.0, 90.0  # per cent of the resamples in which the loss is within the target, and within the promise
WORST = 2.0  # times the loss of the target: what is promised may be no more
LEAST_RATIO = 0.5  # of what prompts lose by what the model says: few prompts may lose nothing by chance
_LEVELS = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0])  # of the target's loss


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """How to prune, and what to expect of it on new prompts.

    Attributes:
        prune_at: Fraction of the evaluations to how many survive it at most; empty where no count is limited.
        margin: Fraction to how far a preview may trail the best one, in units of the score; empty without a margin.
        n: Candidates of a prompt that it was planned for.
        cost: Evaluations, and previews in as many, of those of n finished candidates; 1 if nothing is pruned.
        expected_share: Of the full gain, on new prompts.
        promised_share: A lower bound of it, in nine of ten cases; None if nothing is promised.
        reason: Why nothing is to be pruned, or "".
        missing_prompts: How many more prompts may show a way to prune; 0 where one was found, or where no number would.
    """

    prune_at: dict[float, int]
    margin: dict[float, float]
    n: int
    cost: float
    expected_share: float
    promised_share: float | None
    reason: str
    missing_prompts: int
    _fractions: np.ndarray
    _rule: Rule
    _preview_cost: float = 0.0

    def apply(self, previews: Any, finals: Any) -> tuple[np.ndarray, np.ndarray]:
        """What the plan keeps and costs on candidates that were all finished.

        Args:
            previews: (P, F, n) scores, at the fractions of the plan.
            finals: (P, n) scores of the finished pictures.

        Returns:
            (P,) the best survivor's final score less the mean of all n, and (P,) the cost, of that of n finished ones.

        Raises:
            ValueError: Other shapes, or scores that are not finite.
        """
        previews, finals, _ = checked_scores(previews, finals, self._fractions)
        if self.prune_at and finals.shape[1] != self.n:
            raise MaAgiqaError(
                f"Expected {self.n} candidates of each prompt, as planned for, got {finals.shape[1]}. Plan for as many."
            )
        return replay(self._rule, previews, finals, self._fractions, self._preview_cost)


def plan_pruning(
    previews: Any,
    finals: Any,
    fractions: Sequence[float] | np.ndarray,
    *,
    target_share: float = 0.9,
    preview_cost: float = 0.0,
) -> PruningPlan:
    """Plans how to drop candidates early, from the scores of candidates that were all finished.

    Schedules of one and two stages and margins are tried. The plan keeps `target_share` of what best-of-n gains over
    one picture at random, on new prompts and on average; its promise is a lower bound from prompts that its choice did
    not see. With too few prompts, or previews that say nothing, it prunes nothing and says how many
    prompts are missing.

    Args:
        previews: (P, F, n) scores of the previews by prompt, fraction and candidate, higher is better.
        finals: (P, n) scores of the finished pictures.
        fractions: (F,) of a candidate's evaluations done at each preview, ascending, above 0 and up to 1.
        target_share: Of the gain, above 0 and up to 1.
        preview_cost: Of one preview and its score, in evaluations of one whole candidate: 0.02 is a fiftieth.

    Raises:
        ValueError: Other shapes, scores that are not finite, fractions or a share out of range.

    Example:
        Forty prompts with eight candidates, whose previews become better:

        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> finals = random.normal(size=(40, 8))
        >>> fractions = [0.3, 0.5, 0.7]
        >>> noise = random.normal(size=(40, 3, 8)) * np.array([1.0, 0.5, 0.2])[:, None]
        >>> plan = plan_pruning(finals[:, None] + noise, finals, fractions)
        >>> plan.cost < 0.7, 0.8 <= plan.promised_share < 0.9
        (True, True)
        >>> gain, cost = plan.apply(finals[:, None] + noise, finals)
        >>> gain.shape, cost.shape
        ((40,), (40,))

        Five prompts say nothing about others:

        >>> few = plan_pruning((finals[:, None] + noise)[:5], finals[:5], fractions)
        >>> few.prune_at, few.promised_share, few.missing_prompts
        ({}, None, 5)
    """
    previews, finals, ascending = checked_scores(previews, finals, fractions)
    target, preview_cost = _checked_share(target_share), _checked_cost(preview_cost)
    planner = _Planner(previews, finals, ascending, target, preview_cost)
    return planner.plan()


class _Planner:
    def __init__(
        self, previews: np.ndarray, finals: np.ndarray, fractions: np.ndarray, target: float, preview_cost: float
    ) -> None:
        self._previews, self._finals, self._fractions = previews, finals, fractions
        self._allowed, self._preview_cost = 1 - target, preview_cost
        self._target = target
        self._full = full_gain(finals)
        self._model = ScoreModel.of(previews, finals)
        _, places, n = previews.shape
        self._deviates = np.random.default_rng(0).standard_normal((GROUPS, places + 1, n))

    def plan(self) -> PruningPlan:
        prompts, _, n = self._previews.shape
        if not self._full.sum() > 0:
            return self._nothing("all candidates of a prompt score alike, so that best-of-n gains nothing", 0)
        if prompts < LEAST_PROMPTS:
            missing = LEAST_PROMPTS - prompts
            few = f"{prompts} prompt{'s' * (prompts > 1)}"
            return self._nothing(
                f"{few} say nothing about others. Take {missing} more, {LEAST_PROMPTS} at least", missing
            )
        correlations = self._model.correlations
        limit = NOISE_DEVIATIONS / math.sqrt(prompts * (n - 1))
        telling = [i for i, f in enumerate(self._fractions) if correlations[i] > limit and f < 1]
        if not telling:
            return self._noise(correlations)
        places = thinned(telling)
        ratios = self._ratios(places)
        likely = max(float(np.percentile(ratios, LIKELY)), LEAST_RATIO)
        sure = max(float(np.percentile(ratios, SURE)), likely)
        found = frontier(self._model, places, self._fractions, self._deviates, self._preview_cost)
        chosen = found.cheapest(min(self._allowed / likely, WORST * self._allowed / sure))
        rule, loss = found.rules[chosen], float(found.losses[chosen])
        if not rule:
            return self._nothing("no way of pruning is likely to keep the target", 0)
        return PruningPlan(
            prune_at={float(self._fractions[s.place]): s.keep for s in rule if s.keep is not None},
            margin={float(self._fractions[s.place]): s.margin for s in rule if s.margin is not None},
            n=n,
            cost=float(found.costs[chosen]),
            expected_share=1 - max(float(np.median(ratios)), LEAST_RATIO) * loss,
            promised_share=1 - sure * loss,
            reason="",
            missing_prompts=0,
            _fractions=self._fractions,
            _rule=rule,
            _preview_cost=self._preview_cost,
        )

    def _ratios(self, places: list[int]) -> np.ndarray:
        """(RESAMPLES,): what left-out prompts lose, by what the model of the others says that they would."""
        prompts = len(self._finals)
        lost, said = np.zeros(prompts), np.zeros(prompts)
        part = np.random.default_rng(0).permutation(prompts) % PARTS
        for number in range(PARTS):
            out = part == number
            model = ScoreModel.of(self._previews[~out], self._finals[~out])
            found = frontier(model, places, self._fractions, self._deviates, self._preview_cost)
            for level in _LEVELS * self._allowed:
                chosen = found.cheapest(level)
                gain, _ = replay(found.rules[chosen], self._previews[out], self._finals[out], self._fractions)
                lost[out] += self._full[out] - gain
                said[out] += found.losses[chosen] * self._full[out]
        counts = bootstrap_counts(prompts, RESAMPLES, seed=0)
        return (counts @ lost) / np.maximum(counts @ said, np.finfo(float).tiny)

    def _noise(self, correlations: np.ndarray) -> PruningPlan:
        prompts, _, n = self._previews.shape
        best = max(float(correlations.max()), 1 / math.sqrt(prompts * (n - 1)))  # what chance makes of nothing
        missing = math.ceil((NOISE_DEVIATIONS / best) ** 2 / (n - 1)) + 1 - prompts
        return self._nothing(
            f"previews of {prompts} prompts rank their candidates no better than chance. If there is anything in "
            f"them, about {missing} more prompts may show it",
            missing,
        )

    def _nothing(self, reason: str, missing: int) -> PruningPlan:
        n = self._finals.shape[1]
        return PruningPlan({}, {}, n, 1.0, 1.0, None, reason, missing, self._fractions, (), self._preview_cost)


def _checked_share(given: Any) -> float:
    from ..calibration.checks import checked_share

    return checked_share(given)


def _checked_cost(given: Any) -> float:
    from ...arguments.numbers import real_number

    cost = real_number(given)
    if cost is None or not 0 <= cost < math.inf:
        raise MaAgiqaError(
            f"Expected preview_cost of at least 0, got {given!r}. It is in evaluations of one whole candidate."
        )
    return cost
