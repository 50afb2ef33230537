"""Training pictures, decoded and resized as scorers do it: once, if they fit into memory or into a cache file.

Decoding a PNG of 512 px costs a processor more than a training step of the tiny preset does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic_write import atomic_write
from ..compute.progress import tick
from ..pictures.inputs import PictureError, decode, iterate_pictures
from ..preprocess import resize_cubic, to_bytes
from .cache_file import cache_file

KEPT_IN_MEMORY = 2**26  # bytes; 5461 pictures of 64 px, 445 of 224 px


class PictureCache:
    """Pictures by row, as the visual branch takes them, before they are normalised.

    A set that is small enough when resized is decoded once, and then stays in memory.

    Args:
        paths: One a row.
        size: Height and width to resize to.
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size
        is_small = 3 * size * size * len(self.paths) <= KEPT_IN_MEMORY
        self._memory: dict[int, Tensor] | None = {} if is_small else None
        self._kept: np.ndarray | None = None

    def __getitem__(self, row: int) -> Tensor:
        """(3, S, S) uint8.

        Raises:
            PictureError: The picture cannot be read; its index is the row.
        """
        if self._kept is not None:
            return torch.from_numpy(self._kept[row])
        if self._memory is not None and row in self._memory:
            return self._memory[row]
        picture = decode(self.paths[row], row)
        if picture.pixels is None:
            raise PictureError(row, str(self.paths[row]), picture.error or "unknown")
        resized = self._resized(picture.pixels)
        if self._memory is not None:
            self._memory[row] = resized
        return resized

    def keep_in(self, folder: Path) -> None:
        """From now on reads the pictures from a file in this folder, which is written first if it is not there.

        Its name is a digest of the paths, sizes and modification times of all pictures. Runs and processes share it.
        Whoever is `watching` is told of each picture.

        Args:
            folder: Created if missing.

        Raises:
            OSError: The file cannot be written; there is none then.
            PictureError: A picture cannot be read.
        """
        file = cache_file(folder, f"1 {self.size}", self.paths, self._write)
        self._kept = np.load(file, mmap_mode="c")  # torch takes no read-only array; what is written stays in memory

    def _write(self, file: Path) -> None:
        """Row by row: a full disk is an error while writing, where a memory map would end the process."""
        shape = (len(self.paths), 3, self.size, self.size)
        with atomic_write(file) as temporary, temporary.open("wb") as out:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for row, picture in enumerate(iterate_pictures(self.paths)):
                if picture.pixels is None:
                    raise PictureError(row, str(self.paths[row]), picture.error or "unknown")
                out.write(self._resized(picture.pixels).numpy().tobytes())
                tick(1)

    def _resized(self, pixels: Tensor) -> Tensor:
        return resize_cubic(to_bytes(pixels), (self.size, self.size)).contiguous()
