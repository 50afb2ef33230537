"""The base class of scorers: one `score` for all, over what each says of decoded pictures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import final

import torch
from torch import Tensor

from ..compute.caller_state import as_loaded
from ..errors import PictureError
from ..pictures.given import is_batch, of_batch
from ..pictures.groups import grouped
from ..pictures.inputs import Picture, PictureInput, Pictures, as_picture_list, iterate_pictures, path_of
from ..pictures.prompts import Prompts, check_score_options, resolve_prompts
from .scorer import ScorerInfo

Outcome = float | str
"""A finite score, or the reason why there is none, in one line."""


class PictureScorer(ABC):
    """A `Scorer` that only has to say what comes out for decoded pictures.

    Subclasses give `info` and `outcomes`. Options, every kind of input, prompts, unreadable pictures, the caller's
    settings of torch and the form of the result are the same for all and are dealt with here.

    Attributes:
        is_callers_own: It runs code of the caller's, whose mistakes are none of this package.

    Example:
        >>> class Width(PictureScorer):
        ...     info = ScorerInfo(name="width", revision="1", low=0, high=4096, trained_on="")
        ...
        ...     def outcomes(self, pictures, prompts, batch_size):
        ...         for picture in pictures:
        ...             yield picture.error or float(picture.width)
        >>> Width().score([torch.zeros(3, 8, 8), torch.zeros(3, 8, 16)])
        tensor([ 8., 16.])
    """

    is_callers_own: bool = False

    @property
    @abstractmethod
    def info(self) -> ScorerInfo: ...

    @abstractmethod
    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """What comes out for every picture, in order.

        Args:
            pictures: Decoded while they are asked for; one that cannot be read has an `error`, which is its outcome.
                Only as many as a batch needs should be held.
            prompts: One for each picture; never None if `info.needs_prompt`.
            batch_size: How many at a time at most; None leaves it to the scorer.

        Raises:
            UnusableModelError: A model that is loaded at its first use cannot be loaded.
        """
        ...

    def set_up(self) -> AbstractContextManager[None]:
        """Around `outcomes`: sets aside what the caller has set in torch."""
        return as_loaded(float32_by_default=False)

    @final
    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> Tensor:
        """Scores pictures; see `Scorer.score`.

        Raises:
            PictureError: A picture cannot be read or scored and `on_error` is "raise".
            UnusableModelError: A model that is loaded at its first use cannot be loaded.
            ValueError: A malformed array or tensor, missing prompts, or a wrong option.
        """
        outcomes = self.explain(images, prompts, batch_size, on_error)
        scores = [math.nan if isinstance(outcome, str) else outcome for outcome in outcomes]
        with as_loaded(float32_by_default=False):  # else the caller's inference mode and default device have a say
            return torch.tensor(scores, dtype=torch.float32, device="cpu")

    @final
    def explain(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "nan",
    ) -> list[Outcome]:
        """As `score`, with a reason in the place of every NaN."""
        check_score_options(batch_size, on_error)
        found: list[Outcome] = []
        with self.set_up():
            inputs = as_picture_list(images)
            texts = resolve_prompts(prompts, len(inputs), self.info.needs_prompt)
            outcomes = self.outcomes(self._decoded(inputs, images, on_error), texts, batch_size)
            for index, (given, outcome) in enumerate(zip(inputs, outcomes, strict=True)):
                if isinstance(outcome, str) and on_error == "raise":
                    raise PictureError(index, path_of(given), outcome)
                found.append(outcome)
        return found

    def _decoded(self, inputs: Sequence[PictureInput], images: Pictures, on_error: str) -> Iterable[Picture]:
        """The pictures for `outcomes`, from `images` and the same as a list."""
        pictures = iterate_pictures(inputs)
        return of_batch(pictures, images) if isinstance(images, Tensor) and is_batch(images) else pictures


def joined(errors: Sequence[str | None], values: Iterable[float], why: Callable[[float], str]) -> list[Outcome]:
    """Puts scores and reasons together.

    Args:
        errors: Why a picture could not be given to the network, else None.
        values: What the network said of the others, in order; one that is not finite is no score.
        why: The reason then.
    """
    left = iter(values)
    found = [next(left) if error is None else error for error in errors]
    return [outcome if isinstance(outcome, str) or math.isfinite(outcome) else why(outcome) for outcome in found]


def in_groups(
    pictures: Iterable[Picture], prompts: Sequence[str] | None
) -> Iterator[tuple[list[Picture], list[str] | None]]:
    """Pictures with their prompts, as many at a time as fit into memory."""
    done = 0
    for group in grouped(pictures):
        yield group, None if prompts is None else list(prompts[done : done + len(group)])
        done += len(group)


def precision_reason(value: float) -> str:
    """For `joined`, of a network that also computes in half precision."""
    return f"its score is {value}: use dtype 'float32'"
