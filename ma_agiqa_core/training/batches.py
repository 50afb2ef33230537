"""The order of pictures, which process sees which of them, and batches prefetched in threads.

Order and augmentation are functions of the seed, the epoch and the row. So a run that resumes after a kill, and a run
on several processes, draw the same, and nothing has to be stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ..pictures.prefetch import prefetch
from .augmentation import augmented, generator
from .descriptions import Descriptions
from .picture_cache import PictureCache
from .settings import TrainingSettings

_ORDER, _AUGMENTATION = 1, 2  # which of the seed's streams of random numbers


@dataclass(frozen=True)
class TrainingData:
    """Pictures, labels and semantic vectors, by row of the labelled set.

    Attributes:
        pixels: The pictures, or their descriptions.
        labels: (N, T) float32, NaN where a picture has no score for a target.
        vectors: Semantic vectors by question, (N, D) float32; empty for the visual expert alone.
    """

    pixels: PictureCache | Descriptions
    labels: Tensor
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """The pictures that one process computes at a time.

    Attributes:
        rows: (B,) int64, rows of the labelled set.
        pixels: (B, 3, S, S) uint8, or descriptions (B, D) float32.
        vectors: Semantic vectors by question, (B, D).
        labels: (B, T), NaN for none.
        counts: (T,) how many labels the whole step has.
        share: This part's pictures among the step's, 0 where it only keeps the processes in step.
    """

    rows: Tensor
    pixels: Tensor
    vectors: dict[str, Tensor]
    labels: Tensor
    counts: Tensor
    share: float

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        vectors = {name: vector.to(device) for name, vector in self.vectors.items()}
        tensors = (part.to(device) for part in (self.pixels, self.labels, self.counts))
        pixels, labels, counts = tensors
        return Batch(self.rows, pixels, vectors, labels, counts, self.share)


class Batches:
    """One process's batches.

    Args:
        data: The pictures.
        settings: The training protocol.
        process: Which of the processes this is, from 0.
        processes: How many there are.
        workers: Threads; default one per processor, at most 4.
    """

    def __init__(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        process: int = 0,
        processes: int = 1,
        workers: int | None = None,
    ) -> None:
        self.data, self.settings = data, settings
        self.process, self.processes = process, processes
        self.workers = workers or min(4, os.cpu_count() or 1)

    def steps(self, rows: Sequence[int]) -> int:
        """Steps of one epoch."""
        whole, rest = divmod(len(rows), self.settings.batch)
        return whole + (rest > 0 and (whole == 0 or not self.settings.drop_last))

    def epoch(self, rows: Sequence[int], epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """Training batches, `settings.accumulate` of them for each step, from `first_step` on.

        Raises:
            PictureError: A picture cannot be read; its index is the row.
        """
        settings = self.settings
        order = [rows[place] for place in generator(settings.seed, _ORDER, epoch).permutation(len(rows))]
        parts = product(range(first_step, self.steps(rows)), range(settings.accumulate))

        def make(place: tuple[int, int]) -> Batch:
            step, part = place
            step_rows = order[step * settings.batch : (step + 1) * settings.batch]
            return self._training_batch(step_rows, part * self.processes + self.process, epoch)

        return prefetch(parts, make, self.workers)

    def in_order(self, rows: Sequence[int], size: int) -> Generator[Batch, None, None]:
        """This process's share of the rows in order, without augmentation, to be scored."""
        own = rows[self.process :: self.processes]
        starts = range(0, len(own), size)
        view = self.data.pixels.__getitem__
        return prefetch(starts, lambda start: self._batch(own[start : start + size], view), self.workers)

    def _training_batch(self, step_rows: Sequence[int], part: int, epoch: int) -> Batch:
        settings = self.settings
        rows = step_rows[part :: self.processes * settings.accumulate]

        def view(row: int) -> Tensor:
            if isinstance(self.data.pixels, Descriptions):  # of the picture as it is
                return self.data.pixels[row]
            random = generator(settings.seed, _AUGMENTATION, epoch, row)
            return augmented(self.data.pixels[row], settings, random)

        batch = self._batch(rows or step_rows[:1], view)
        counts = self.data.labels[list(step_rows)].isfinite().sum(0).float()
        labels = batch.labels if rows else torch.full_like(batch.labels, torch.nan)
        return Batch(batch.rows, batch.pixels, batch.vectors, labels, counts, len(rows) / len(step_rows))

    def _batch(self, rows: Sequence[int], view: Callable[[int], Tensor]) -> Batch:
        pixels = torch.stack([view(row) for row in rows])
        numbers = torch.tensor(rows)
        vectors = {name: vector[numbers] for name, vector in self.data.vectors.items()}
        labels = self.data.labels[numbers]
        return Batch(numbers, pixels, vectors, labels, labels.isfinite().sum(0).float(), 1.0)
