"""What a way of pruning would have cost and kept, replayed on candidates that were all finished.

Pruning that is exact changes no survivor, so that nothing has to be generated again: the previews' scores say which
candidates would have been dropped, and the finished pictures' scores what that would have lost.

The gain of best-of-N is the winner's score less the mean of all candidates, what one picture at random is worth; a
schedule's share of it is the sum of what it keeps over all prompts by the sum of what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...metrics import bootstrap_counts

BOOTSTRAPS = 2000
INTERVAL = (2.5, 97.5)  # per cent

Schedule = tuple[tuple[int, int], ...]
"""Stages in order: which of the measured fractions, and how many candidates of each prompt survive."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of candidates that were all finished, and what that cost.

    Attributes:
        previews: (P, F, n) float64: by prompt, fraction and candidate.
        final: (P, n) float64: of the finished pictures.
        evaluations: (F,) float64: network evaluations of one prompt's n candidates up to each fraction, ascending.
        total: The same to the end.
    """

    previews: np.ndarray
    final: np.ndarray
    evaluations: np.ndarray
    total: float

    @property
    def full_gain(self) -> np.ndarray:
        """(P,): what best-of-n gains over one candidate at random."""
        return self.final.max(1) - self.final.mean(1)

    def survivors(self, schedule: Schedule) -> np.ndarray:
        """(P, n) bool: which candidates are finished. Of equal scores the first candidate survives."""
        alive = np.ones_like(self.final, dtype=bool)
        for fraction, keep in schedule:
            alive = _best(self.previews[:, fraction], alive, keep)
        return alive

    def gain(self, schedule: Schedule) -> np.ndarray:
        """(P,): what the best survivor gains over one candidate at random."""
        return self._best_final(self.survivors(schedule)) - self.final.mean(1)

    def cost(self, schedule: Schedule) -> float:
        """Network evaluations of one prompt, of those of full best-of-n, 0 to 1."""
        spent, before, rows = 0.0, 0.0, 1.0
        for fraction, keep in schedule:
            spent += rows * (self.evaluations[fraction] - before)
            before, rows = self.evaluations[fraction], keep / self.final.shape[1]
        return float(spent + rows * (self.total - before)) / self.total

    def _best_final(self, alive: np.ndarray) -> np.ndarray:
        return np.where(alive, self.final, -np.inf).max(1)


def bootstrap_mean(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean over prompts; None for fewer than two."""
    return bootstrap_ratio(values, np.ones_like(values))


def bootstrap_ratio(values: np.ndarray, weights: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of sum(values) / sum(weights) over prompts, always the same for the same numbers."""
    if len(values) < 2:
        return None
    counts = bootstrap_counts(len(values), BOOTSTRAPS, seed=0)
    sums = counts @ weights
    low, high = np.percentile((counts @ values)[sums > 0] / sums[sums > 0], INTERVAL)
    return float(low), float(high)


def _best(scores: np.ndarray, alive: np.ndarray, keep: int) -> np.ndarray:
    order = np.argsort(-np.where(alive, scores, -np.inf), axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable")
    return alive & (places < keep)
