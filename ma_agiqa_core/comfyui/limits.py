"""What is good enough: a lowest score on the scorer's own scale, or a percentile, which is the same for all scorers.

A percentile is among the scorer's calibration pictures, or, for scorers without a scale, among the pictures of the run.
"""

import math
from collections.abc import Sequence

from ..errors import MaAgiqaError
from ..scorers.percentiles import percentile_among

OWN_SCALE, CALIBRATED, IN_RUN = "score", "percentile", "percentile in this run"
MEASURES = (OWN_SCALE, CALIBRATED, IN_RUN)


def lowest_passing(
    scores: Sequence[float], limit: float, measure: str = OWN_SCALE, percentiles: Sequence[float | None] = ()
) -> float:
    """The lowest of the scores that reaches a limit, infinity if none does; of the scorer's own scale the limit.

    Args:
        scores: Higher is better.
        limit: As `measure` says.
        measure: One of `MEASURES`.
        percentiles: Of the scores among the scorer's calibration pictures, 0 to 100; for `CALIBRATED`.

    Raises:
        ValueError: As for `measured`.

    Example:
        >>> lowest_passing([5.1, 7.3, 6.2], 50, "percentile in this run")
        6.2
    """
    if measure == OWN_SCALE:
        return limit
    values = measured(scores, measure, percentiles)
    return min((score for score, value in zip(scores, values, strict=True) if value >= limit), default=math.inf)


def percentiles_in_run(scores: Sequence[float]) -> list[float]:
    """How many of the other pictures each one beats, in percent, ties counted half; 100 for one alone, NaN for NaN.

    Example:
        >>> percentiles_in_run([5.1, 7.3, 6.2])
        [0.0, 100.0, 50.0]
    """
    known = sorted(score for score in scores if not math.isnan(score))
    if len(known) == 1:
        return [math.nan if math.isnan(score) else 100.0 for score in scores]
    shares = [percentile_among(score, known) for score in scores]
    return [math.nan if share is None else share for share in shares]


def measured(scores: Sequence[float], measure: str, percentiles: Sequence[float | None]) -> list[float]:
    """The scores as `measure` says, NaN where there is none.

    Raises:
        ValueError: An unknown `measure`, or scores without percentiles.
    """
    if measure == OWN_SCALE:
        return list(scores)
    if measure == IN_RUN:
        return percentiles_in_run(scores)
    if measure != CALIBRATED:
        raise MaAgiqaError(f"Expected {', '.join(MEASURES)} as what the minimum score is, got {measure!r}.")
    unknown = sum(
        percentile is None and not math.isnan(score) for score, percentile in zip(scores, percentiles, strict=True)
    )
    if unknown:
        raise MaAgiqaError(
            f"Expected scores with percentiles, got {unknown} of {len(scores)} without. Connect the scorer as well if "
            f"it has percentiles, or choose '{IN_RUN}'."
        )
    return [math.nan if percentile is None else percentile for percentile in percentiles]
