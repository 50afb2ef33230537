"""The network behind a vision-language judge, loaded when it is first needed, and asked in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...compute.batching import run_in_batches
from ...compute.progress import tick
from ...errors import first_line
from ...model_files.hub import commit_of
from ...semantic.lazy_network import LazyNetwork
from .asking import AskedPicture, Reader

QUESTIONS_AT_ONCE = 16
"""About one picture: more are asked in several rounds, so that a batch of them has a size that is known."""


class LazyReader(LazyNetwork[Reader]):
    """Reads with a network that is loaded at the first picture: see `LazyNetwork`.

    Args:
        folder: The model's files.
        name: For messages.
        make: Loads the reader: `make(folder, device=, dtype=, quantization=, device_map=)`.
        check: Looks at everything but the weights, cheaply, and says what is wrong.
        depends_on_transformers: The library's major version changes how pictures are resized.
        options: device, dtype, quantization, device_map.

    Raises:
        ImportError: The library for the quantization is not installed.
        ValueError: Missing or damaged files, those of another model, or another kind of quantization.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        make: Callable[..., Reader],
        check: Callable[[Path], object],
        *,
        depends_on_transformers: bool,
        **options: Any,
    ) -> None:
        self._make, self._check, self._depends_on_transformers = make, check, depends_on_transformers
        super().__init__(folder, name, **options)

    @cached_property
    def library(self) -> str:
        """See `LazyNetwork.library`."""
        return super().library if self._depends_on_transformers else ""

    @property
    def revision(self) -> str:
        """The Hub's commit where it is known, else the fingerprint of the files: 12 digits."""
        return (commit_of(self.folder) or self.fingerprint)[:12]

    def answers(self, asked: Sequence[AskedPicture], batch_size: int | None) -> list[Tensor | str]:
        """For every picture the numbers (Q, K) of its questions, or why the model does not take it.

        Raises:
            UnusableModelError: The model cannot be loaded, or was changed to another precision.
        """
        reader = self.ready()
        found: list[Tensor | str] = [""] * len(asked)
        prepared: list[tuple[int, Any]] = []
        for place, one in enumerate(asked):
            try:
                prepared.append((place, reader.prepare(one)))
            except (ValueError, ZeroDivisionError, RuntimeError) as error:  # e.g. 1 pixel high, 5000 wide
                height, width = one.pictures[0].shape[1:]
                found[place] = f"its shape, {width} × {height}, is refused: {first_line(error).rstrip('.')}"
                tick(1)
        if not prepared:
            return found
        most = max(len(one.questions) for one in asked)
        prepared.sort(key=lambda entry: reader.length(entry[1]))  # little padding

        def read(batch: Sequence[tuple[int, Any]]) -> Tensor:
            with torch.inference_mode():
                numbers = reader.read([entry for _, entry in batch])
            tick(len(batch))
            nothing = numbers.new_full((len(batch), most - numbers.shape[1], numbers.shape[2]), torch.nan)
            return torch.cat([numbers, nothing], 1)

        numbers = run_in_batches(
            prepared,
            read,
            device=self.device,
            what=("judge", self.folder, self.dtype, self.quantization, most),
            batch_size=batch_size,
        )
        for (place, _), row in zip(prepared, numbers, strict=True):
            found[place] = row[: len(asked[place].questions)].clone()
        return found

    def _read_weights(self, **placement: Any) -> Reader:
        return self._make(self.folder, **placement)

    def _check_files(self) -> None:
        self._check(self.folder)
