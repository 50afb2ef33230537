"""What comes with pictures that are to be scored: a prompt for each, and the options of `Scorer.score`."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from ..arguments.numbers import whole_number
from ..arguments.options import listed_prompts, shown
from ..errors import MaAgiqaError

Prompts: TypeAlias = str | Sequence[str] | None
"""One prompt for all pictures, one for each, or none."""

NO_PROMPT = "no prompt for this picture"
"""The reason of a picture that has none, where one is needed."""

_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


def resolve_prompts(prompts: Prompts, count: int, needs_prompt: bool) -> list[str] | None:
    """One prompt per picture, or None where there are none.

    Args:
        prompts: A string for all, or one for each picture in a list, tuple, array, series or any other iterable with
            an order.
        count: Of the pictures.
        needs_prompt: None and empty ones are refused.

    Raises:
        ValueError: Not one prompt for all or one for each, or a prompt is missing that the scorer needs.
    """
    if prompts is None:
        texts = None
    else:
        texts = [prompts] * count if isinstance(prompts, str) else listed_prompts(prompts)
        if len(texts) != count:
            raise MaAgiqaError(f"Expected one prompt, or one for each of {count} pictures, got {len(texts)}.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise MaAgiqaError(f"Expected a prompt for picture {index}, got {shown(text)}. Pass a string.")
        texts = [str.__str__(text) for text in texts]  # numpy.str_ and the like: tokenizers take no subclasses
    if needs_prompt and count:
        if texts is None:
            raise MaAgiqaError("Expected prompts, got None. This scorer needs the prompt of every picture.")
        if missing := [index for index, text in enumerate(texts) if not text.strip()]:
            raise MaAgiqaError(f"Expected a prompt for picture {missing[0]}, got an empty one. This scorer needs it.")
    return texts


def prompt_fault(prompt: str) -> str | None:
    """Why no tokenizer takes a prompt, as the reason of its picture; None if there is nothing wrong with it."""
    if (half := _HALF_CHARACTER.search(prompt)) is None:
        return None
    return (
        f"its prompt has half a character, {half[0]!a} at {half.start()}, as an emoji cut in two leaves: write it again"
    )


def check_score_options(batch_size: int | None, on_error: str) -> None:
    """Refuses options that no scorer's `score` has.

    Raises:
        ValueError: `batch_size` is no whole number, or below 1; an `on_error` that is neither "raise" nor "nan".
    """
    if batch_size is not None and ((number := whole_number(batch_size)) is None or number < 1):
        raise MaAgiqaError(
            f"Expected a batch_size of at least 1, or None, got {shown(batch_size)}. Pass a whole number."
        )
    if not isinstance(on_error, str) or on_error not in ("raise", "nan"):
        raise MaAgiqaError(f"Expected on_error 'raise' or 'nan', got {shown(on_error)}.")
