"""What `calibrate` is asked for, apart from the pipeline's arguments; what of it is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...arguments.numbers import real_number
from ...errors import MaAgiqaError


def given_prompts(prompts: Any) -> tuple[str, ...]:
    """One or more texts.

    Raises:
        ValueError: None, or something else than text.
    """
    if prompts is not None and not isinstance(prompts, str | Sequence | np.ndarray):
        raise MaAgiqaError(f"Expected a text or a list of texts as prompts, got {prompts!r}.")
    given = (prompts,) if isinstance(prompts, str) else () if prompts is None else tuple(prompts)
    for number, prompt in enumerate(given):
        if not isinstance(prompt, str) or not prompt.strip():
            raise MaAgiqaError(f"Expected a text as prompt {number}, got {prompt!r}.")
    if not given:
        raise MaAgiqaError("Expected at least one prompt, got none.")
    return given


def checked_share(given: Any) -> float:
    """A share of the gain, above 0 and up to 1.

    Raises:
        ValueError: It is none.
    """
    share = real_number(given)
    if share is None or not 0 < share <= 1:
        raise MaAgiqaError(f"Expected target_share above 0 and up to 1, got {given!r}. 0.9 is 90 % of the gain.")
    return share


def checked_fractions(given: Any) -> list[float]:
    """Fractions of the steps, between 0 and 1, ascending and each once.

    Raises:
        ValueError: There are none, or one is out of range or no number.
    """
    if not isinstance(given, Sequence | np.ndarray | torch.Tensor) or isinstance(given, str):
        raise MaAgiqaError(f"Expected a list of fractions, got {given!r}. 0.4 is after 40 % of the steps.")
    numbers = [(real_number(one), one) for one in given]
    if not numbers:
        raise MaAgiqaError("Expected at least one fraction, got none.")
    for fraction, one in numbers:
        if fraction is None or not 0 < fraction < 1:  # NaN is not either
            got = one if fraction is None else fraction
            raise MaAgiqaError(f"Expected fractions between 0 and 1, got {got!r}. 0.4 is after 40 % of the steps.")
    return sorted({fraction for fraction, _ in numbers if fraction is not None})
