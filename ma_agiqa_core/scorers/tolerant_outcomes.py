"""What a scorer says of pictures, where no picture may end a run: its exceptions become reasons."""

from collections.abc import Sequence

from ..compute.batching import is_out_of_memory
from ..errors import MaAgiqaError, UnusableModelError
from ..pictures.inputs import Picture
from .outcomes import outcomes_of, runs_callers_code
from .picture_scorer import Outcome
from .scorer import Scorer


def tolerant_outcomes(
    scorer: Scorer, pictures: Sequence[Picture], prompts: Sequence[str] | None, batch_size: int | None
) -> list[Outcome]:
    """For each picture its score, or the reason why there is none.

    What a scorer raises of the pictures, or for want of memory, becomes the reason of those that it concerns: they are
    tried in smaller batches, and alone in the end.

    Args:
        scorer: Any.
        pictures: Decoded, none with an error.
        prompts: One for each picture.
        batch_size: How many at a time at most.

    Raises:
        UnusableModelError: None of the pictures can be scored.
        Exception: A bug in a scorer of ours.
    """
    is_worth_trying = bool(pictures)
    while is_worth_trying:
        try:
            return outcomes_of(scorer, pictures, prompts, batch_size)
        except UnusableModelError:  # none of the pictures can be scored
            raise
        except Exception as error:
            is_of_pictures = isinstance(error, MaAgiqaError) or is_out_of_memory(error) or runs_callers_code(scorer)
            if not is_of_pictures:  # a bug of ours
                raise
            if len(pictures) == 1:
                return [_reason(error)]
            if scorer.info.relative:
                raise
            batch_size = min(batch_size or len(pictures), len(pictures)) // 2
            is_worth_trying = is_out_of_memory(error) and batch_size > 0
    alone = [slice(i, i + 1) for i in range(len(pictures))]
    return [tolerant_outcomes(scorer, pictures[i], None if prompts is None else prompts[i], 1)[0] for i in alone]


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "not enough memory to score it"
    return f"cannot be scored: {' '.join(str(error).split()) or type(error).__name__}"
