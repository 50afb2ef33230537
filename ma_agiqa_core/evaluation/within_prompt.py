"""How well predictions choose among the pictures of one prompt: the figures that matter for best-of-N.

Correlation over a whole set also rewards knowing which prompts and generators give good pictures; choosing does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import metrics
from ..metrics import Scores
from .agreement import RESAMPLES, SEED, Figure
from .bootstrap import draw_counts


@dataclass(frozen=True)
class WithinPrompt:
    """Means over the prompts that have at least two pictures with different labels.

    A prompt's k pictures are all of the set that share it, whichever generator made them. The one picked has the
    highest prediction; where t are tied for it, each counts as picked with probability 1/t. Intervals are bootstrapped
    over prompts.

    Attributes:
        prompts: How many prompts that is.
        pictures: How many pictures they have.
        k: Fewest and most pictures of a prompt; (0, 0) without prompts.
        best_picked: Mean over prompts of the probability that the picture picked has the prompt's highest label, 0..1.
        by_chance: The same if the picture is picked at random.
        share_of_gain: Sum over prompts of (label of the picture picked - mean label), divided by the sum of (highest
            label - mean label): 1 is always the best, 0 as good as at random, below 0 worse.
        srcc: Mean over prompts of Spearman's correlation; 0 for a prompt whose predictions are all equal, since they
            order nothing.
        left_out: Prompts with one picture, or with equal labels only: there is nothing to choose.
    """

    prompts: int
    pictures: int
    k: tuple[int, int]
    best_picked: Figure
    by_chance: float | None
    share_of_gain: Figure
    srcc: Figure
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: figures with their intervals, null where undefined."""
        facts = asdict(self)
        figures = [name for name, value in facts.items() if isinstance(value, dict)]
        intervals = {name: getattr(self, name) for name in figures}
        return {
            **{name: getattr(self, name).value if name in figures else value for name, value in facts.items()},
            "k": list(self.k),
            "intervals": {name: None if f.low is None else [f.low, f.high] for name, f in intervals.items()},
        }


def within_prompt(
    predictions: Scores,
    labels: Scores,
    prompts: Sequence[str | None],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> WithinPrompt:
    """Measures choosing within prompts; see `WithinPrompt` for what each figure means.

    Args:
        predictions: (N,), finite.
        labels: (N,), finite.
        prompts: N of them; pictures without one are skipped.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    rows = defaultdict(list)
    for row, prompt in enumerate(prompts):
        if prompt and prompt.strip():
            rows[prompt.strip()].append(row)
    groups = [np.array(group) for group in rows.values() if np.ptp(y[group]) > 0]
    if not groups:
        return WithinPrompt(0, 0, (0, 0), Figure(), None, Figure(), Figure(), len(rows))
    sizes = [len(group) for group in groups]
    picked, chance, gain, possible, correlation = np.array([_choose(x[group], y[group]) for group in groups]).T
    counts = draw_counts(len(groups), resamples, seed)

    def mean(values: np.ndarray) -> Figure:
        return Figure.of(values.mean(), counts @ values / len(groups))

    return WithinPrompt(
        prompts=len(groups),
        pictures=sum(sizes),
        k=(min(sizes), max(sizes)),
        best_picked=mean(picked),
        by_chance=float(chance.mean()),
        share_of_gain=Figure.of(gain.sum() / possible.sum(), (counts @ gain) / (counts @ possible)),
        srcc=mean(correlation),
        left_out=len(rows) - len(groups),
    )


def _choose(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float, float]:
    """For one prompt: probability of picking the best, the same at random, gain, possible gain, SRCC."""
    picked, best = x == x.max(), y == y.max()
    correlation = metrics.srcc(x, y) if np.ptp(x) > 0 else 0.0
    gain, possible = y[picked].mean() - y.mean(), y.max() - y.mean()
    return best[picked].mean(), best.mean(), gain, possible, correlation
