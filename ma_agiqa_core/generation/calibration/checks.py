"""What `calibrate` is asked for; refused before anything is generated."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...arguments.numbers import real_number
from ...errors import MaAgiqaError
from ..best_of.request import check_pipeline, whole_text
from ..pipelines.rows_of_a_call import ONE_PICTURE_ARGUMENTS, rows_argument
from ..pruning.schedule import checked_fraction


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
        whole_text(f"prompt {number}", prompt)
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
    fractions = sorted({checked_fraction(one) for one in given})
    if not fractions:
        raise MaAgiqaError("Expected at least one fraction, got none.")
    return fractions


def check_call(pipe: Any, arguments: Mapping[str, Any]) -> str | None:
    """The argument for the number of pictures, None for one a call; refuses what `best_of_n` refuses, and more."""
    known = inspect.signature(type(pipe).__call__).parameters
    if "callback_on_step_end" not in known:
        raise MaAgiqaError(
            f"Expected a pipeline with callback_on_step_end, got {type(pipe).__name__}: its candidates cannot "
            "be seen on the way, and nothing can be dropped there."
        )
    check_pipeline(pipe, arguments, is_pruned=False)
    for name in arguments:
        if name in ("prompt", "output_type"):
            raise MaAgiqaError(f"Expected no {name} among the pipeline's arguments, got one. calibrate sets it itself.")
        if name not in known:  # also where there is a **kwargs: it only serves arguments of old
            raise MaAgiqaError(f"Expected arguments of {type(pipe).__name__}, got {name!r}. Is it misspelt?")
    if "prompt" not in known:
        raise MaAgiqaError(f"Expected a pipeline that makes pictures from a prompt, got {type(pipe).__name__}.")
    if any(arguments.get(name) is not None for name in ONE_PICTURE_ARGUMENTS):
        raise MaAgiqaError(
            f"Expected arguments with which {type(pipe).__name__} makes several pictures in a call, got "
            f"{', '.join(sorted(arguments))}. Leave out {' and '.join(reversed(ONE_PICTURE_ARGUMENTS))}."
        )
    return rows_argument(pipe, arguments)
