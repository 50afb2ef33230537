"""Training pictures as frozen features describe them: once, before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic_write import atomic_write
from ..pictures.inputs import PictureError, iterate_pictures
from ..scorers.picture_features.features import PictureFeatures
from .cache_file import cache_file


class Descriptions:
    """Descriptions by row.

    Args:
        paths: One a row.
        features: What describes them.
    """

    def __init__(self, paths: Sequence[Path], features: PictureFeatures) -> None:
        self.paths, self.features = list(paths), features
        self.table = torch.empty(0)

    def __getitem__(self, row: int) -> Tensor:
        """(D,) float32."""
        return self.table[row]

    def make(self) -> None:
        """Describes all pictures; whoever is `watching` is told of each.

        Raises:
            PictureError: A picture cannot be read; its index is the row.
        """
        self.table = describe_files(self.paths, self.features)

    def keep_in(self, folder: Path) -> None:
        """As `make`, but reads them from a file in this folder, which is written first if it is not there.

        Args:
            folder: Created if missing.

        Raises:
            OSError: The file cannot be written; there is none then.
            PictureError: A picture cannot be read.
        """
        file = cache_file(folder, f"{self.features.source} {self.features.revision}", self.paths, self._write)
        self.table = torch.from_numpy(np.load(file))

    def _write(self, file: Path) -> None:
        self.make()
        with atomic_write(file) as temporary, temporary.open("wb") as out:
            np.save(out, self.table.numpy())


def describe_files(paths: Sequence[Path], features: PictureFeatures) -> Tensor:
    """(N, D) float32 on the CPU.

    Args:
        paths: Of pictures.
        features: What describes them.

    Raises:
        PictureError: A picture cannot be read or described; its index is its place.
    """
    rows = []
    for row, found in enumerate(features.describe(iterate_pictures(paths))):
        if isinstance(found, str):
            raise PictureError(row, str(paths[row]), found)
        rows.append(found)
    return torch.stack(rows) if rows else torch.empty(0, sum(features.parts.values()))
