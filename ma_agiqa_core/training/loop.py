"""The training loop, flat, on accelerate.

All random draws depend only on the seed and on where the loop is, so that the state on disk needs no random numbers: a
run that was killed resumes to the same weights, on the CPU bit for bit.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..atomic_write import atomic_write
from ..checkpoint import load_checkpoint, save_checkpoint
from ..compute.progress import watching
from ..errors import MaAgiqaError
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..pictures.inputs import PictureError
from ..scorers.picture_features.features import PictureFeatures
from ..semantic.extractor import SemanticExtractor
from .augmentation import torch_seed
from .baselines import Comparison, compare
from .batches import Batch, Batches
from .curves_plot import plot_curves
from .description_start import start_from_descriptions
from .descriptions import Descriptions
from .losses import rank_loss, squared_error
from .network import TrainedNetwork, new_average, new_network, new_optimizer
from .outputs import (
    checkpoint_facts,
    final_figures,
    is_better,
    selection_value,
    validation_figures,
    write_json,
    write_metrics,
    write_predictions,
)
from .progress import TrainingProgress
from .settings import TrainingSettings
from .state import MODEL, LoopState, SavedState, StateFolder, collect, disk_errors_explained, restore

_DROPOUT = 4  # which of the seed's streams of random numbers
CHOSEN = "SRCC + PLCC of validation"
CHOSEN_AS_LAST = "the last epoch, since SRCC and PLCC of validation are undefined"
_PREDICTED_AT_ONCE = {"cuda": 64}
_PREDICTED_AT_ONCE_ELSEWHERE = 16


@dataclass(frozen=True)
class TrainingResult:
    """What came out.

    Attributes:
        model: The checkpoint of the best epoch.
        best_epoch: From 1.
        figures: By target, "val" and "test": srcc, plcc, krcc, rmse and n.
        history: Of each epoch the loss and the validation's figures.
        comparisons: By target, how it fares beside what knows less; empty on other processes than the main one.
        is_main: Whether this process wrote the files; of several only one did.
        is_chosen: Whether validation chose the epoch; else it is just the last.
    """

    model: Path
    best_epoch: int
    figures: dict[str, dict[str, Any]]
    history: list[dict[str, Any]]
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    is_main: bool = True
    is_chosen: bool = True


@dataclass
class TrainingRun:
    """All that lives as long as the loop does."""

    accelerator: Accelerator
    settings: TrainingSettings
    labelled: LabelledSet
    split: Split
    out: Path
    features: PictureFeatures | None
    extractor: SemanticExtractor | None
    identity: dict[str, Any]
    saved: SavedState | None
    batches: Batches
    state: StateFolder
    progress: TrainingProgress
    local_files_only: bool

    def __post_init__(self) -> None:
        settings, saved, device = self.settings, self.saved, self.accelerator.device
        self.loop = LoopState() if saved is None else saved.loop
        self.targets = self.labelled.targets
        self.labels = self.batches.data.labels
        mean, deviation = mean_and_deviation(self.labels[list(self.split.train)])
        self.scale = (deviation if settings.normalise_labels else torch.ones_like(deviation)).to(device)
        self.network = new_network(
            settings if saved is None else replace(settings, pretrained=False, dct_patch_init=False),
            targets=self.targets,
            semantic_dim=0 if self.extractor is None else self.extractor.hidden_size,
            mean=mean,
            deviation=deviation,
            features=self.features,
            local_files_only=self.local_files_only,
        ).to(device)
        self.average = new_average(self.network, settings.ema)
        self.optimizer = new_optimizer(self.network, settings, device)
        if saved is not None:
            restore(saved.tensors, **self._parts)
        elif isinstance(self.batches.data.pixels, Descriptions) and self.features is not None:
            rows = list(self.split.train)
            start_from_descriptions(
                self.network.model,
                torch.stack([self.batches.data.pixels[row] for row in rows]).to(device),
                self.labels[rows].to(device),
                {name: vector[rows].to(device) for name, vector in self.batches.data.vectors.items()},
                self.features,
            )
        self.wrapped, self.stepper = self.accelerator.prepare(self.network, self.optimizer)
        scaler = self.accelerator.scaler
        if scaler is not None and self.loop.scaler:
            scaler.load_state_dict(self.loop.scaler)
        precise = torch.float32 if device.type == "mps" else torch.float64
        before = self.loop.loss if self.accelerator.is_main_process else 0.0
        self.loss_sum = torch.tensor(before, dtype=precise, device=device)  # of this epoch, this process's share

    def run(self) -> None:
        """The loop."""
        settings, loop, accelerator = self.settings, self.loop, self.accelerator
        steps = self.batches.steps(self.split.train)
        self.progress.begins(settings.epochs, steps, loop.epoch * steps + loop.step)
        for epoch in range(loop.epoch, settings.epochs):
            self.wrapped.train()
            with closing(self.batches.epoch(self.split.train, epoch, loop.step)) as batches:
                for step in range(loop.step, steps):
                    self._set_rate(epoch * steps + step, steps * settings.epochs)
                    for part in range(settings.accumulate):
                        batch = next(batches).to(accelerator.device)
                        numbers = (epoch * steps + step, part, accelerator.process_index)
                        torch.manual_seed(torch_seed(settings.seed, _DROPOUT, *numbers))
                        is_last = part == settings.accumulate - 1
                        with nullcontext() if is_last else accelerator.no_sync(self.wrapped):
                            loss = self._loss(batch)
                            accelerator.backward(loss)
                        self.loss_sum += loss.detach() / accelerator.num_processes
                    self.stepper.step()
                    self.stepper.zero_grad()
                    if self.average is not None:
                        self.average.update_parameters(self.network)
                    loop.step = step + 1
                    self.progress.stepped()
                    if (step + 1) % settings.save_every == 0 and step + 1 < steps:
                        self._write_state()
            self._end_epoch(epoch + 1, steps)

    def _loss(self, batch: Batch) -> Tensor:
        """This part's share of the step's loss; the processes' mean of these gradients is the step's."""
        predictions = self.wrapped(batch.pixels, batch.vectors) / self.scale
        labels = batch.labels / self.scale
        loss = squared_error(predictions, labels, batch.counts)
        if self.settings.rank_loss:
            loss = loss + self.settings.rank_loss * batch.share * rank_loss(predictions, labels)
        return loss * self.accelerator.num_processes

    def _set_rate(self, step: int, steps: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * self.settings.rate_factor(step, steps)

    def _end_epoch(self, epoch: int, steps: int) -> None:
        """Validates, keeps the best, and saves the state."""
        loop, settings = self.loop, self.settings
        loss = self._loss_so_far()
        rows = self.split.val
        if settings.published_validation:
            rows = rows[: len(rows) // settings.batch * settings.batch]
        evaluated: Any = self.network if self.average is None else self.average.module
        with self.accelerator.autocast():
            predictions = self._predict(evaluated, rows)
        self._check_finite("validation score", float(predictions.sum()))
        figures = validation_figures(predictions, self.labels[list(rows)].numpy(), self.targets)
        entry = {"epoch": epoch, "loss": loss / steps, "val": figures}
        value = selection_value(figures)
        if is_better(value, loop.best_value):
            loop.best_epoch, loop.best_value = epoch, value
            if self.accelerator.is_main_process:
                self._write_checkpoint(evaluated, predictions, rows)
        loop.history.append(entry)
        loop.epoch, loop.step = epoch, 0
        self.loss_sum.zero_()
        self._write_state()
        self.accelerator.log(
            {
                "loss": entry["loss"],
                **{
                    f"{t}/{name}": value
                    for t, entry in figures.items()
                    for name, value in entry.items()
                    if value is not None
                },
            },
            step=epoch,
        )
        self.progress.epoch_ends(entry)

    def finish(self) -> TrainingResult:
        """Measures the best epoch's checkpoint as a scorer computes it, and writes the files."""
        loop, accelerator = self.loop, self.accelerator
        accelerator.wait_for_everyone()
        best = TrainedNetwork(load_checkpoint(self.state.best_file(loop.best_epoch)).to(accelerator.device))
        rows = (*self.split.val, *self.split.test)
        predictions = np.full((len(self.labelled), len(self.targets)), np.nan)
        predictions[list(rows)] = self._predict(best, rows)
        figures = final_figures(predictions, self.labels.numpy(), self.split, self.targets)
        comparisons: dict[str, Comparison] = {}
        if accelerator.is_main_process:
            comparisons = self._compare(predictions)
            with disk_errors_explained(self.out):
                of = self._write_checkpoint(best, predictions[list(rows)], rows)
                write_json(self.out / "settings.json", {**self.identity, "processes": accelerator.num_processes})
                write_predictions(self.out / "predictions.csv", self.labelled, self.split, self.targets, predictions)
                plot_curves(loop.history, loop.best_epoch, self.out / "curves.png")
                facts = {
                    "data": self.labelled.name,
                    "pictures": {part: len(getattr(self.split, part)) for part in ("train", "val", "test")},
                    "epochs": loop.epoch,
                    "best_epoch": loop.best_epoch,
                    "chosen_by": CHOSEN if loop.best_value is not None else CHOSEN_AS_LAST,
                    "percentiles": of,
                    "validation_beside": {target: found.to_dict() for target, found in comparisons.items()},
                }
                write_metrics(self.out / "metrics.json", figures, facts, loop.history)
        accelerator.wait_for_everyone()
        is_main, is_chosen = accelerator.is_main_process, loop.best_value is not None
        return TrainingResult(self.out / MODEL, loop.best_epoch, figures, loop.history, comparisons, is_main, is_chosen)

    def _compare(self, predictions: np.ndarray) -> dict[str, Comparison]:
        paths = [picture.path for picture in self.labelled.pictures]
        self.progress.preparing("comparing with lite", len(self.split.train) + len(self.split.val))
        with watching(self.progress.prepared):
            return compare(
                paths,
                self.split,
                self.targets,
                self.labels.numpy(),
                predictions,
                self.batches.data.pixels,
                self.accelerator.device,
            )

    def stopped_by(self, error: PictureError) -> ValueError:
        """Saves what was learned before a picture that cannot be read, and says so."""
        kept = "The last state stays"
        if self.accelerator.num_processes == 1:  # elsewhere the others may be in the middle of a step
            self._write_state()
            kept = "All steps before it are saved"
        return ValueError(
            f"Expected a picture that can be read, got {error.path!r} in epoch {self.loop.epoch + 1}: "
            f"{error.reason}. {kept}: fix the file and resume (on the command line --resume)."
        )

    @property
    def _parts(self) -> dict[str, Any]:
        """What the state holds the tensors of."""
        return {"model": self.network.model, "average": self.average, "optimizer": self.optimizer}

    def _loss_so_far(self) -> float:
        """The sum of this epoch's steps, on all processes together.

        Raises:
            ValueError: It is not finite.
        """
        loss = float(self.accelerator.reduce(self.loss_sum.clone(), "sum"))
        self._check_finite("loss", loss)
        return loss

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise MaAgiqaError(
                f"Expected a finite {what}, got {value} in epoch {self.loop.epoch + 1}. The last state stays, but "
                "start over with a lower learning_rate, or without mixed_precision."
            )

    def _write_state(self) -> None:
        self.loop.loss = self._loss_so_far()
        if self.accelerator.scaler is not None:
            self.loop.scaler = self.accelerator.scaler.state_dict()
        if self.accelerator.is_main_process:
            self.state.write(self.identity, self.loop, collect(**self._parts))

    @torch.no_grad()
    def _predict(self, network: torch.nn.Module, rows: Sequence[int]) -> np.ndarray:
        """(len(rows), T) float64, each row predicted by one process."""
        accelerator = self.accelerator
        network.eval()
        size = _PREDICTED_AT_ONCE.get(accelerator.device.type, _PREDICTED_AT_ONCE_ELSEWHERE)
        predictions = torch.zeros(len(rows), len(self.targets), device=accelerator.device)
        place = accelerator.process_index
        with closing(self.batches.in_order(rows, size)) as batches:
            for batch in batches:
                moved = batch.to(accelerator.device)
                end = place + len(batch.rows) * accelerator.num_processes
                predictions[place : end : accelerator.num_processes] = network(moved.pixels, moved.vectors).float()
                place = end
        return accelerator.reduce(predictions, "sum").cpu().double().numpy()

    def _write_checkpoint(self, network: TrainedNetwork, predictions: np.ndarray, rows: Sequence[int]) -> str:
        """Keeps the best weights in the state's folder and as the model; returns what the percentiles are of."""
        held_out = np.where(self.labels[list(rows)].isfinite().numpy(), predictions, np.nan)
        training_labels = self.labels[list(self.split.train)].numpy()
        facts, of = checkpoint_facts(self.labelled, self.targets, held_out, training_labels, self.extractor)
        best = self.state.best_file(self.loop.best_epoch)
        with disk_errors_explained(self.out):
            self.state.make()
            save_checkpoint(network.model, best, facts)
            with atomic_write(self.out / MODEL) as temporary:
                shutil.copyfile(best, temporary)
        return of


def mean_and_deviation(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each column of (n, T) with NaN for none: float32 mean, and standard deviation (1 where it is 0)."""
    columns = [column[column.isfinite()].double() for column in labels.T]
    mean = torch.stack([column.mean() for column in columns])
    deviation = torch.stack([column.std(correction=0) for column in columns])
    return mean.float(), torch.where(deviation > 0, deviation, 1).float()
