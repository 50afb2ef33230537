"""The sockets SCORER and scores: the connected scorer and what it says of pictures, or scores that are given."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from comfy import model_management
from comfy.utils import ProgressBar
from torch import Tensor

from ...ma_agiqa_core.comfyui.limits import CALIBRATED, IN_RUN, OWN_SCALE
from ...ma_agiqa_core.comfyui.selection import one_score_each
from ...ma_agiqa_core.compute.progress import watching
from ...ma_agiqa_core.scorers.scorer import Scorer
from ..scorers.managed_scorer import ManagedScorer
from .images import for_core, one, prompts_for


class Origin(NamedTuple):
    """Where a picture comes from: its number among all candidates, from 0, and the seed of their noise."""

    index: int
    seed: int | None = None


class ScoreOf(float):
    """A score that knows whose it is: links carry it, so that a file of a winner can name the candidate.

    Attributes:
        origin: Where its picture comes from; None if not known.
        percentile: 0 to 100, among the scorer's calibration pictures; None if it has none.
    """

    origin: Origin | None = None
    percentile: float | None = None

    @classmethod
    def of(cls, score: float, origin: Origin | None = None, percentile: float | None = None) -> "ScoreOf":
        made = cls(score)
        made.origin, made.percentile = origin, percentile
        return made


def one_scorer(values: Any) -> ManagedScorer | None:
    """The scorer of an input, None where nothing is connected.

    Raises:
        ValueError: Several, or what another pack calls a SCORER.
    """
    scorer = one(values, "scorer")
    if scorer is not None and not isinstance(scorer, ManagedScorer):
        raise ValueError(
            f"Expected a scorer of Load Image Scorer or Combine Image Scorers, got {type(scorer).__name__}. "
            "Connect one of these nodes."
        )
    return scorer


def scores_for(
    pictures: Sequence[Tensor],
    scores: Any = None,
    scorer: Any = None,
    prompt: Any = None,
    node_id: str | None = None,
    batches: Sequence[int] = (),
) -> list[ScoreOf]:
    """A score for every picture.

    Args:
        pictures: [H, W, C] as `flattened` gives them.
        scores: The input 'scores'; None asks the scorer.
        scorer: The input 'scorer'.
        prompt: The input 'prompt'.
        node_id: Of the node that shows the progress.
        batches: How many pictures each batch of the input 'images' has; a prompt may be of a whole batch.

    Raises:
        ValueError: Neither scores nor a scorer, another number of scores than pictures, or pictures that the scorer
            cannot score.
    """
    if scores is not None:
        return given_scores(scores, len(pictures), scorer)
    if (scorer := one_scorer(scorer)) is None:
        raise ValueError("Expected scores or a scorer, got neither. Connect the scores of Score Images, or a scorer.")
    texts = prompts_for(prompt, len(pictures), batches)
    return given_scores(scores_of(scorer, pictures, texts, node_id), len(pictures))


def given_scores(scores: Any, count: int, scorer: Any = None) -> list[ScoreOf]:
    """The input 'scores', each with its origin, its place where it has none, and its percentile where that is known.

    Args:
        scores: The input 'scores'.
        count: How many pictures there are.
        scorer: The input 'scorer', which says the percentiles of scores that came without.

    Raises:
        ValueError: Another number of scores than pictures, or no numbers.
    """
    values, carried = one_score_each(scores, count), list(_flat(scores))
    scorer = one_scorer(scorer)
    made = []
    for place, value in enumerate(values):
        known = carried[place] if len(carried) == count else None  # a tensor holds many
        percentile = getattr(known, "percentile", None)
        if percentile is None and scorer is not None:
            percentile = scorer.info.percentile_if_known(value)
        made.append(ScoreOf.of(value, getattr(known, "origin", None) or Origin(place), percentile))
    return made


def scores_of(
    scorer: Scorer, pictures: Sequence[Tensor], prompt: str | list[str] | None = None, node_id: str | None = None
) -> list[ScoreOf]:
    """What one scorer says of every picture; see `scores_of_each`."""
    return scores_of_each([scorer], pictures, prompt, node_id)[0]


def scores_of_each(
    scorers: Sequence[Scorer],
    pictures: Sequence[Tensor],
    prompt: str | list[str] | None = None,
    node_id: str | None = None,
) -> list[list[ScoreOf]]:
    """What each scorer says of every picture, with one progress bar on the node.

    The interrupt button ends it within a picture.

    Args:
        scorers: From SCORER links.
        pictures: [H, W, C] as `flattened` gives them.
        prompt: As `prompts_for` gives it.
        node_id: `cls.hidden.unique_id` of the node that shows the progress.

    Raises:
        ValueError: A scorer needs a prompt, or a picture has no score.
    """
    for scorer in scorers:
        if scorer.info.needs_prompt and not prompt:
            raise ValueError(
                f"Expected a prompt for {scorer.info.name}, which compares pictures with their text, got none. "
                "Connect the text that the pictures were made from to 'prompt'."
            )
    totals = [len(pictures) * getattr(scorer, "passes", 1) for scorer in scorers]
    bar = ProgressBar(sum(totals), node_id=node_id)

    def seen(count: int) -> None:
        model_management.throw_exception_if_processing_interrupted()
        if count:
            bar.update(count)

    given, columns = for_core(pictures), []
    for number, scorer in enumerate(scorers, start=1):
        with watching(seen):
            scores = scorer.score(given, prompt)
        bar.update_absolute(sum(totals[:number]))
        columns.append(
            [ScoreOf.of(score, percentile=scorer.info.percentile_if_known(score)) for score in scores.tolist()]
        )
    return columns


def limit_for(min_score: Any, scorer: Any, measure: Any = OWN_SCALE) -> float:
    """The input 'min_score', on a scale that the scorer has.

    Args:
        min_score: The input.
        scorer: The input 'scorer'.
        measure: The input 'min_score_as', one of the core's `MEASURES`.

    Raises:
        ValueError: The scorer is relative, or has no percentiles; or a percentile above 100.
    """
    limit, measure = one(min_score, "min score"), one(measure, "min score is")
    if measure != OWN_SCALE and not 0 <= limit <= 100:
        raise ValueError(
            f"Expected a {measure} from 0 to 100 as min score, got {limit:g}. Lower it, or set 'min score is' to score."
        )
    if measure == IN_RUN or (scorer := one_scorer(scorer)) is None:
        return limit
    if scorer.info.relative:
        raise ValueError(
            f"Expected no min score with {scorer.info.name}, got {limit:g}: its scores only compare the pictures of "
            "one run with each other. Use Select Best Images with 'top k' alone, or combine scorers as 'calibrated'."
        )
    if measure == CALIBRATED and not scorer.info.quantiles:
        raise ValueError(
            f"Expected a scorer with percentiles, got {scorer.info.name}, which has none. Set 'min score is' to score "
            f"or to '{IN_RUN}'."
        )
    return limit


def _flat(scores: Any) -> Iterator[Any]:
    if isinstance(scores, list | tuple):
        for score in scores:
            yield from _flat(score)
    else:
        yield scores
