"""A plan of pruning: what `plan_pruning` found, applied to scores, to the loop, or to a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...arguments.numbers import count_of
from ...errors import MaAgiqaError
from ..pruning.schedule import PruneAt
from .budget import spend
from .checks import checked_scores
from .model import ScoreModel
from .replay import Rule, replay


@dataclass(frozen=True, eq=False)
class Basis:
    """What a plan was made from.

    Attributes:
        fractions: (F,) of the evaluations, as scores are replayed.
        names: The fractions as `prune_at` calls them.
        preview_cost: Of one preview and its score, in evaluations of one whole candidate.
        model: Of the scores; None where nothing can be planned.
        places: Which of the fractions may be pruned at.
        ratio: What is lost by what the model says, at most in nine of ten cases.
    """

    fractions: np.ndarray
    names: tuple[float, ...]
    preview_cost: float = 0.0
    model: ScoreModel | None = None
    places: tuple[int, ...] = ()
    ratio: float = 1.0


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """How to prune, and what to expect of it on new prompts. `best_of_n` and the callback take it as `prune_at`.

    Attributes:
        rule: What is done at which fraction.
        n: Candidates of a prompt that it was planned for.
        cost: Evaluations, and previews in as many, of those of n finished candidates; 1 if nothing is pruned.
        expected_share: Of the full gain, on new prompts.
        promised_share: A lower bound of it, in nine of ten cases; None if nothing is promised.
        reason: Why nothing is to be pruned, or "".
        missing_prompts: How many more prompts may show a way to prune; 0 where one was found, or where no number would.
        growth: Gain by that of finishing as many candidates as the budget; 1 without a budget.

    Example:
        >>> import numpy as np
        >>> finals = np.random.default_rng(0).normal(size=(30, 8))
        >>> plan = plan_pruning(finals[:, None], finals, [0.25])  # a preview that foretells the finished picture
        >>> plan.prune_at, plan.margin, plan.cost
        ({0.25: 1}, {}, 0.34375)
        >>> gain, cost = plan.apply(finals[:, None], finals)
        >>> bool((gain == finals.max(1) - finals.mean(1)).all()), float(cost[0])
        (True, 0.34375)
    """

    rule: Rule
    n: int
    cost: float
    expected_share: float
    promised_share: float | None
    basis: Basis = field(repr=False)
    reason: str = ""
    missing_prompts: int = 0
    growth: float = 1.0

    @property
    def prune_at(self) -> PruneAt:
        """Fraction to how many survive it at most, also where only the margin drops any. It carries `margin`."""
        counts, most = {}, self.n
        for stage in self.rule:
            most = most if stage.keep is None else stage.keep
            counts[self.basis.names[stage.place]] = most
        return PruneAt(counts, self.margin)

    @property
    def margin(self) -> dict[float, float]:
        """Fraction to how far a preview may trail the best one, in units of the score; empty without a margin."""
        return {self.basis.names[s.place]: s.margin for s in self.rule if s.margin is not None and s.margin < math.inf}

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
        return self._replayed(previews, finals, self.basis.preview_cost)

    def evaluations(self, previews: Any, finals: Any) -> tuple[np.ndarray, np.ndarray]:
        """As `apply`, but the cost is of network evaluations alone, without previews and their scores."""
        return self._replayed(previews, finals, 0.0)

    def _replayed(self, previews: Any, finals: Any, preview_cost: float) -> tuple[np.ndarray, np.ndarray]:
        previews, finals, _ = checked_scores(previews, finals, self.basis.fractions)
        if any(stage.keep is not None for stage in self.rule) and finals.shape[1] != self.n:
            raise MaAgiqaError(
                f"Expected {self.n} candidates of each prompt, as planned for, got {finals.shape[1]}. Plan for as many."
            )
        return replay(self.rule, previews, finals, self.basis.fractions, preview_cost)

    def for_budget(self, budget: int) -> PruningPlan:
        """As many evaluations as so many finished candidates take, spent on more of them that are pruned.

        The plan that comes has the number of candidates as `n` and its gain, by that of `budget` finished ones, as
        `growth`. It promises no share. Where more candidates would gain nothing, all of the budget are finished.

        Raises:
            ValueError: Fewer than two.
        """
        count = count_of("budget", budget)
        if count < 2:
            raise MaAgiqaError(f"Expected a budget of at least 2, got {count}. With one there is nothing to choose.")
        basis = self.basis
        rule: Rule = ()
        n, cost, growth, expected = count, 1.0, 1.0, 1.0
        if basis.model is not None:
            spent = spend(basis.model, list(basis.places), basis.fractions, count, basis.ratio, basis.preview_cost)
            rule, n, cost, growth, expected = spent.rule, spent.n, spent.cost, spent.growth, math.nan
        return replace(self, rule=rule, n=n, cost=cost, growth=growth, expected_share=expected, promised_share=None)

    def renamed(self, names: Sequence[float]) -> PruningPlan:
        """The same plan with other words for its fractions, such as those of the steps."""
        return replace(self, basis=replace(self.basis, names=tuple(names)))
