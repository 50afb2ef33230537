"""What looking at previews takes, beside what dropping saves: measured while a run goes on, told where it does not pay.

With few steps, a large VAE or a large judge, a preview and its score may take as long as several network evaluations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...compute.device_clock import device_clock
from .rule import PruningStep


@dataclass(frozen=True)
class LookCost:
    """Of one run, or of several together.

    Attributes:
        previews: How many were made and scored.
        seconds: What they took.
        saved_evaluations: Of the network, which the dropped candidates did not need.
        saved_seconds: What these would have taken.
    """

    previews: int = 0
    seconds: float = 0.0
    saved_evaluations: float = 0.0
    saved_seconds: float = 0.0

    def __add__(self, other: LookCost) -> LookCost:
        return LookCost(
            self.previews + other.previews,
            self.seconds + other.seconds,
            self.saved_evaluations + other.saved_evaluations,
            self.saved_seconds + other.saved_seconds,
        )

    @property
    def advice(self) -> str:
        """The arithmetic, where looking took longer than dropping saved; else ""."""
        if self.seconds <= self.saved_seconds:
            return ""
        return (
            f"previews cost more than they saved: {self.previews} previews with their scores took {self.seconds:.3g} "
            f"s, and the {self.saved_evaluations:.0f} network evaluations that dropping saved would have taken "
            f"{self.saved_seconds:.3g} s. Finish all candidates, or take a faster decoder (preview='tiny') or a "
            "faster early_scorer"
        )


class LookTimer:
    """Measures a run that prunes.

    Attributes:
        previews: Looked at so far.
        seconds: What that took.
    """

    def __init__(self) -> None:
        self.previews = 0
        self.seconds = 0.0
        self._began = device_clock()
        self._denoising, self._evaluations = 0.0, 0  # until the last look

    @contextmanager
    def looking(self, previews: int, evaluations: int) -> Iterator[None]:
        """While previews are made or scored.

        Args:
            previews: How many more there are by this.
            evaluations: Of the network, until now.
        """
        began = device_clock()
        self._denoising, self._evaluations = began - self._began - self.seconds, evaluations
        yield
        self.previews += previews
        self.seconds += device_clock() - began

    def cost(self, history: Sequence[PruningStep], rows: Collection[int], evaluations: int) -> LookCost:
        """What came of it.

        Args:
            history: How these and other candidates were pruned.
            rows: Those of this run.
            evaluations: Of the network, for them, to the end.
        """
        saved = sum((1 - step.fraction) * sum(row in rows for row in step.dropped) for step in history)
        if not saved or not self._evaluations:
            return LookCost(self.previews, self.seconds)
        saved *= evaluations / (len(rows) - saved)  # those of one whole candidate
        return LookCost(self.previews, self.seconds, saved, saved * self._denoising / self._evaluations)
