"""The sockets SCORER and scores: the connected scorer and what it says of pictures, or scores that are given."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from comfy import model_management
from comfy.utils import ProgressBar
from torch import Tensor

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
    """A score that knows whose it is: links carry it, so that a file of a winner can name the candidate."""

    origin: Origin | None = None

    @classmethod
    def of(cls, score: float, origin: Origin) -> "ScoreOf":
        made = cls(score)
        made.origin = origin
        return made


def origins_of(scores: Any, count: int) -> list[Origin]:
    """Where the pictures of these scores come from; of scores that do not say, their places."""
    known = [getattr(score, "origin", None) for score in _flat(scores)]
    return [origin or Origin(place) for place, origin in enumerate(known if len(known) == count else [None] * count)]


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
    pictures: Sequence[Tensor], scores: Any = None, scorer: Any = None, prompt: Any = None, node_id: str | None = None
) -> list[float]:
    """A score for every picture.

    Args:
        pictures: [H, W, C] as `flattened` gives them.
        scores: The input 'scores'; None asks the scorer.
        scorer: The input 'scorer'.
        prompt: The input 'prompt'.
        node_id: Of the node that shows the progress.

    Raises:
        ValueError: Neither scores nor a scorer, another number of scores than pictures, or pictures that the scorer
            cannot score.
    """
    if scores is not None:
        return one_score_each(scores, len(pictures))
    if (scorer := one_scorer(scorer)) is None:
        raise ValueError("Expected scores or a scorer, got neither. Connect the scores of Score Images, or a scorer.")
    return scores_of(scorer, pictures, prompts_for(prompt, len(pictures)), node_id)


def scores_of(
    scorer: Scorer, pictures: Sequence[Tensor], prompt: str | list[str] | None = None, node_id: str | None = None
) -> list[float]:
    """What a scorer says of every picture, with progress on the node. The interrupt button ends it within a picture.

    Args:
        scorer: From a SCORER link.
        pictures: [H, W, C] as `flattened` gives them.
        prompt: As `prompts_for` gives it.
        node_id: `cls.hidden.unique_id` of the node that shows the progress.

    Raises:
        ValueError: The scorer needs a prompt, or a picture has no score.
    """
    if scorer.info.needs_prompt and not prompt:
        raise ValueError(
            f"Expected a prompt for {scorer.info.name}, which compares pictures with their text, got none. "
            "Connect the text that the pictures were made from to 'prompt'."
        )
    total = len(pictures) * getattr(scorer, "passes", 1)
    bar = ProgressBar(total, node_id=node_id)

    def seen(count: int) -> None:
        model_management.throw_exception_if_processing_interrupted()
        if count:
            bar.update(count)

    with watching(seen):
        scores = scorer.score(for_core(pictures), prompt)
    bar.update_absolute(total)
    return scores.tolist()


def limit_for(min_score: Any, scorer: Any) -> float:
    """The input 'min_score', which means nothing to a scorer without a scale of its own.

    Raises:
        ValueError: The scorer is relative.
    """
    limit = one(min_score, "min score")
    if (scorer := one_scorer(scorer)) is not None and scorer.info.relative:
        raise ValueError(
            f"Expected no min score with {scorer.info.name}, got {limit:g}: its scores only compare the pictures of "
            "one run with each other. Use Select Best Images with 'top k' alone, or combine scorers as 'calibrated'."
        )
    return limit


def _flat(scores: Any) -> Iterator[Any]:
    if isinstance(scores, list | tuple):
        for score in scores:
            yield from _flat(score)
    else:
        yield scores
