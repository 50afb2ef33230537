"""What choosing by one scorer brings by another: the watch for verifier hacking.

The more candidates a scorer chooses among, the more it chooses its own mistakes. A scorer that only watches shows it:
its share is what the chosen pictures gain by it, of what choosing by it would have gained. Two judges that agree share
nearly all, two that ask different things little; below 0, choosing costs the watcher.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MaAgiqaError
from ..metrics import bootstrap_counts
from .scorer import Scorer

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
FEWEST_PROMPTS = 5  # with fewer, candidates are resampled within each prompt in place of prompts
_SEED = 0

Scores = Sequence[float] | np.ndarray
Group = tuple[np.ndarray, np.ndarray]
"""The scores (n,) of one prompt's candidates: by the scorer that chooses, by the one that watches."""


@dataclass(frozen=True)
class Watch:
    """What a scorer that only watches says of the chosen pictures.

    Attributes:
        chooser: Name of the scorer that chooses.
        watcher: Name of the one that watches.
        gain: By the watcher's scores, of the best picture by the chooser over one at random; mean over prompts.
        own_gain: The same of the best picture by the watcher.
        share: `gain` / `own_gain`; NaN where the watcher gives all pictures of every prompt the same.
        interval: 95 %, of `share`: over prompts, or of few prompts over their candidates; None where it has none.
        groups: The scores behind it, prompt by prompt.

    Example:
        >>> chooser, watcher = [0.1, 0.9, 0.5, 0.3], [5.0, 4.0, 7.0, 4.0]
        >>> watch = watched("chooser", "watcher", [(chooser, watcher)])
        >>> watch.gain, watch.own_gain, watch.share
        (-1.0, 2.0, -0.5)
    """

    chooser: str
    watcher: str
    gain: float
    own_gain: float
    share: float
    interval: tuple[float, float] | None
    groups: tuple[Group, ...] = field(repr=False, compare=False, default=())

    @property
    def costs(self) -> bool:
        """Whether choosing makes pictures worse by the watcher: the whole interval lies below 0."""
        return self.interval[1] < 0 if self.interval is not None else self.share < 0

    def __str__(self) -> str:
        if math.isnan(self.share):
            return f"{self.watcher}, which only watched, gives all pictures of a prompt the same score."
        between = "" if self.interval is None else f" ({self.interval[0]:.0%} to {self.interval[1]:.0%})"
        line = f"{self.watcher}, which only watched, gets {self.share:.0%}{between} of its own gain ({self.gain:+.3g})."
        return f"{line} {self.warning}" if self.costs else line

    @property
    def warning(self) -> str:
        """For people, where choosing costs the watcher."""
        return (
            f"Warning: choosing by {self.chooser} costs {self.watcher}: the chosen pictures are worse by it than "
            "pictures taken at random. Look at them, or choose by an ensemble of both."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the scores."""
        names = ("chooser", "watcher", "gain", "own_gain", "share", "interval", "costs")
        return {name: getattr(self, name) for name in names}


def watched(chooser: str, watcher: str, groups: Iterable[tuple[Scores, Scores]]) -> Watch:
    """What choosing by one scorer brings by another.

    Args:
        chooser: Name of the scorer that chooses.
        watcher: Name of the one that watches.
        groups: For each prompt the scores (n,) of its candidates by both. Candidates without both scores, and prompts
            with fewer than two, are left out.
    """
    arrays: list[Group] = [(np.asarray(ours, np.float64), np.asarray(its, np.float64)) for ours, its in groups]
    kept = [(ours[known], its[known]) for ours, its in arrays for known in [np.isfinite(ours) & np.isfinite(its)]]
    pairs = tuple(pair for pair in kept if len(pair[0]) > 1)
    gains = np.array([_gains(*pair) for pair in pairs]).reshape(-1, 2)
    gain, own = gains.mean(0).tolist() if len(gains) else (math.nan, math.nan)
    if not own > 0:
        return Watch(chooser, watcher, gain, own, math.nan, None, pairs)
    shares = _over_prompts(gains) if len(pairs) >= FEWEST_PROMPTS else _over_candidates(pairs)
    finite = shares[np.isfinite(shares)]
    interval = None
    if len(finite) >= RESAMPLES // 2:
        low, high = np.percentile(finite, INTERVAL).tolist()
        interval = (low, high)
    return Watch(chooser, watcher, gain, own, gain / own, interval, pairs)


def all_of(watches: Sequence[Watch]) -> Watch:
    """One watch over the prompts of several, by the same two scorers."""
    return watched(watches[0].chooser, watches[0].watcher, [group for watch in watches for group in watch.groups])


def as_observers(observe: Any) -> tuple[Scorer, ...]:
    """What `observe=` was given as: none, one scorer or several.

    Raises:
        ValueError: Something that is no scorer.
    """
    if observe is None:
        return ()
    given = (observe,) if isinstance(observe, Scorer) else tuple(observe) if _is_many(observe) else (observe,)
    for one in given:
        if not isinstance(one, Scorer):
            raise MaAgiqaError(
                f"Expected observe with .info and .score, got {one!r}. Use load_scorer or CallableScorer."
            )
    return given


def _is_many(observe: Any) -> bool:
    return isinstance(observe, list | tuple)


def _gains(chooser: np.ndarray, watcher: np.ndarray) -> tuple[float, float]:
    mean = watcher.mean()
    return float(watcher[chooser.argmax()] - mean), float(watcher.max() - mean)


def _over_prompts(gains: np.ndarray) -> np.ndarray:
    sums = bootstrap_counts(len(gains), RESAMPLES, _SEED) @ gains  # (resamples, 2)
    return _ratios(sums)


def _over_candidates(pairs: Sequence[Group]) -> np.ndarray:
    sums = np.zeros((RESAMPLES, 2))
    for number, (chooser, watcher) in enumerate(pairs):
        counts = bootstrap_counts(len(chooser), RESAMPLES, _SEED + number)
        drawn = counts > 0
        mean = counts @ watcher / len(watcher)
        chosen = np.where(drawn, chooser, -np.inf).argmax(1)
        sums += np.stack([watcher[chosen] - mean, np.where(drawn, watcher, -np.inf).max(1) - mean], axis=1)
    return _ratios(sums)


def _ratios(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)
