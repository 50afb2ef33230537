"""The loop of scorers that run a network: pictures decoded ahead, in groups, each with a score or a reason."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from ..errors import MaAgiqaError
from ..pictures.groups import picture_groups
from ..pictures.inputs import Picture, PictureError, PictureInput
from .scorer import Scorer, as_scores

Outcome = float | str
"""A score, or the reason why there is none."""


def score_in_groups(
    inputs: Sequence[PictureInput], score_group: Callable[[list[Picture]], Sequence[Outcome]], on_error: str
) -> Tensor:
    """What `Scorer.score` returns.

    Args:
        inputs: As `as_picture_list` gives them.
        score_group: The outcome for each picture of a group.
        on_error: "raise", or "nan".

    Returns:
        (N,) float32, NaN where a picture has no score.

    Raises:
        PictureError: A picture has no score, and `on_error` is "raise".
    """
    scores = torch.full((len(inputs),), torch.nan, dtype=torch.float32, device="cpu")
    for group in picture_groups(inputs):
        for picture, outcome in zip(group, score_group(group), strict=True):
            if isinstance(outcome, float):
                scores[picture.index] = outcome
            elif on_error == "raise":
                raise PictureError(picture.index, picture.path, outcome)
    return scores


def outcomes(errors: Sequence[str | None], values: Iterable[float]) -> list[Outcome]:
    """Puts scores and reasons together.

    Args:
        errors: Why a picture could not be given to the network, else None.
        values: What the network said of the others, in order; one that is not finite is no score.
    """
    left = iter(values)
    return [_outcome(next(left)) if error is None else error for error in errors]


def score_again(scorer: Scorer, picture: PictureInput, prompt: str | None) -> Outcome:
    """Of a picture that was scored NaN: the reason that the scorer has for it, NaN if it has none."""
    if not scorer.info.relative:
        with suppress(MaAgiqaError):  # of scorers that have no reasons
            try:
                return as_scores(scorer.score([picture], prompts=prompt, on_error="raise"), 1, scorer.info.name).item()
            except PictureError as error:
                return error.reason
    return math.nan


def _outcome(value: float) -> Outcome:
    return value if math.isfinite(value) else f"its score is {value}: use dtype 'float32'"
