"""The candidates of one prompt, all finished, with every preview on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import PIL.Image


@dataclass(eq=False)
class Candidates:
    """Pictures of one prompt's candidates, and by scheduler call the previews and what they had cost by then.

    All pictures are of 8 bits a channel, so that a scorer sees previews and finished ones alike.
    """

    calls: int = 0
    previews: dict[int, list[PIL.Image.Image]] = field(default_factory=dict)
    evaluations: dict[int, int] = field(default_factory=dict)
    finished: list[PIL.Image.Image] = field(default_factory=list)
    total_evaluations: int = 0
    seconds: float = 0.0
    preview_seconds: float = 0.0

    def extend(self, other: Candidates) -> None:
        """Adds a further batch."""
        self.calls = other.calls
        for step, pictures in other.previews.items():
            self.previews.setdefault(step, []).extend(pictures)
            self.evaluations[step] = self.evaluations.get(step, 0) + other.evaluations[step]
        self.finished += other.finished
        self.total_evaluations += other.total_evaluations
        self.seconds += other.seconds
        self.preview_seconds += other.preview_seconds
