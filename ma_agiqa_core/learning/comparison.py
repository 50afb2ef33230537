"""How often a scorer says of two pictures what the picks say, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .evidence import Evidence

RESAMPLES = 1000
LEVEL = 0.95
MOST_COMPARISONS = 20_000  # a random part of more


@dataclass(frozen=True)
class Share:
    """A share of comparisons, 0 to 1, with its interval.

    Attributes:
        value: None where there is nothing to compare.
        low: Lower end of the 95 % interval, by resampling groups of pictures; None with fewer than two groups.
        high: Upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


class Comparisons:
    """Two pictures each, of which one was picked; only such as are in one fold.

    Args:
        evidence: All picks.
        folds: (N,) of each picture.
        groups: (N,) of each picture: what is resampled.
        seed: Of the resampling.
    """

    def __init__(self, evidence: Evidence, folds: np.ndarray, groups: np.ndarray, seed: int = 0) -> None:
        better, worse, weight = evidence.comparisons()
        pairs = len(evidence.better)
        together = folds[better] == folds[worse]
        is_pair = np.zeros(len(better), bool)
        marks = int((evidence.liked == 1).sum() * (evidence.liked == 0).sum())  # which come before the pairs
        is_pair[marks : marks + pairs] = True
        if 2 * (together & is_pair).sum() < pairs:  # pairs of unlike prompts: one of the two was held out
            together |= is_pair
        rows = np.flatnonzero(together)
        if len(rows) > MOST_COMPARISONS:
            rows = np.random.default_rng(seed).choice(rows, MOST_COMPARISONS, replace=False)
        self.better, self.worse, self.weight = better[rows], worse[rows], weight[rows]
        self._groups, self._seed = np.unique(groups, return_inverse=True)[1].reshape(len(groups)), seed

    def __len__(self) -> int:
        return len(self.better)

    def share(self, values: np.ndarray) -> Share:
        """How often the values (N,) put the better picture first; a tie counts half."""
        return self._summary(self._hits(values))

    def lead(self, values: np.ndarray, others: np.ndarray) -> Share:
        """The difference of two shares, on the same resamples; from -1 to 1."""
        return self._summary(self._hits(values) - self._hits(others))

    def _hits(self, values: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.sign(values[self.better] - values[self.worse])

    def _summary(self, hits: np.ndarray) -> Share:
        if not len(hits) or not self.weight.sum():
            return Share(None)
        value = float(self.weight @ hits / self.weight.sum())
        count = self._groups.max() + 1
        if count < 2:
            return Share(value)
        random = np.random.default_rng(self._seed)
        one, other = self._groups[self.better], self._groups[self.worse]
        found = []
        for _ in range(RESAMPLES):
            times = np.bincount(random.integers(count, size=count), minlength=count)
            weight = self.weight * np.where(one == other, times[one], times[one] * times[other])
            if weight.sum():
                found.append(weight @ hits / weight.sum())
        low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Share(value, float(low), float(high))
