"""The callback that a training run reports to; the command line's shows a progress bar and a line per epoch."""

from __future__ import annotations

from typing import Any


class TrainingProgress:
    """Called as a training run proceeds. Does nothing; override what is of interest."""

    def preparing(self, what: str, total: int) -> None:
        """Before training, `total` pictures are about to be prepared: decoded, or shown to the semantic model."""

    def prepared(self, pictures: int) -> None:
        """So many more pictures have been prepared."""

    def begins(self, epochs: int, steps: int, done: int) -> None:
        """Training begins: `steps` of each epoch; `done` steps of all epochs were done by the run that it resumes."""

    def stepped(self) -> None:
        """One more step is done."""

    def epoch_ends(self, figures: dict[str, Any]) -> None:
        """An epoch is done: its entry in the history of `metrics.json`."""
