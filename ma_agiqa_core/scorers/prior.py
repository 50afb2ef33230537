"""What a taste sets out from: lite's score, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import MaAgiqaError
from ..pictures.inputs import Picture
from .family import Request
from .lite import LITE_WEIGHTS, load
from .outcomes import outcomes_of
from .picture_features.features import PictureFeatures
from .picture_features.lite_features import LITE, LiteFeatures
from .picture_scorer import Outcome

NO_PRIOR = "none"
PRIORS = (LITE, NO_PRIOR)


class Prior:
    """No prior: every picture is as good as another.

    Attributes:
        name: "none" or "lite".
        revision: Of the scorer.
    """

    name = NO_PRIOR
    revision = ""

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds weights that are not the features' own."""
        return ()

    def standardised(
        self, pictures: Sequence[Picture], descriptions: Tensor, batch_size: int | None = None
    ) -> list[Outcome]:
        """Scores in deviations from the median of the pictures that the prior was calibrated on, or reasons.

        Args:
            pictures: Decoded, none of them broken.
            descriptions: (N, D), theirs.
            batch_size: How many at a time at most.
        """
        return [0.0] * len(pictures)


class LitePrior(Prior):
    """lite's score, out of the description where that is lite's own.

    Args:
        features: What pictures are described by.
        device: Where to compute.
    """

    name = LITE

    def __init__(self, features: PictureFeatures, device: torch.device) -> None:
        self._lite = load(Request(str(LITE_WEIGHTS), device=device))
        self._features = features if isinstance(features, LiteFeatures) else None
        self.revision = self._lite.info.revision
        low, self._median, high = np.quantile(self._lite.info.quantiles, (0.16, 0.5, 0.84)).tolist()
        self._deviation = (high - low) / 2

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        return () if self._features is not None else self._lite.networks

    def standardised(
        self, pictures: Sequence[Picture], descriptions: Tensor, batch_size: int | None = None
    ) -> list[Outcome]:
        if self._features is not None:
            scores: list[Outcome] = list(self._features.quality(descriptions).tolist())
        else:
            scores = outcomes_of(self._lite, pictures, None, batch_size)
        return [score if isinstance(score, str) else (score - self._median) / self._deviation for score in scores]


def load_prior(name: str, features: PictureFeatures, device: torch.device) -> Prior:
    """A prior by its name.

    Raises:
        ValueError: Another name than those of `PRIORS`.
    """
    if name not in PRIORS:
        raise MaAgiqaError(f"Expected 'lite' or 'none' as prior, got {name!r}.")
    return LitePrior(features, device) if name == LITE else Prior()
