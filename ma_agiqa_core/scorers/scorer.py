"""What a scorer is, and what it says about itself."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..arguments.numbers import checked_quantiles
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError
from ..pictures.inputs import Pictures
from ..pictures.prompts import Prompts
from .percentiles import percentile_among


@dataclass(frozen=True)
class ScorerInfo:
    """What a scorer says about itself.

    Attributes:
        name: Short name, e.g. "lite".
        revision: Which weights and settings; another revision may give other scores.
        low: Lower end of the score range.
        high: Upper end; higher is better.
        trained_on: The data behind the scores.
        needs_prompt: Every picture must come with the prompt it was made from.
        relative: Scores compare the pictures of one `score` call and mean nothing outside it.
        quantiles: Scores at evenly spaced shares, 0 % to 100 %, of the pictures that the scorer was
            calibrated on, ascending; empty if it was not calibrated.
        description: One line for people.
        targets: What the model behind it can score, e.g. "quality", "alignment", "authenticity": `load_scorer` takes
            one of them as `target`. Empty if that is not known.
        target: The one of them that it scores; None if that is not known.

    Raises:
        ValueError: An empty score range, or quantiles that are not ascending finite numbers.

    Example:
        >>> info = ScorerInfo("mine", "1", low=0, high=10, trained_on="my pictures", quantiles=(2.0, 5.0, 9.0))
        >>> info.percentile(7)
        75.0
    """

    name: str
    revision: str
    low: float
    high: float
    trained_on: str
    needs_prompt: bool = False
    relative: bool = False
    quantiles: tuple[float, ...] = ()
    description: str = ""
    targets: tuple[str, ...] = ()
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise MaAgiqaError(f"Expected low < high, got {self.low} and {self.high}.")
        object.__setattr__(self, "quantiles", checked_quantiles(self.quantiles))

    def require_scale(self, why: str, instead: str = "Use a single scorer, or combine='calibrated'.") -> None:
        """Refuses a scorer whose scores mean nothing outside the pictures of one call.

        Args:
            why: What needs a scale, after "a scorer with a scale of its own", e.g. "for min_score 5".
            instead: What to do.

        Raises:
            ValueError: The scorer is relative.
        """
        if self.relative:
            raise MaAgiqaError(
                f"Expected a scorer with a scale of its own {why}, got {self.name}, whose scores only compare the "
                f"pictures of one call. {instead}"
            )

    def percentile(self, score: float) -> float | None:
        """The share of the calibration pictures that score lower, 0 to 100, linear between the quantiles.

        Returns:
            None if the scorer was not calibrated, or `score` is NaN.

        Raises:
            ValueError: The scorer is relative.
        """
        self.require_scale("for percentiles")
        # one element of what `score` returns is a tensor, and so would the result be
        return percentile_among(float(score), self.quantiles)

    def percentile_if_known(self, score: float) -> float | None:
        """As `percentile`, and None too where the scorer only compares the pictures of one call."""
        return None if self.relative else self.percentile(score)


@runtime_checkable
class Scorer(Protocol):
    """Anything with `.info` and `.score` ranks, filters and joins an ensemble.

    Example:
        >>> from ma_agiqa_core import load_scorer
        >>> isinstance(load_scorer("lite", device="cpu"), Scorer)
        True
        >>> isinstance("lite", Scorer)
        False
    """

    @property
    def info(self) -> ScorerInfo: ...

    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> torch.Tensor:
        """Scores pictures.

        Args:
            images: One picture, a sequence of pictures, or one tensor (B, 3, H, W) RGB in [0, 1].
            prompts: One for all, or one per picture; required if `info.needs_prompt`.
            batch_size: How many at a time; changes speed and memory, not scores.
            on_error: "raise", or "nan" to score an unreadable picture NaN.

        Returns:
            (N,) float32 on the CPU, in input order, higher is better.

        Raises:
            PictureError: A picture cannot be read and `on_error` is "raise".
            UnusableModelError: A model that is loaded at its first use cannot be loaded.
            ValueError: A malformed array or tensor, missing prompts or a wrong option.
        """
        ...


def as_scores(result: Any, count: int, name: str) -> torch.Tensor:
    """What a scorer returned as float32 (count,) on the CPU.

    Raises:
        ValueError: It is not `count` real numbers.
    """
    try:  # a copy, since torch takes no negative strides
        with as_loaded():  # numbers in a list get the default dtype
            returned = torch.as_tensor(result.copy() if isinstance(result, np.ndarray) else result).detach()
    except (TypeError, ValueError, RuntimeError):
        raise MaAgiqaError(f"Expected {count} numbers from {name!r}, got {type(result).__name__}.") from None
    if returned.squeeze().ndim > 1 or returned.numel() != count or returned.is_complex():
        raise MaAgiqaError(f"Expected {count} scores from {name!r}, got {returned.dtype} {tuple(returned.shape)}.")
    return returned.reshape(count).to("cpu", torch.float32)
