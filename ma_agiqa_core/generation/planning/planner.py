"""`plan_pruning`: the cheapest way to prune that keeps a share of best-of-n's gain on new prompts, and its promise.

1. A model of the scores (model.py) orders the ways to prune of each kind (candidates.py): by loss the cheapest.
2. Scores are not as normal as the model, and prompts differ. So the prompts are divided in parts: the ways are ordered
   without a part, and what they lose on it, by what the model said, is how wrong the model is in level (loss_ratio.py).
   What they cost is measured there too. Choice and promise thereby come from different prompts.
3. Of each kind a way is taken whose loss is likely within the target, and of these the cheapest; what is promised is a
   lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...arguments.numbers import real_number
from ...errors import MaAgiqaError
from ...metrics import bootstrap_counts
from ..calibration.checks import checked_share
from .candidates import KINDS, Frontier, frontiers, thinned
from .checks import checked_scores
from .loss_ratio import LossRatio
from .model import ScoreModel
from .plan import Basis, PruningPlan
from .replay import Rule, full_gain, replay

LEAST_PROMPTS = 10  # with fewer, resampling prompts says nothing of those to come
NOISE_DEVIATIONS = 3.0  # a correlation within these of 0 may be chance, with seven fractions in 1 % of all cases
GROUPS = 600  # drawn from the model
PARTS = 4  # prompts are divided into
RESAMPLES = 2000
WORST = 2.0  # times the loss of the target: what is promised may be no more
NEAR = 0.35  # by its logarithm: which losses say how wrong the model is at one
_LEVELS = np.geomspace(0.15, 3, 20)  # losses that are tried, of the target's

Held = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(P, L): what left-out prompts lose, what the others' model says that they would, and what it costs."""


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
    not see. With too few prompts, or previews that say nothing, it prunes nothing and says how many prompts are
    missing. So it does where previews cost more than they save.

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
        >>> plan.cost < 0.7, 0.8 <= plan.promised_share < plan.expected_share
        (True, True)
        >>> gain, cost = plan.apply(finals[:, None] + noise, finals)
        >>> gain.shape, cost.shape
        ((40,), (40,))

        Five prompts say nothing about others:

        >>> few = plan_pruning((finals[:, None] + noise)[:5], finals[:5], fractions)
        >>> few.prune_at, few.promised_share, few.missing_prompts
        ({}, None, 5)
    """
    before, after, ascending = checked_scores(previews, finals, fractions)
    cost = real_number(preview_cost)
    if cost is None or not 0 <= cost < math.inf:
        raise MaAgiqaError(
            f"Expected preview_cost of at least 0, got {preview_cost!r}. It is in evaluations of one whole candidate."
        )
    return _Planner(before, after, ascending, 1 - checked_share(target_share), cost).plan()


class _Planner:
    def __init__(
        self, previews: np.ndarray, finals: np.ndarray, fractions: np.ndarray, allowed: float, preview_cost: float
    ) -> None:
        self._previews, self._finals, self._fractions = previews, finals, fractions
        self._allowed, self._preview_cost = allowed, preview_cost
        self._full = full_gain(finals)
        self._model = ScoreModel.of(previews, finals)
        _, places, n = previews.shape
        self._deviates = np.random.default_rng(0).standard_normal((GROUPS, places + 1, n))
        self._places: list[int] = []
        self._ratio = 1.0

    def plan(self) -> PruningPlan:
        prompts, n = self._finals.shape
        if not self._full.sum() > 0:
            return self._nothing("all candidates of a prompt score alike, so that best-of-n gains nothing")
        if prompts < LEAST_PROMPTS:
            missing = LEAST_PROMPTS - prompts
            few = f"{prompts} prompt{'s' * (prompts > 1)}"
            reason = f"{few} say nothing about others. Take {missing} more, {LEAST_PROMPTS} at least"
            return self._nothing(reason, missing)
        correlations = self._model.correlations
        limit = NOISE_DEVIATIONS / math.sqrt(prompts * (n - 1))
        telling = [i for i, f in enumerate(self._fractions) if correlations[i] > limit and f < 1]
        if not telling:
            return self._noise(correlations)
        self._places = thinned(telling)
        found = self._cheapest(self._preview_cost)
        if found is None or found[0] >= 1:
            return self._not_worth_it()
        cost, rule, loss, ratio = found
        self._ratio = ratio.upper
        return PruningPlan(
            rule=rule,
            n=n,
            cost=cost,
            expected_share=1 - ratio.mean * loss,
            promised_share=1 - ratio.upper * loss,
            basis=self._basis(),
        )

    def _cheapest(self, preview_cost: float) -> tuple[float, Rule, float, LossRatio] | None:
        """Cost, rule, its loss by the model, and how wrong that is."""
        best: tuple[float, Rule, float, LossRatio] | None = None
        held = self._held_out(preview_cost)
        for kind, front in self._frontiers(self._model, preview_cost).items():
            level, ratio, cost = self._level(held[kind])
            at = front.cheapest(level)
            if front.rules[at] and (best is None or cost < best[0]):
                best = cost, front.rules[at], float(front.losses[at]), ratio
        return best

    def _frontiers(self, model: ScoreModel, preview_cost: float) -> dict[str, Frontier]:
        return frontiers(model, self._places, self._fractions, self._deviates, preview_cost)

    def _held_out(self, preview_cost: float) -> dict[str, Held]:
        """By kind of rule."""
        prompts = len(self._finals)
        shape = (prompts, len(_LEVELS))
        held = {kind: (np.zeros(shape), np.zeros(shape), np.zeros(shape)) for kind in KINDS}
        part = np.random.default_rng(0).permutation(prompts) % PARTS
        for number in range(PARTS):
            out = part == number
            previews, finals, full = self._previews[out], self._finals[out], self._full[out]
            model = ScoreModel.of(self._previews[~out], self._finals[~out])
            for kind, front in self._frontiers(model, preview_cost).items():
                lost, said, costs = held[kind]
                for at, level in enumerate(_LEVELS * self._allowed):
                    chosen = front.cheapest(level)
                    gain, cost = replay(front.rules[chosen], previews, finals, self._fractions, preview_cost)
                    lost[out, at], said[out, at], costs[out, at] = full - gain, front.losses[chosen] * full, cost
        return held

    def _level(self, held: Held) -> tuple[float, LossRatio, float]:
        """What the model may say that is lost, by how much that is wrong, and what it costs there."""
        lost, said, costs = held
        counts = bootstrap_counts(len(lost), RESAMPLES, seed=0)
        at = 1.0  # of the target's loss
        for _ in range(3):  # the ratio of losses near the one that it leads to
            near = abs(np.log(_LEVELS / at)) < NEAR
            ratio = LossRatio.of(lost[:, near].sum(1), said[:, near].sum(1), counts)
            at = float(np.clip(min(1 / ratio.likely, WORST / ratio.upper), _LEVELS[0], _LEVELS[-1]))
        return at * self._allowed, ratio, float(np.interp(np.log(at), np.log(_LEVELS), costs.mean(0)))

    def _noise(self, correlations: np.ndarray) -> PruningPlan:
        prompts, n = self._finals.shape
        best = max(float(correlations.max()), 1 / math.sqrt(prompts * (n - 1)))  # what chance makes of nothing
        missing = math.ceil((NOISE_DEVIATIONS / best) ** 2 / (n - 1)) + 1 - prompts
        reason = (
            f"previews of {prompts} prompts rank their candidates no better than chance. If there is anything in them, "
            f"about {missing} more prompts may show it"
        )
        return self._nothing(reason, missing)

    def _not_worth_it(self) -> PruningPlan:
        """Says what previews cost and what they would save, where that is why."""
        found = self._cheapest(0.0) if self._preview_cost > 0 else None
        if found is None or found[0] >= 1:
            return self._nothing("no way of pruning is likely to keep the target for less than finishing all")
        _, rule, _, _ = found
        _, spent = replay(rule, self._previews, self._finals, self._fractions)
        _, with_looks = replay(rule, self._previews, self._finals, self._fractions, 1.0)
        n = self._finals.shape[1]
        looks, saved = float((with_looks - spent).mean()) * n, (1 - float(spent.mean())) * n
        return self._nothing(
            f"previews cost more than they save: {looks:.1f} previews of a prompt with their scores, each as long as "
            f"{self._preview_cost:.2g} of a picture, are {looks * self._preview_cost:.2g} pictures, and dropping "
            f"saves {saved:.2g} of {n}. A faster preview or scorer would do"
        )

    def _nothing(self, reason: str, missing: int = 0) -> PruningPlan:
        return PruningPlan((), self._finals.shape[1], 1.0, 1.0, None, self._basis(), reason, missing)

    def _basis(self) -> Basis:
        return Basis(
            fractions=self._fractions,
            names=tuple(self._fractions.tolist()),
            preview_cost=self._preview_cost,
            model=self._model if self._places else None,
            places=tuple(self._places),
            ratio=self._ratio,
        )
