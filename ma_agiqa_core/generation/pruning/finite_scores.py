"""Scores fit for decisions: one finite number for each picture."""

import math
from collections.abc import Sequence

from ...errors import MaAgiqaError, PictureError
from ...pictures.inputs import Pictures
from ...pictures.prompts import Prompts
from ...scorers.scorer import Scorer, as_scores


def finite_scores(
    scorer: Scorer, pictures: Pictures, prompts: Prompts, names: Sequence[str], advice: str = "Fix the scorer."
) -> list[float]:
    """A score for every picture.

    Args:
        scorer: Any `Scorer`.
        pictures: As for `Scorer.score`.
        prompts: As for `Scorer.score`.
        names: What to call each picture in an error.
        advice: What to do, as sentences.

    Raises:
        ValueError: Another number of scores, or one that is not finite.
    """
    name = scorer.info.name
    try:
        scores = as_scores(scorer.score(pictures, prompts=prompts), len(names), name).tolist()
    except PictureError as error:
        raise MaAgiqaError(
            f"Expected finite scores from {name!r}, got none for {names[error.index]}: {error.reason}. {advice}"
        ) from error
    for score, picture in zip(scores, names, strict=True):
        if not math.isfinite(score):
            raise MaAgiqaError(f"Expected finite scores from {name!r}, got {score} for {picture}. {advice}")
    return scores
