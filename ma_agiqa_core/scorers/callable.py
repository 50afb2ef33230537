"""A scorer out of any function `(images, prompts) -> scores`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import PIL.Image
from torch import Tensor

from ..arguments.options import shown
from ..compute.progress import tick
from ..errors import MaAgiqaError, PictureError, UnreadablePictureError
from ..pictures.given import as_given, is_batch, of_batch
from ..pictures.inputs import Picture, PictureInput, Pictures, load_image, path_of, read_picture
from .picture_scorer import Outcome, PictureScorer, joined
from .scorer import ScorerInfo, as_scores


class CallableScorer(PictureScorer):
    """Wraps a function as a `Scorer`.

    The function gets a list of pictures, files among them read as PIL RGB images and everything else
    as it was given, or the (B, 3, H, W) tensor where one was given; and a list of as many prompts, or
    None. It returns that many numbers, higher is better, as a list, array or tensor. It is the caller's own: other than
    the scorers of this package it runs under whatever the caller has set in torch.

    Args:
        fn: The function.
        name: Short name of the scorer; the other arguments are those of `ScorerInfo`. A relative
            function always gets the whole group in one call.

    Example:
        >>> import numpy as np
        >>> def brightness(images, prompts):
        ...     return [float(np.asarray(image).mean()) for image in images]
        >>> scorer = CallableScorer(brightness, name="brightness", high=255)
        >>> scorer.score([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8)])
        tensor([ 0., 51.])
    """

    is_callers_own = True

    def __init__(
        self,
        fn: Callable[[Any, list[str] | None], Any],
        *,
        name: str,
        revision: str = "",
        low: float = 0.0,
        high: float = 1.0,
        trained_on: str = "",
        needs_prompt: bool = False,
        relative: bool = False,
        quantiles: Sequence[float] = (),
        description: str = "",
    ) -> None:
        if not callable(fn):
            raise MaAgiqaError(f"Expected a function (images, prompts) -> scores, got {shown(fn)}.")
        self._fn = fn
        self._info = ScorerInfo(
            name, revision, low, high, trained_on, needs_prompt, relative, tuple(quantiles), description
        )

    @property
    def info(self) -> ScorerInfo:
        return self._info

    def set_up(self) -> AbstractContextManager[None]:
        """Nothing: the function is the caller's own."""
        return nullcontext()

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """What the function says of every picture; see `PictureScorer.outcomes`.

        Raises:
            ValueError: The function returned another number of scores.
        """
        remaining, done = iter(pictures), 0
        while batch := list(islice(remaining, None if self.info.relative else batch_size)):
            readable = [row for row, picture in enumerate(batch, done) if picture.error is None]
            values: list[float] = []
            if readable:
                result = self._fn(
                    as_given([batch[row - done] for row in readable]),
                    [prompts[row] for row in readable] if prompts else None,
                )
                values = as_scores(result, len(readable), self.info.name).tolist()
                tick(len(readable))
            yield from joined([picture.error for picture in batch], values, self._why)
            done += len(batch)

    def _why(self, value: float) -> str:
        return f"{self.info.name} returned {value}"

    def _decoded(self, inputs: Sequence[PictureInput], images: Pictures, on_error: str) -> Iterator[Picture]:
        """Opened and no more, since the function gets them as they are; in no threads ahead of it."""
        opened = (_opened(given, index) for index, given in enumerate(inputs))
        for picture in of_batch(opened, images) if isinstance(images, Tensor) and is_batch(images) else opened:
            if picture.error is not None and on_error == "raise":  # before the function is called in vain
                raise PictureError(picture.index, picture.path, picture.error)
            yield picture


def _opened(given: PictureInput, index: int) -> Picture:
    path = path_of(given)
    try:
        if path is not None:
            return Picture(index, path, None, None, read_picture(path))
        if isinstance(given, PIL.Image.Image):
            load_image(given)
        return Picture(index, None, None, None, given)
    except UnreadablePictureError as error:
        return Picture(index, path, None, str(error), given)
