"""What a way of pruning would have cost and kept, replayed on candidates that were all finished.

Pruning that is exact changes no survivor, so that nothing has to be generated again: the previews' scores say which
candidates would have been dropped, and the finished pictures' scores what that would have lost.

The gain of best-of-N is the winner's score less the mean of all candidates, what one picture at random is worth; a
schedule's share of it is the sum of what it keeps over all prompts by the sum of what there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

MOST_STAGES = 3
MOST_KEEP_COUNTS = 8  # tried per stage; with more candidates than that they are spread evenly by their logarithm
BOOTSTRAPS = 2000
INTERVAL = (2.5, 97.5)  # per cent
LEAST_PROMPTS = 10  # with fewer, resampling prompts says nothing of those to come
HALVES = 40  # with as many no prompt is on the same side of all
DOUBT = 5.0  # per cent of the resampled left-out prompts keep less than what is promised
NOISE_DEVIATIONS = 3.0  # a rank correlation within these of 0 may be chance, with seven fractions in 1 % of all cases

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


@dataclass(frozen=True)
class Choice:
    """A schedule, and what it keeps of the gain.

    Attributes:
        schedule: Empty: prune nothing.
        share: Of the gain, on the prompts that it was chosen on.
        share_held_out: Of the gain, on prompts left out while choosing; None with too few prompts.
        lower_bound: Of `share_held_out`: what 95 % of its bootstrap draws over prompts reach; None where nothing is
            pruned.
        interval: 95 % bootstrap interval of `share` over prompts; None where nothing is pruned.
        cost: Network evaluations, of those of full best-of-n, 0 to 1.
        missing: How many more prompts would do to choose a schedule, as far as these tell; None if they do not.
    """

    schedule: Schedule
    share: float
    share_held_out: float | None
    lower_bound: float | None
    interval: tuple[float, float] | None
    cost: float
    missing: int | None = None


def choose(measured: Measured, fractions: Sequence[int], target_share: float) -> Choice:
    """The cheapest schedule that keeps `target_share` of the gain on new prompts with enough certainty.

    The cheapest of many looks better than it is. So half of the prompts are left out again and again, and what a choice
    by the others keeps of their gain is counted; where the lower bound of that falls short of the target, a choice with
    a larger share is tried. Fractions whose previews may be noise are left out: to drop by them is to begin with fewer
    candidates, only dearer.

    Args:
        measured: With a gain above 0 over all prompts.
        fractions: Indexes of those at which may be pruned, ascending.
        target_share: Above 0, up to 1.
    """
    prompts, n = measured.final.shape
    if prompts < LEAST_PROMPTS:
        return Choice((), 1.0, None, None, None, 1.0, LEAST_PROMPTS - prompts)
    telling = _telling(measured, fractions)
    # the cheapest first, of equally cheap ones that with the fewest previews; pruning nothing comes last
    schedules = sorted([*_schedules(n, telling), ()], key=lambda stages: (measured.cost(stages), len(stages)))
    gains = np.array([measured.gain(stages) for stages in schedules])  # (S, P)
    full = measured.full_gain
    shares = gains.sum(1) / full.sum()
    chosen_on = _halves(prompts)
    shares_there = (gains @ chosen_on.T) / np.maximum(chosen_on @ full, np.finfo(float).tiny)  # (S, H)
    missing: list[int] = []
    for threshold in np.unique(np.maximum.accumulate(shares)[_at_least(shares, target_share)]):
        chosen = int(_at_least(shares, threshold).argmax())
        if not schedules[chosen]:
            break
        held_out = _held_out_gains(gains, shares_there, chosen_on, threshold)
        share, bound = float(held_out.sum() / full.sum()), _lower_bound(held_out, full)
        if _at_least(bound, target_share):
            schedule, interval = schedules[chosen], bootstrap_ratio(gains[chosen], full)
            return Choice(schedule, float(shares[chosen]), share, bound, interval, measured.cost(schedule))
        if share > target_share:  # the distance to the bound shrinks with the root of their number
            missing.append(math.ceil(prompts * ((share - bound) / (share - target_share)) ** 2) - prompts)
    return Choice((), 1.0, 1.0, None, None, 1.0, min(missing, default=None))


def bootstrap_mean(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean over prompts; None for fewer than two."""
    return bootstrap_ratio(values, np.ones_like(values))


def bootstrap_ratio(values: np.ndarray, weights: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of sum(values) / sum(weights) over prompts, always the same for the same numbers."""
    if len(values) < 2:
        return None
    low, high = np.percentile(_resampled(values, weights), INTERVAL)
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


def _telling(measured: Measured, fractions: Sequence[int]) -> list[int]:
    """The fractions whose previews rank the candidates better than chance.

    Among rankings that have nothing to do with each other, Spearman's correlation of n is 0 on average, and its
    variance 1 / (n - 1), ties or not (Kendall and Gibbons, Rank Correlation Methods, 1990).
    """
    from ...metrics import srcc

    prompts, n = measured.final.shape
    limit = NOISE_DEVIATIONS / math.sqrt(prompts * (n - 1))

    def correlation(fraction: int) -> float:
        pairs = zip(measured.previews[:, fraction], measured.final, strict=True)
        return float(np.nan_to_num([srcc(preview, final) for preview, final in pairs]).mean())

    return [fraction for fraction in fractions if correlation(fraction) > limit]


def _halves(prompts: int) -> np.ndarray:
    """(H, P): 1 where a prompt is among the half that is chosen on, always the same halves."""
    random = np.random.default_rng(0)
    places = np.array([random.permutation(prompts) for _ in range(HALVES)])
    return (places < prompts // 2).astype(np.float64)


def _held_out_gains(gains: np.ndarray, shares_there: np.ndarray, chosen_on: np.ndarray, threshold: float) -> np.ndarray:
    """(P,): the mean gain where every prompt is pruned as halves without it suggest."""
    suffices = _at_least(shares_there, threshold)
    suffices[-1] = True  # pruning nothing always does
    left_out = 1 - chosen_on
    return (gains[suffices.argmax(0)] * left_out).sum(0) / left_out.sum(0)


def _lower_bound(values: np.ndarray, weights: np.ndarray) -> float:
    """What sum(values) / sum(weights) reaches in all but DOUBT per cent of the draws."""
    return float(np.percentile(_resampled(values, weights), DOUBT))


def _resampled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum(values) / sum(weights) of BOOTSTRAPS draws of as many prompts, always the same draws."""
    rows = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAPS, len(values)))
    sums = weights[rows].sum(1)
    return values[rows].sum(1)[sums > 0] / sums[sums > 0]


def _at_least(share: np.ndarray | float, wanted: float) -> np.ndarray:
    """Sums of the same numbers in another order differ by rounding."""
    return np.asarray(share) >= wanted - 1e-9
