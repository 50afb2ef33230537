"""What the command line shows while a model is trained, and afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from ..training.progress import TrainingProgress

if TYPE_CHECKING:
    from ..training.train import TrainingResult

_FIGURES = ("srcc", "plcc", "krcc", "rmse")


class TerminalProgress(TrainingProgress):
    """A bar over steps and a line for each epoch, on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._epochs = 0

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._begin_bar(None, "")
        if kind is KeyboardInterrupt:
            click.echo("Interrupted. --resume continues from the last state.", err=True)

    def preparing(self, what: str, total: int) -> None:
        self._begin_bar(total, what)

    def prepared(self, pictures: int) -> None:
        self._bar.update(pictures)

    def begins(self, epochs: int, steps: int, done: int) -> None:
        self._epochs = epochs
        self._begin_bar(epochs * steps, "training", min(done, epochs * steps))
        if done:
            click.echo(f"Resuming after {done} of {epochs * steps} steps.", err=True)

    def stepped(self) -> None:
        self._bar.update(1)

    def epoch_ends(self, figures: dict[str, Any]) -> None:
        agreement = "; ".join(
            f"{target} SRCC {_number(entry['srcc'])}, PLCC {_number(entry['plcc'])}"
            for target, entry in figures["val"].items()
        )
        with tqdm.external_write_mode():
            epoch = f"Epoch {figures['epoch']:>{len(str(self._epochs))}} of {self._epochs}"
            click.echo(f"{epoch}: loss {figures['loss']:.4f}; validation: {agreement}", err=True)

    def _begin_bar(self, total: int | None, what: str, done: int = 0) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if total is not None:
            self._bar = tqdm(total=total, initial=done, desc=what, leave=False, dynamic_ncols=True, disable=None)


def training_table(result: TrainingResult) -> str:
    """The best epoch's figures on validation and test, one line each, and why one is undefined."""
    from ..training.baselines import comparison_lines  # imports torch

    lines = [f"{'TARGET':<12}  {'PART':<4}  {'N':>5}  " + "  ".join(f"{name.upper():>7}" for name in _FIGURES)]
    reasons = []
    for target, parts in result.figures.items():
        for part, figures in parts.items():
            numbers = "  ".join(f"{_number(figures[name]):>7}" for name in _FIGURES)
            lines.append(f"{target:<12}  {part:<4}  {figures['n']:>5}  {numbers}")
            said = [figures[name] for name in ("undefined", "note") if figures["n"] and name in figures]
            reasons += [f"{target}, {part}: {text}." for text in said]
    closing = f"Last of {len(result.history)} epochs: validation SRCC and PLCC are undefined."
    if result.is_chosen:
        closing = f"Best of {len(result.history)} epochs by validation SRCC + PLCC: {result.best_epoch}."
    return "\n".join([*lines, *reasons, closing, *comparison_lines(result.comparisons)])


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
