"""What a training tells whoever watches it; the command line shows a progress bar and lines."""

from __future__ import annotations

from typing import Any


class Watch:
    """Is told how a training goes; this one listens to nothing."""

    def preparing(self, what: str, total: int) -> None:
        """Pictures are looked at before training: `total` of them."""

    def prepared(self, pictures: int) -> None:
        """So many more of them are done."""

    def begins(self, epochs: int, steps: int, done: int) -> None:
        """`steps` of an epoch; `done` steps of all epochs were done by the run that this one goes on with."""

    def stepped(self) -> None:
        """One more step."""

    def epoch_ends(self, figures: dict[str, Any]) -> None:
        """The epoch's entry in the history of `metrics.json`."""
