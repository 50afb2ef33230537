"""What a way of pruning would have cost and kept, replayed on candidates that were all finished.

Pruning that is exact changes no survivor, so that nothing has to be generated again: the previews' scores say who
would have been dropped, and the finished pictures' scores what that would have lost.

The gain of best-of-N is the winner's score less the mean of all candidates, what one picture at random is worth; a
schedule's share of it is the sum of what it keeps over all prompts by the sum of what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

MOST_STAGES = 3
MOST_KEEP_COUNTS = 8  # tried per stage; with more candidates than that they are spread evenly by their logarithm
BOOTSTRAPS = 2000
INTERVAL = (2.5, 97.5)  # per cent

Schedule = tuple[tuple[int, int], ...]
"""Stages in order: which of the measured fractions, and how many candidates of each prompt go on."""


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
        """(P, n) bool: who is finished. Of equal scores the first candidate goes on."""
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


@dataclass(frozen=True)
class Choice:
    """A schedule, and what it keeps of the gain.

    Attributes:
        schedule: Empty: prune nothing.
        share: Of the gain, on the prompts that it was chosen on.
        share_held_out: Of the gain, on prompts left out in turn while choosing; None with one prompt.
        interval: 95 % bootstrap interval of `share` over prompts; None with one prompt.
        cost: Network evaluations, of those of full best-of-n, 0 to 1.
    """

    schedule: Schedule
    share: float
    share_held_out: float | None
    interval: tuple[float, float] | None
    cost: float


def choose(measured: Measured, fractions: Sequence[int], target_share: float) -> Choice:
    """The cheapest schedule that keeps `target_share` of the gain, also on prompts that it was not chosen on.

    The cheapest of many looks better than it is. So each prompt is left out in turn, and what a choice by the others
    keeps of its gain is counted; where that falls short of the target, a choice with a larger share is tried.

    Args:
        measured: With a gain above 0 over all prompts.
        fractions: Indexes of those at which may be pruned, ascending.
        target_share: Above 0, up to 1.
    """
    n = measured.final.shape[1]
    # the cheapest first, of equally cheap ones that with the fewest previews; pruning nothing comes last
    schedules = sorted([*_schedules(n, fractions), ()], key=lambda stages: (measured.cost(stages), len(stages)))
    gains = np.array([measured.gain(stages) for stages in schedules])  # (S, P)
    full = measured.full_gain
    shares = gains.sum(1) / full.sum()
    left_out = _left_out(gains, full)
    enough = _at_least(shares, target_share)
    for threshold in np.unique(np.maximum.accumulate(shares)[enough]):
        chosen = int(_at_least(shares, threshold).argmax())
        held_out = None if left_out is None else _held_out_share(gains, full, left_out, threshold)
        if held_out is None or _at_least(held_out, target_share):
            break
    else:
        chosen, held_out = len(schedules) - 1, 1.0
    interval = bootstrap_ratio(gains[chosen], full)
    schedule = schedules[chosen]
    return Choice(schedule, float(shares[chosen]), held_out, interval, measured.cost(schedule))


def bootstrap_mean(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean over prompts; None for fewer than two."""
    return bootstrap_ratio(values, np.ones_like(values))


def bootstrap_ratio(values: np.ndarray, weights: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of sum(values) / sum(weights) over prompts, always the same for the same numbers."""
    if len(values) < 2:
        return None
    rows = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAPS, len(values)))
    sums = weights[rows].sum(1)
    low, high = np.percentile((values[rows].sum(1)[sums > 0]) / sums[sums > 0], INTERVAL)
    return float(low), float(high)


def keep_counts(n: int) -> list[int]:
    """The keep counts that are tried, ascending, each below n."""
    if n - 1 <= MOST_KEEP_COUNTS:
        return list(range(1, n))
    return sorted({round(k) for k in np.geomspace(1, n - 1, MOST_KEEP_COUNTS)})


def _schedules(n: int, fractions: Sequence[int]) -> Iterator[Schedule]:
    for stages in range(1, MOST_STAGES + 1):
        for places in combinations(fractions, stages):
            for counts in combinations(reversed(keep_counts(n)), stages):
                yield tuple(zip(places, counts, strict=True))


def _best(scores: np.ndarray, alive: np.ndarray, keep: int) -> np.ndarray:
    order = np.argsort(-np.where(alive, scores, -np.inf), axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable")
    return alive & (places < keep)


def _left_out(gains: np.ndarray, full: np.ndarray) -> np.ndarray | None:
    """(S, P): each schedule's share of the gain without one prompt; None where there are no others."""
    rest = full.sum() - full
    if len(full) < 2:
        return None
    return (gains.sum(1, keepdims=True) - gains) / np.where(rest > 0, rest, np.nan)


def _held_out_share(gains: np.ndarray, full: np.ndarray, left_out: np.ndarray, threshold: float) -> float:
    """What remains of the gain where every prompt is pruned as the other prompts suggest."""
    suffices = _at_least(left_out, threshold)
    suffices[-1] = True  # pruning nothing always does
    return float(gains[suffices.argmax(0), np.arange(len(full))].sum() / full.sum())


def _at_least(share: np.ndarray | float, wanted: float) -> np.ndarray:
    """Sums of the same numbers in another order differ by rounding."""
    return np.asarray(share) >= wanted - 1e-9
