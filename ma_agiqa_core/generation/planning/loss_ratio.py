"""How wrong the model of scores is in level: what prompts lose, by what the model says that they would."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LIKELY, SURE = 0.75, 1.9  # standard deviations: the target is met in three of four cases, the promise in nine of ten
USUAL = 1.4  # ImageReward, PickScore and HPSv2 on two models: 0.8 to 1.9
USUAL_SPREAD = 0.3  # of its logarithm
MODEL_SPREAD = 1.1  # of the logarithm of a loss by the model, times the root of the number of prompts
LEAST = 0.1  # by chance, a few prompts may lose nothing


@dataclass(frozen=True)
class LossRatio:
    """The ratio; its logarithm has a normal distribution.

    Attributes:
        log: Mean of the logarithm.
        variance: Of the logarithm.
    """

    log: float
    variance: float

    @classmethod
    def of(cls, lost: np.ndarray, said: np.ndarray, counts: np.ndarray) -> LossRatio:
        """What prompts and their resamples say, weighed with what is usual.

        Args:
            lost: (P,) what each prompt lost.
            said: (P,) what the model said that it would.
            counts: (R, P) resamples of the prompts.
        """
        total = float(said.sum())
        if total <= 0:
            return cls(0.0, MODEL_SPREAD**2 / len(lost))
        least = LEAST * total
        drawn = np.log(np.maximum(counts @ lost, least) / np.maximum(counts @ said, least))
        weight, usual = 1 / max(float(drawn.var()), 1e-6), USUAL_SPREAD**-2
        log = (weight * math.log(max(float(lost.sum()), least) / total) + usual * math.log(USUAL)) / (weight + usual)
        return cls(log, 1 / (weight + usual) + MODEL_SPREAD**2 / len(lost))

    @property
    def mean(self) -> float:
        return math.exp(self.log + self.variance / 2)

    @property
    def likely(self) -> float:
        """Not exceeded in three of four cases."""
        return math.exp(self.log + LIKELY * math.sqrt(self.variance))

    @property
    def upper(self) -> float:
        """Not exceeded in nine of ten cases."""
        return math.exp(self.log + SURE * math.sqrt(self.variance))
