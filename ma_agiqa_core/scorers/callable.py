"""A scorer out of any function `(images, prompts) -> scores`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import torch

from ..arguments.options import shown
from ..compute.caller_state import as_loaded
from ..compute.progress import tick
from ..errors import MaAgiqaError
from ..pictures.inputs import (
    PictureError,
    PictureInput,
    Pictures,
    UnreadablePictureError,
    as_picture_list,
    load_image,
    path_text,
    read_picture,
)
from ..pictures.prompts import Prompts, check_score_options, resolve_prompts
from .scorer import ScorerInfo, as_scores


class CallableScorer:
    """Wraps a function as a `Scorer`.

    The function gets a list of pictures, files among them read as PIL RGB images and everything else
    as it was given, or the (B, 3, H, W) tensor where one was given; and a list of as many prompts, or
    None. It returns that many numbers, higher is better, as a list, array or tensor. It is the caller's own: other than
    the scorers of this package it runs under whatever the caller has set in torch.

    Args:
        fn: The function.
        name: Short name of the scorer; the other arguments are those of `ScorerInfo`. A relative
            function always gets the whole group in one call.
    """

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
        self.info = ScorerInfo(
            name, revision, low, high, trained_on, needs_prompt, relative, tuple(quantiles), description
        )

    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> torch.Tensor:
        """Scores pictures; see `Scorer.score`.

        Raises:
            PictureError: A picture cannot be read and `on_error` is "raise".
            ValueError: Malformed input, missing prompts, a wrong option; the function returned another
                number of scores or, with `on_error="raise"`, one that is not finite.
        """
        check_score_options(batch_size, on_error)
        pictures = as_picture_list(images)
        texts = resolve_prompts(prompts, len(pictures), self.info.needs_prompt)
        with as_loaded(float32_by_default=False):  # no inference tensor
            scores = torch.full((len(pictures),), math.nan, dtype=torch.float32, device="cpu")
        step = len(pictures) if batch_size is None or self.info.relative else batch_size
        for start in range(0, len(pictures), max(step, 1)):
            batch: list[PictureInput] | torch.Tensor
            if isinstance(images, torch.Tensor) and images.ndim == 4:
                batch = images[start : start + step]
                indices = list(range(start, start + len(batch)))
            else:
                opened = enumerate(pictures[start : start + step], start)
                readable = {i: picture for i, p in opened if (picture := _opened(p, i, on_error)) is not None}
                indices, batch = list(readable), list(readable.values())
            if indices:
                result = self._fn(batch, [texts[i] for i in indices] if texts else None)
                scores[indices] = as_scores(result, len(indices), self.info.name)
                tick(len(indices))
            failed = [i for i in indices if not math.isfinite(scores[i])]
            if failed and on_error == "raise":
                raise MaAgiqaError(
                    f"Expected finite scores from {self.info.name!r}, got {scores[failed[0]]:g} for picture "
                    f"{failed[0]}. Use on_error='nan' to go on without it."
                )
            scores[failed] = math.nan
        return scores


def _opened(picture: PictureInput, index: int, on_error: str) -> Any:
    try:
        if (path := path_text(picture)) is not None:
            return read_picture(path)
        return load_image(picture) if isinstance(picture, PIL.Image.Image) else picture
    except UnreadablePictureError as error:
        if on_error == "raise":
            raise PictureError(index, path_text(picture), str(error)) from error
        return None
